"""Errors of the state. Each message says what failed, where, what was found and what to do.

StateError
├── StorageFull        no space left; the state in memory and the older checkpoints are good
├── StorageReadOnly    the folder cannot be written
├── StorageFailed      any other input or output error
├── StateInUse         another process has the folder open, or it cannot be written at all
├── StateCorrupted     stored bytes differ from those written
├── CheckpointFormatUnknown   a checkpoint of a newer version
└── CheckpointInProgress      a checkpoint began before the last one was finished
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import ClassVar


class StateError(Exception):
    """Root of every error that the state raises on purpose.

    `retriable`: the same call may succeed later, nothing was changed by the failed one.
    """

    retriable: ClassVar[bool] = False


class StorageFull(StateError):
    """No space left on the device: free some, the newest finished checkpoint still serves."""

    retriable = True


class StorageReadOnly(StateError):
    """The folder cannot be written: mount it writable or give the process the right to write there."""


class StorageFailed(StateError):
    """Another error of the disk or the remote location, in the words of the system."""

    retriable = True


class StateInUse(StateError):
    """The state folder is unavailable: another process has it open, or it cannot be written."""


class StateCorrupted(StateError):
    """Stored bytes differ from those written: remove what the message names, an older checkpoint and the log serve."""


class CheckpointFormatUnknown(StateError):
    """A checkpoint was written by a newer version: run that version, or start from another state folder."""


class CheckpointInProgress(StateError):
    """A checkpoint began before the last one was finished."""

    retriable = True


_FULL = {errno.ENOSPC, errno.EDQUOT}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


def storage_error(doing: str, path: Path | str, cause: BaseException) -> StateError:
    """Translate a failure of the system or of RocksDB into an error of this package.

    rocksdict has one exception class for all failures, so only its text tells them apart.

    Parameters
    ----------
    doing
        What failed, such as "writing users".
    path
        Where.
    cause
        An `OSError`, or the bare `Exception` of rocksdict.
    """
    if isinstance(cause, StateError):
        return cause
    number = cause.errno if isinstance(cause, OSError) else None
    text = " ".join(str(cause).split())
    where = f"{doing} in {path} failed: {text}"
    if number in _FULL or "No space left" in text or "Disk quota exceeded" in text:
        return StorageFull(f"{where}; free some space, the newest finished checkpoint still serves")
    if number in _READ_ONLY or "Read-only file system" in text or "Permission denied" in text:
        return StorageReadOnly(f"{where}; the folder must be writable by this process")
    if "LOCK" in text and ("Resource temporarily unavailable" in text or "No locks available" in text):
        return StateInUse(f"{where}; another process has this state folder open: stop it, or use another folder")
    if text.startswith("Corruption"):
        return StateCorrupted(f"{where}; remove the newest checkpoint, the one before it and the log serve")
    return StorageFailed(where)
