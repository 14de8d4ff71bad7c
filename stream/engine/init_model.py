"""What a stream begins with: nothing, or a fitted model (`--init`), which is then as much a part of it as the journal.

The state is a function of the journal and of what came before its first entry. So the model's fingerprint stands in
that entry and in every checkpoint, and a copy of the model is kept in the state folder, where a recovery without any
checkpoint and `intentstream verify` find it.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from learner.errors import ModelFileError
from learner.offline.files import ITEMS_FILE, MODEL_FILE, WEIGHTS_FILE
from learner.offline.init_learner import fingerprint
from state.errors import storage_error
from state.files import publish_folder
from stream.errors import JournalError

logger = logging.getLogger(__name__)

NOTE: Final = "init"  # key in the notes of the first journal entry
PARTITIONS_NOTE: Final = "partitions"  # the same: how many the event topic had at the begin
_FOLDER: Final = "init"


def kept_model(state: Path) -> Path | None:
    """The copy of the model that the stream of this state folder began with."""
    kept = state / _FOLDER
    return kept if kept.is_dir() else None


def keep_model(source: Path, state: Path) -> None:
    """Copy a fitted model into the state folder, whole or not at all.

    Raises
    ------
    StateError
        The state folder cannot be written.
    """
    part = state / (_FOLDER + ".part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name in (ITEMS_FILE, WEIGHTS_FILE, MODEL_FILE):
            shutil.copyfile(source / name, part / name)
        publish_folder(part, state / _FOLDER)
    except OSError as exc:
        raise storage_error(f"copying the fitted model {source}", state, exc) from exc


def first_notes(partitions: int, init_fingerprint: str) -> dict[str, str]:
    """What the first journal entry says of the begin: the number of partitions, the fitted model if any."""
    notes = {PARTITIONS_NOTE: str(partitions)}
    return notes | {NOTE: init_fingerprint} if init_fingerprint else notes


def warn_of_other(asked: Path, init_fingerprint: str, state: Path) -> None:
    """Warn when a stream that continues began with another model than `asked`."""
    try:
        wanted = fingerprint(asked)
    except ModelFileError:
        wanted = ""
    if wanted != init_fingerprint:
        logger.warning("%s: goes on where it was; --init %s starts a new state folder only", state, asked)


def refuse_other(notes: Mapping[str, str], init_fingerprint: str, state: Path) -> None:
    """Compare what the journal's first entry says it began with to what this engine began with.

    Raises
    ------
    JournalError
        They differ: every step redone would be another one.
    """
    journalled = notes.get(NOTE, "")
    if journalled == init_fingerprint:
        return
    if not journalled:
        raise JournalError(
            f"{state}: no checkpoint in it, and the journal begins without a fitted model: "
            "leave --init out, or give another log and another state folder"
        )
    raise JournalError(
        f"{state}: the journal begins with the fitted model {journalled}, this is "
        f"{init_fingerprint or 'an empty one'}: give --init the folder of that model"
    )


__all__ = ["NOTE", "PARTITIONS_NOTE", "first_notes", "keep_model", "kept_model", "refuse_other", "warn_of_other"]
