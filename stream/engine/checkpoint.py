"""The engine's state in a checkpoint: what is saved, what is refused, and the digest over all of it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import numpy as np

from learner.errors import LearnerStateError
from learner.online.learner import Learner
from state.checkpoints import CheckpointStore, PendingCheckpoint
from state.store import UserStore
from state.watermarks import Watermarks
from stream.config import StreamConfig
from stream.engine.accuracy import Accuracy
from stream.engine.drift import DriftControl
from stream.engine.event_clock import EventClock
from stream.engine.intents import IntentFollower
from stream.engine.migrations import STATE_FORMAT, StoredState
from stream.errors import StateMismatch

logger = logging.getLogger(__name__)

_NETWORK_SETTINGS: Final = (
    "learner.encoder.",
    "learner.intents.",
    "learner.identity.",
    "learner.mix.",
    "learner.recent_",
    "learner.uniform_",
)


class EngineParts(Protocol):
    """What an engine has that a checkpoint keeps."""

    @property
    def config(self) -> StreamConfig: ...
    @property
    def learner(self) -> Learner: ...
    @property
    def store(self) -> UserStore: ...
    @property
    def intents(self) -> IntentFollower: ...
    @property
    def drift(self) -> DriftControl: ...
    @property
    def accuracy(self) -> Accuracy: ...
    @property
    def event_clock(self) -> EventClock: ...
    @property
    def clocks(self) -> Watermarks: ...
    @property
    def counters(self) -> dict[str, int]: ...

    step_number: int
    record_number: int
    positions: dict[int, int]
    partition_counts: list[int]
    last_loss: float
    journal_from: int
    init_fingerprint: str


def begin_checkpoint(engine: EngineParts, checkpoints: CheckpointStore) -> PendingCheckpoint:
    """Begin an atomic snapshot of everything after the last step; `finish` of what is returned may run in a thread.

    What must hold still is copied here; files are linked, written, checked and published by `finish`. A crash in
    between leaves a folder without a manifest, which the next start deletes.
    """

    def save(folder: Path) -> Callable[[], None]:
        checkpoint = engine.store.begin_checkpoint(folder / "histories")
        write = engine.learner.begin_save()

        def rest() -> None:
            checkpoint()  # first: until it is made, the writes of every step stay in memory
            write(folder / "learner")

        return rest

    # a copy, lists and all: a thread writes it while the next steps go on
    small: dict[str, Any] = msgspec.to_builtins({"engine": to_state(engine), "shape": shape(engine.config)})
    return checkpoints.begin(engine.step_number, small, save)


def to_state(engine: EngineParts) -> dict[str, Any]:
    """Everything small that the next step depends on, JSON-able, exact."""
    return {
        "format": STATE_FORMAT,
        "step": engine.step_number,
        "record_number": engine.record_number,
        "intents": engine.intents.to_state(),
        "drift": engine.drift.to_state(),
        "event_clock": engine.event_clock.to_state(),
        "clocks": engine.clocks.to_state(),
        "positions": {str(partition): offset for partition, offset in sorted(engine.positions.items())},
        "partition_counts": engine.partition_counts,
        "counters": engine.counters,
        **engine.accuracy.to_state(),
        "last_loss": None if np.isnan(engine.last_loss) else engine.last_loss,
        "journal_from": engine.journal_from,
        "began_with": engine.init_fingerprint,
    }


def partition_counts(stored: StoredState | None, config: StreamConfig) -> list[int]:
    """How many partitions the event topic has had, the present number last; the first is that of the state."""
    if stored is None:
        return [config.log.partitions]
    return list(stored.engine.get("partition_counts", [len(stored.engine["positions"])]))


def load(engine: EngineParts, stored: StoredState) -> None:
    """Put the learner and everything small of a checkpoint into a new engine; a log line names what starts anew.

    Raises
    ------
    StateMismatch
        Vocabulary or item statistics do not fit this release.
    """
    state = stored.engine
    engine.step_number = state["step"]
    engine.record_number = state["record_number"]
    engine.event_clock.load_state(state["event_clock"])
    engine.clocks.load_state(state["clocks"])
    engine.positions = {int(partition): offset for partition, offset in state["positions"].items()}
    engine.counters.update(state["counters"])
    engine.accuracy.load_state(state)
    engine.last_loss = float("nan") if state["last_loss"] is None else state["last_loss"]
    engine.journal_from = state.get("journal_from", 0)
    engine.init_fingerprint = state["began_with"]
    try:
        carried = engine.learner.carry_over(stored.learner)
        anew = carried.anew + _load_intents_and_drift(engine, stored, new_network=bool(carried.anew))
    except LearnerStateError as exc:
        raise StateMismatch(
            f"checkpoint {stored.path}: {exc}: run the version that wrote it, or start from an empty state folder"
        ) from exc
    engine.intents.retire(carried.retired_intents)
    if anew:
        logger.warning(
            "checkpoint %s: histories, vocabulary, item statistics and lists go on; these parts do not fit this "
            "release and start anew: %s",
            stored.path,
            ", ".join(anew),
        )


def _load_intents_and_drift(engine: EngineParts, stored: StoredState, *, new_network: bool) -> list[str]:
    """Let shift rule and drift detectors go on; returns those that start anew: drift with a new network, and what an
    older release wrote and no longer fits.
    """
    anew = []
    loads = {
        "shift rule": (engine.intents.load_state, "intents"),
        "drift detectors": (engine.drift.load_state, "drift"),
    }
    for name, (load_part, key) in loads.items():
        if new_network and key == "drift":
            anew.append(name)
            continue
        try:
            load_part(stored.engine[key])
        except (LearnerStateError, KeyError, TypeError, ValueError):
            if stored.written_format == STATE_FORMAT:
                raise
            anew.append(name)
    return anew


def digest(engine: EngineParts) -> str:
    """Hash of all state that a replay must reproduce, as 32 hexadecimal digits."""
    small = to_state(engine)
    del small["journal_from"]  # where to look, not what is known
    made = hashlib.blake2b(msgspec.json.encode(small, order="sorted"), digest_size=16)
    engine.store.update_digest(made, engine.clocks.now)
    engine.learner.update_digest(made)
    return made.hexdigest()


def shape(config: StreamConfig) -> dict[str, Any]:
    """The settings that shape stored data: a checkpoint made with others cannot be continued."""
    learner = config.learner
    return {
        "engine.list_len": config.engine.list_len,
        "actions": [f"{name}{'-' if weight < 0 else ''}" for name, weight in config.actions.weights_by_name.items()],
        **{f"learner.{key}": value for key, value in learner.shape().items()},
    }


def refuse_other_shape(stored_state: StoredState, wanted: dict[str, Any]) -> None:
    """Compare the shape that a checkpoint was made with to the one wanted.

    The network of an older format may have another shape: defaults change from release to release, and it starts anew.

    Raises
    ------
    StateMismatch
        They differ.
    """
    stored = dict(stored_state.shape)
    stored.pop("log.partitions", None)  # the topic says how many there are, the positions how many are known
    known = stored.pop("actions", [])  # checkpoints of earlier versions do not have it
    if wanted["actions"][: len(known)] != known:
        raise StateMismatch(
            f"{stored_state.path}: made with the actions {', '.join(known)}, the configuration says "
            f"{', '.join(wanted['actions'])}: histories hold their places in this list; put new ones at its end, or "
            "give another state folder"
        )
    wanted = {key: value for key, value in wanted.items() if key != "actions"}
    for key in sorted(stored.keys() | wanted.keys()):
        if stored_state.written_format != STATE_FORMAT and key.startswith(_NETWORK_SETTINGS):
            continue
        if stored.get(key) != wanted.get(key):
            raise StateMismatch(
                f"{stored_state.path}: made with {key} = {stored.get(key)!r}, the configuration says "
                f"{wanted.get(key)!r}: set {key} back, or give another state folder"
            )


__all__ = ["begin_checkpoint", "digest", "load", "partition_counts", "refuse_other_shape", "shape", "to_state"]
