"""State that earlier releases wrote: one format number for all of it, one function for each step of that number.

A checkpoint says its format. `migrated` applies the functions in `CONVERTERS` until the format is this release's; then
the engine loads it. So histories, clocks, vocabulary, item statistics, published lists and positions always go on.
A part of the network, of the ranking or of the drift detectors that no longer fits needs no converter: it starts
anew, and a log line names it (`learner.online.carry_over`).

To change the format: raise `STATE_FORMAT`, add the function that makes the new format of the one before, run
`python -m tests.data.state.make`, and commit the new folder beside the old ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from learner.online.persistence import StoredLearner, read
from state.checkpoints import Checkpoint
from stream.errors import StateMismatch

STATE_FORMAT: Final = 5  # the first with a number for everything


@dataclass(slots=True)
class StoredState:
    """A checkpoint as plain data, before anything is built from it."""

    path: Path
    """the checkpoint's folder; `histories` in it holds the users' records, which a converter leaves alone"""
    written_format: int
    engine: dict[str, Any]
    """the engine's own values, `format` among them"""
    shape: dict[str, Any]
    """the settings that it was made with, as far as they shape stored data"""
    learner: StoredLearner


Converter = Callable[[StoredState], None]
CONVERTERS: dict[int, Converter] = {}
"""By format: changes a state of that format into one of the next; the number itself is set by `migrated`."""


def read_state(checkpoint: Checkpoint) -> StoredState:
    """The state of a checkpoint in this release's format; the histories stay in their files.

    Raises
    ------
    StateMismatch
        Its format is newer than this release, or older than the oldest that it reads.
    LearnerStateError
        The learner's files cannot be read.
    """
    found = checkpoint.manifest["engine"].get("format")
    _refuse_unreadable(found, f"checkpoint {checkpoint.path}")
    values = checkpoint.manifest
    return migrated(
        StoredState(
            checkpoint.path, found, dict(values["engine"]), dict(values["shape"]), read(checkpoint.path / "learner")
        )
    )


def migrated(stored: StoredState) -> StoredState:
    """The state in this release's format, one converter after the other."""
    while (number := stored.engine["format"]) != STATE_FORMAT:
        CONVERTERS[number](stored)
        stored.engine["format"] = number + 1
    return stored


def _refuse_unreadable(number: Any, where: str) -> None:
    """Raise `StateMismatch` for a format from which no converters lead to this release's."""
    if isinstance(number, int) and number > STATE_FORMAT:
        raise StateMismatch(
            f"{where} has state format {number}, this release reads up to {STATE_FORMAT}: run the release that wrote "
            "it or a newer one, or start from an empty state folder"
        )
    readable = number == STATE_FORMAT or (
        isinstance(number, int) and all(step in CONVERTERS for step in range(number, STATE_FORMAT))
    )
    if not readable:
        raise StateMismatch(
            f"{where} has state format {number!r}, the oldest that this release reads is "
            f"{min([STATE_FORMAT, *CONVERTERS])}: run a release between the two first, or start from an empty state "
            "folder and let the log be read again"
        )


__all__ = ["CONVERTERS", "STATE_FORMAT", "Converter", "StoredState", "migrated", "read_state"]
