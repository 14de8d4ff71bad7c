"""A tensor file with code in it is refused, unread, with one line that does not advise to run it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from learner.config import LearnerConfig
from learner.errors import LearnerError
from learner.offline.config import FitConfig
from learner.offline.files import read_weights
from learner.offline.fit import fit
from learner.offline.sequences import read_sequences
from learner.online.learner import Learner
from learner.tensor_files import TensorFileError, load_tensors, save_tensors


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def bomb(path: Path, mark: Path) -> None:
    torch.save({"weights": torch.zeros(2), "other": Bomb(mark)}, path)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    save_tensors({"weights": torch.arange(3), "epoch": 4, "log": ["a", None]}, tmp_path / "file.pt")
    loaded = load_tensors(tmp_path / "file.pt")
    assert (loaded["weights"].tolist(), loaded["epoch"], loaded["log"]) == ([0, 1, 2], 4, ["a", None])


def weights(folder: Path) -> None:
    bomb(folder / "weights.pt", folder / "ran")
    read_weights(folder / "weights.pt")


def training(folder: Path) -> None:
    data = folder / "data.txt"
    data.write_text("a 1 2 3 4\nb 2 3 4 1\n")
    bomb(folder / "training.pt", folder / "ran")
    fit(FitConfig(device="cpu"), read_sequences(data), folder)


def checkpoint(folder: Path) -> None:
    config = LearnerConfig(capacity=10)
    Learner(config).save(folder / "learner")
    bomb(folder / "learner" / "network.pt", folder / "ran")
    Learner(config).load(folder / "learner")


@pytest.mark.parametrize("read", [weights, training, checkpoint], ids=lambda read: read.__name__)
def test_code_in_a_file_is_refused_in_one_line_without_advice_to_run_it(
    tmp_path: Path, read: Callable[[Path], None]
) -> None:
    with pytest.raises(LearnerError) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "weights_only" not in "".join(traceback.format_exception(caught.value))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"no tensors", b"PK\x03\x04broken", b"\x80\x04."])
def test_a_file_that_holds_no_tensors_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(TensorFileError, match=r"^it is (no weights file|damaged or not a weights file)$"):
        load_tensors(tmp_path / "file.pt")
