"""The device that `intentstream fit` calculates on."""

from __future__ import annotations

import os

import torch

from learner.errors import LearnerError
from learner.offline.config import DeviceName
from learner.runtime import use_deterministic_algorithms


def device_of(name: DeviceName) -> torch.device:
    """Where `fit` calculates; `auto` is the graphics card where torch sees one. There, too, equal runs give equal bits.

    Raises
    ------
    LearnerError
        `cuda`, and torch sees no graphics card
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise LearnerError("device = 'cuda', but torch sees no graphics card here; take 'cpu' or 'auto'")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS' sums depend on what else runs
    use_deterministic_algorithms()
    return torch.device("cuda")


__all__ = ["device_of"]
