"""The folder of an embedded log: its format, the writer's lock, durable files, and errors of the disk as one line.

Layout of a log folder::

    format.json   what the folder is, and the version of its layout
    lock          held (flock) by the one process that writes
    db/           RocksDB: topics, partitions, writers, entries, spool marks
    spool/        appends of other processes, see spool.py
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from stream.log.base import LogDamaged, LogError, LogUnavailable

FORMAT: Final = 1
KIND: Final = "intentstream-log"
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class WriteFailed(LogUnavailable):
    """A write failed for want of room: whether it took effect shows when the store is opened again."""


@contextmanager
def explained(path: Path, doing: str) -> Iterator[None]:
    """Turn errors of the disk and of RocksDB into one line that names the log and what to do.

    Raises
    ------
    LogUnavailable
        The disk is full: the same call may succeed when there is room again.
    LogDamaged
        What was read does not match its checksum.
    LogError
        Any other error.
    """
    try:
        yield
    except LogError:
        raise
    except OSError as exc:
        raise _disk_error(path, doing, exc.strerror or str(exc), full=exc.errno in _FULL) from exc
    except Exception as exc:  # rocksdict raises bare Exception
        if type(exc) is not Exception and type(exc).__name__ != "DbClosedError":
            raise
        text = " ".join(str(exc).split())
        raise _disk_error(path, doing, text, full=any(os.strerror(number) in text for number in _FULL)) from exc


def _disk_error(path: Path, doing: str, text: str, *, full: bool) -> LogError:
    what = f"log {path}: cannot {doing}: {text}"
    if full:
        return LogUnavailable(f"{what}: free some space; it goes on by itself")
    return LogDamaged(what) if "Corruption: " in text else LogError(what)


def check_format(path: Path) -> bool:
    """Whether there is a log in this folder; `LogError` when there is something else or a newer one."""
    try:
        raw = (path / "format.json").read_bytes()
    except FileNotFoundError:
        if path.is_dir() and any(name[0] != "." and name != "spool" for name in os.listdir(path)):
            raise LogError(f"log {path}: the folder is not empty and not a log: give another folder") from None
        return False
    except NotADirectoryError:
        raise LogError(f"log {path}: a file is in the way: give a folder") from None
    try:
        found = json.loads(raw)
        kind, version = found["kind"], found["format"]
    except (ValueError, KeyError, TypeError) as exc:
        raise LogError(f"log {path}: format.json is damaged: restore it, or give another folder") from exc
    if kind != KIND or not isinstance(version, int) or version > FORMAT:
        raise LogError(
            f"log {path}: {kind} of format {version}, this version reads {KIND} up to format {FORMAT}: "
            "update intentstream, or give another folder"
        )
    return True


def fsync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_durably(temporary: Path, path: Path, content: bytes) -> None:
    """Write a file so that it is there in full or not at all, also after a power cut; `temporary` never stays."""
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def try_lock(path: Path) -> int | None:
    """The descriptor of the held writer's lock, None when another process holds it."""
    fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(os.getpid()).encode(), 0)
    return fd
