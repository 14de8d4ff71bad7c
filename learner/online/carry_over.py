"""What an earlier release saved goes on in this one; a part whose shape or name has changed starts anew.

Vocabulary and item statistics always go on: where they do not fit, a state converter is missing and loading fails. Of
the network every tensor that fits goes on. Ids of intents are never given out twice, so that a user's old intent is not
taken for a new one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from learner.config import LearnerConfig
from learner.errors import LearnerStateError
from learner.online.model_snapshot import PREFIX as SNAPSHOT
from learner.online.network import strip_prefix
from learner.online.parts import LearnerParts
from learner.online.persistence import StoredLearner
from learner.online.trial import PREFIX as TRIAL
from learner.online.vocabulary import Vocabulary

_WEIGHTS: Final = ("encoder.", "centers.", "table")
_ROW_MOMENTS: Final = "rows."
_DENSE_MOMENTS: Final = "dense."
_KEPT_SETTINGS: Final = (
    "max_len",
    "capacity",
    "item_statistics.popularity",
    "item_statistics.neighbors",
    "item_statistics.slots",
)


@dataclass(frozen=True, slots=True)
class CarriedOver:
    """A stored learner in the shape of this release."""

    stored: StoredLearner
    anew: list[str]
    """parts that start anew, for people to read; empty when everything goes on"""
    retired_intents: list[int]
    """ids of intents that ended because the centers start anew"""


def carry_over(stored: StoredLearner, config: LearnerConfig) -> CarriedOver:
    """Put the fresh value in place of every stored part that does not fit; pure.

    Parameters
    ----------
    stored
        Of this format; see `stream.engine.migrations` for older ones.
    config
        Of the learner that goes on.

    Raises
    ------
    LearnerStateError
        Vocabulary or item statistics do not fit.
    """
    fresh = LearnerParts.new(config)
    try:
        fresh.vocabulary = Vocabulary.from_arrays(config.capacity, strip_prefix("vocabulary.", stored.arrays))
        fresh.reserve(fresh.table_rows)
    except (KeyError, ValueError, RuntimeError, IndexError) as error:
        raise LearnerStateError(f"{stored.folder}: the vocabulary cannot be read ({error})") from error
    tensors, anew = _tensors(stored.tensors, fresh)
    arrays, anew_arrays, retired = _arrays(stored, fresh, config, new_centers=any("centers." in name for name in anew))
    if not anew and not anew_arrays:
        return CarriedOver(replace(stored, small={**stored.small, "shape": _shape(stored, config)}), [], [])
    # snapshot and trial are compared with a learner that is no longer the same: they end
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith((SNAPSHOT, TRIAL))}
    arrays = {name: array for name, array in arrays.items() if not name.startswith(("snapshot.", TRIAL))}
    small = {**stored.small, "shape": _shape(stored, config), "serving": "learner", "trial": None}
    parts = [*anew, *anew_arrays] + (["model snapshot"] if stored.small["serving"] != "learner" else [])
    return CarriedOver(StoredLearner(stored.folder, small, tensors, arrays), parts, retired)


def _shape(stored: StoredLearner, config: LearnerConfig) -> dict[str, Any]:
    """The shape of what is carried over: that of the configuration, but for what must not differ."""
    kept = {key: stored.small["shape"].get(key) for key in _KEPT_SETTINGS}
    return {**config.shape(), **kept}


def _tensors(stored: Mapping[str, Tensor], fresh: LearnerParts) -> tuple[dict[str, Tensor], list[str]]:
    """The stored tensors, with those of the fresh network where they do not fit, and the names of the weights there."""
    rows = fresh.table_rows
    if "table" not in stored or stored["table"].shape != fresh.network.to_tensors(rows)["table"].shape:
        fresh.network.start_items(np.arange(1, rows))
    wanted = fresh.network.to_tensors(rows)
    misfits = {name for name, tensor in wanted.items() if name not in stored or stored[name].shape != tensor.shape}
    anew = sorted(name for name in misfits if name.startswith(_WEIGHTS))
    if any(not name.startswith("table") for name in anew) or any(name.startswith(_DENSE_MOMENTS) for name in misfits):
        misfits |= {name for name in wanted if name.startswith(_DENSE_MOMENTS)}  # numbered, not named
    if "table" in anew:
        misfits |= {name for name in wanted if name.startswith(_ROW_MOMENTS)}
    gone = {
        name for name in stored if name.startswith((*_WEIGHTS, _ROW_MOMENTS, _DENSE_MOMENTS)) and name not in wanted
    }
    tensors = {name: tensor for name, tensor in stored.items() if name not in gone}
    return tensors | {name: wanted[name].clone() for name in misfits}, anew + sorted(
        name for name in gone if name.startswith(_WEIGHTS)
    )


def _arrays(
    stored: StoredLearner, fresh: LearnerParts, config: LearnerConfig, *, new_centers: bool
) -> tuple[dict[str, NDArray[Any]], list[str], list[int]]:
    """The stored arrays, with fresh parts where they do not fit; those parts; and the intents that ended."""
    arrays, anew, retired = dict(stored.arrays), [], []
    wanted = fresh.arrays()
    if misfit := next(_misfits(arrays, wanted, "item_statistics."), None):
        raise LearnerStateError(f"{stored.folder}: item statistics: {misfit} has another shape than this release reads")
    if any(_misfits(arrays, wanted, "mix.")):
        _put(arrays, wanted, "mix.")
        anew.append("weights of the ranking")
    if not _replay_fits(arrays, wanted, config):
        _put(arrays, wanted, "replay.")
        anew.append("replay buffer")
    if new_centers or any(_misfits(arrays, wanted, "identity.")) or any(_misfits(arrays, wanted, "merging.")):
        retired = arrays.get("identity.ids", np.zeros(0, np.int64)).tolist()
        _put(arrays, wanted, "identity.")
        _put(arrays, wanted, "merging.")
        numbers = stored.arrays.get("identity.numbers", np.zeros(1, np.int64))
        first = int(max([*retired, numbers[0] - 1], default=-1)) + 1
        arrays["identity.ids"] = wanted["identity.ids"] + first
        arrays["identity.numbers"] = wanted["identity.numbers"].copy()
        arrays["identity.numbers"][0] += first
        anew.append("intents")
    return arrays, anew, retired


def _misfits(stored: Mapping[str, NDArray[Any]], wanted: Mapping[str, NDArray[Any]], prefix: str) -> Iterator[str]:
    names = {name for name in (*stored, *wanted) if name.startswith(prefix)}
    for name in sorted(names):
        if name not in stored or name not in wanted or stored[name].shape != wanted[name].shape:
            yield name


def _replay_fits(stored: Mapping[str, NDArray[Any]], wanted: Mapping[str, NDArray[Any]], config: LearnerConfig) -> bool:
    """Whether the replay's rings have the same fields and widths, and not more pairs than there is room for."""
    names = {name for name in stored if name.startswith("replay.")}
    if names != {name for name in wanted if name.startswith("replay.")}:
        return False
    if any(stored[name].shape[1:] != wanted[name].shape[1:] for name in names):
        return False
    room = {"replay.recent.items": config.recent_pairs, "replay.uniform.items": config.uniform_pairs}
    return all(len(stored[name]) <= size for name, size in room.items())


def _put(arrays: dict[str, NDArray[Any]], wanted: Mapping[str, NDArray[Any]], prefix: str) -> None:
    for name in [name for name in arrays if name.startswith(prefix)]:
        del arrays[name]
    arrays |= {name: array.copy() for name, array in wanted.items() if name.startswith(prefix)}


__all__ = ["CarriedOver", "carry_over"]
