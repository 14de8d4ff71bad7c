"""Tensor files (`torch.save`): reading one runs no code, and its errors name the file and the reason."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch


class TensorFileError(ValueError):
    """A tensor file is damaged, or contains objects that are not loaded; the message is the reason without the path."""


def save_tensors(content: dict[str, Any], path: Path) -> None:
    """`torch.save` through a Python file, whose errors name the cause: torch's own writer hides a full disk."""
    with path.open("wb") as file:
        torch.save(content, file)


def load_tensors(path: Path) -> Any:
    """The tensors and plain values of a file, on the CPU.

    Raises
    ------
    OSError
        The file cannot be opened or read.
    TensorFileError
        The file is damaged, or holds anything but tensors and plain values. torch's own message advises
        `weights_only=False`, which runs whatever code the file contains, so neither the message nor the chain has it.
    """
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # torch warns of a foreign pickle before it refuses it
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        foreign = "Unsupported operand" in str(error)
        raise TensorFileError("it is no weights file" if foreign else "it holds more than tensors") from None
    except Exception:  # the reader of a damaged file raises nearly anything
        raise TensorFileError("it is damaged or not a weights file") from None


__all__ = ["TensorFileError", "load_tensors", "save_tensors"]
