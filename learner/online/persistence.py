"""The learner's state in a folder: tensors in network.pt, arrays in arrays.npz, the rest in learner.json.

Nothing is pickled. A learner that is read back continues bit for bit as the one that was saved.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learner.config import LearnerConfig
from learner.digest import Hash
from learner.errors import LearnerError, LearnerStateError
from learner.online.copy_buffers import CopyBuffers
from learner.online.model_snapshot import PREFIX, ModelSnapshot
from learner.online.network import strip_prefix
from learner.online.parts import LearnerParts, add_prefix
from learner.online.trial import Trial
from learner.online.vocabulary import Vocabulary
from learner.tensor_files import TensorFileError, load_tensors

FORMAT: Final = 4  # 2: a model snapshot, and who serves; 3: mergers of intents; 4: neighbors in one table


def begin_save(parts: LearnerParts, config: LearnerConfig, buffers: CopyBuffers) -> Callable[[Path], None]:
    """Copy everything that changes, and nothing else: this holds the loop up.

    The function returned writes the copy into a new folder, once, in any thread, while the learner goes on, and before
    the next call with the same buffers.
    """
    vocabulary = parts.vocabulary.begin_arrays()
    tensors = {f"tensor.{name}": tensor.detach().numpy() for name, tensor in parts.tensors().items()}
    copies = buffers.copy({**parts.arrays(), **tensors})
    number = buffers.number
    small = {
        "format": FORMAT,
        "shape": config.shape(),
        "replay_random": parts.replay.random_state(),
        "serving": parts.serving,
        "trial": None if parts.trial is None else parts.trial.to_state(),
    }

    def write(folder: Path) -> None:
        if number != buffers.number:
            raise LearnerError(f"{folder}: another save began before this one was written")
        folder.mkdir(parents=True)
        weights = {name.removeprefix("tensor."): torch.from_numpy(copies[name]) for name in tensors}
        with (folder / "network.pt").open("wb") as file:  # given a path, torch hides the disk's error
            torch.save(weights, file)
        arrays = {name: copy for name, copy in copies.items() if name not in tensors}
        np.savez(folder / "arrays.npz", allow_pickle=False, **add_prefix("vocabulary", vocabulary()), **arrays)
        (folder / "learner.json").write_text(json.dumps(small))

    return write


@dataclass(slots=True)
class StoredLearner:
    """A saved learner as plain data, before anything is built from it; a state converter may change all of it."""

    folder: Path
    small: dict[str, Any]
    tensors: dict[str, Tensor]
    arrays: dict[str, NDArray[Any]]


def read(folder: Path) -> StoredLearner:
    """The files that `begin_save` wrote; `LearnerStateError` when they cannot be read."""
    try:
        small = json.loads((folder / "learner.json").read_text())
        tensors, arrays = _read(folder)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise LearnerStateError(f"{folder}: the learner cannot be read ({error}): take an older checkpoint") from error
    return StoredLearner(folder, small, tensors, arrays)


def load(stored: StoredLearner, config: LearnerConfig, fresh: LearnerParts) -> LearnerParts:
    """The parts of a stored learner.

    Parameters
    ----------
    stored
        Read only.
    config
        Must have the shape of the learner that was saved.
    fresh
        Parts of a new learner of this configuration, which are filled.

    Raises
    ------
    LearnerStateError
        Another format, other shapes, or files that do not belong together.
    """
    folder = stored.folder
    try:
        if stored.small["format"] != FORMAT:
            raise LearnerStateError(
                f"{folder}: learner format {stored.small['format']!r}, this version reads {FORMAT}: "
                "use the version that wrote it, or start from an empty state"
            )
        _refuse_other_shape(folder, config.shape(), stored.small["shape"])
        _fill(fresh, config, stored.tensors, stored.arrays)
        fresh.replay.load_random_state(stored.small["replay_random"])
        fresh.serving = stored.small["serving"]
        if stored.small.get("trial") is not None:
            fresh.trial = Trial.of(fresh.model, config, fresh.table_rows, seed=0)
            fresh.trial.load(stored.tensors, stored.arrays, stored.small["trial"])
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise LearnerStateError(f"{folder}: the learner cannot be read ({error}): take an older checkpoint") from error
    return fresh


def _refuse_other_shape(folder: Path, shape: dict[str, Any], stored: dict[str, Any]) -> None:
    for key in sorted(shape):
        if stored.get(key) != shape[key]:
            raise LearnerStateError(
                f"{folder}: saved with learner.{key} = {stored.get(key)!r}, the configuration says {shape[key]!r}: "
                "set it back, or start from an empty state"
            )


def _fill(
    parts: LearnerParts, config: LearnerConfig, tensors: dict[str, Tensor], arrays: dict[str, NDArray[Any]]
) -> None:
    parts.vocabulary = Vocabulary.from_arrays(config.capacity, strip_prefix("vocabulary.", arrays))
    parts.reserve(parts.table_rows)
    parts.network.load_tensors(tensors)
    parts.statistics.load_arrays(strip_prefix("item_statistics.", arrays))
    parts.ranker.load_arrays(strip_prefix("mix.", arrays))
    parts.replay.load_arrays(strip_prefix("replay.", arrays))
    parts.tracker.identity.load_arrays(strip_prefix("identity.", arrays))
    parts.tracker.merging.load_arrays(strip_prefix("merging.", arrays))
    if any(name.startswith(PREFIX) for name in tensors):
        parts.snapshot = ModelSnapshot(parts.network, parts.ranker, parts.table_rows)
        parts.snapshot.load(tensors, strip_prefix("snapshot.", arrays))


def update_digest(parts: LearnerParts, digest: Hash) -> None:
    """Add all state to a hash: learners with equal digests continue equally."""
    for name, array in (add_prefix("vocabulary", parts.vocabulary.to_arrays()) | parts.arrays()).items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    for name, tensor in parts.tensors().items():
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    digest.update(json.dumps(parts.replay.random_state(), sort_keys=True).encode())
    digest.update(parts.serving.encode())
    if parts.trial is not None:
        digest.update(json.dumps(parts.trial.to_state(), sort_keys=True).encode())


def _read(folder: Path) -> tuple[dict[str, Tensor], dict[str, NDArray[Any]]]:
    try:
        tensors = load_tensors(folder / "network.pt")
        # numpy leaves a file open that it opened itself and could not read
        with (folder / "arrays.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return tensors, {name: stored[name] for name in stored.files}
    except (OSError, TensorFileError):
        raise
    except Exception as error:  # the reader of a damaged file raises anything
        raise ValueError(f"damaged: {error!r}") from error


__all__ = ["FORMAT", "LearnerParts", "StoredLearner", "begin_save", "load", "read", "update_digest"]
