"""Appends from processes that are not the log's writer: fsynced files in `spool/`, taken in by the writer exactly once.

A producer writes a file under a temporary name, fsyncs it and renames it: from then on it is durable. The writer adds
a file's messages and a mark with the file's name in one atomic write, then deletes the file. A crash in between leaves
the file and the mark, and the mark says that there is nothing left to do but delete.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
from rocksdict import WriteBatch

from stream.log.base import AppendRequest, LogUnavailable
from stream.log.embedded.folder import explained, fsync_folder, write_durably
from stream.log.embedded.layout import spool_key
from stream.log.embedded.primary import PrimaryStore
from stream.log.embedded.spool_file import dump, load
from stream.log.idempotency import key_digest

logger = logging.getLogger(__name__)

_SUFFIX: Final = ".batch"
_UNFINISHED_S: Final = 60  # longer than a live producer writes one file
_KEYED_SUFFIX: Final = ".keyed" + _SUFFIX  # of files with idempotency keys
_FILE_NAME: Final = re.compile(r"[0-9]{20}-[0-9a-f]{12}(?:\.keyed)?\.batch", re.ASCII)
_MAX_BYTES: Final = 1024 * 1024 * 1024  # what may wait for a writer before producers are told to stop
_TAKE_BYTES: Final = 8 * 1024 * 1024  # taken in at once, so that a long backlog does not hold a poll up


def _waiting(folder: Path) -> list[str]:
    """Names of the files that producers finished; what else lies in the folder is none of ours."""
    with os.scandir(folder) as found:
        return sorted(
            one.name for one in found if _FILE_NAME.fullmatch(one.name) and one.is_file(follow_symlinks=False)
        )


def remove_leftovers(folder: Path) -> None:
    """Remove the unfinished files of producers that died while they wrote them."""
    for name in os.listdir(folder):
        if name.startswith("."):
            with suppress(OSError):  # finished meanwhile, or removed by another process
                if time.time() - (folder / name).stat().st_mtime > _UNFINISHED_S:
                    os.unlink(folder / name)


class SpoolWriter:
    """The producer's side. Files of one producer are taken in, in the order in which they were written."""

    def __init__(self, log: Path, *, max_bytes: int = _MAX_BYTES, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._folder = log / "spool"
        self._max_bytes = max_bytes
        self._now_ns = now_ns
        self._id = secrets.token_hex(6)
        self._last = 0
        self._count = itertools.count()
        self._keys: dict[str, set[bytes]] = {}  # digests of idempotency keys by file
        with explained(log, "look into its spool"):
            remove_leftovers(self._folder)

    def put(self, requests: Sequence[AppendRequest]) -> None:
        """Make the appends durable, in this order; `LogUnavailable` when too much waits for a writer."""
        if not any(request.messages or request.idempotency_key is not None for request in requests):
            return
        with explained(self._folder.parent, "append to its spool"):
            if next(self._count) % 64 == 0 and self.waiting_bytes() > self._max_bytes:
                raise LogUnavailable(
                    f"log {self._folder.parent}: more than {self._max_bytes} bytes wait in {self._folder} and nothing "
                    "takes them in: start a worker on this log"
                )
            digests = {key_digest(r.idempotency_key) for r in requests if r.idempotency_key is not None}
            # The wall clock orders producers; within one producer names only grow, also when the clock goes back.
            self._last = max(self._last + 1, self._now_ns())
            stem = f"{self._last:020d}-{self._id}"
            name = stem + (_KEYED_SUFFIX if digests else _SUFFIX)
            write_durably(self._folder / f".{stem}", self._folder / name, dump(requests))
            self._keys[name] = digests

    def waiting_keys(self) -> set[bytes]:
        """Digests of the idempotency keys in files that wait for the writer, those of other producers too."""
        with explained(self._folder.parent, "look into its spool"):
            names = {name for name in os.listdir(self._folder) if name.endswith(_KEYED_SUFFIX)}
            self._keys = {name: digests for name, digests in self._keys.items() if name in names}
            for name in names - self._keys.keys():
                try:
                    requests = load((self._folder / name).read_bytes())
                except (FileNotFoundError, ValueError, msgspec.DecodeError):  # taken in meanwhile, or damaged
                    continue
                self._keys[name] = {key_digest(r.idempotency_key) for r in requests if r.idempotency_key is not None}
            return set().union(*self._keys.values())

    def waiting_bytes(self) -> int:
        """Bytes that wait for the writer."""
        total = 0
        for name in _waiting(self._folder):
            with suppress(FileNotFoundError):  # taken in meanwhile
                total += (self._folder / name).stat().st_size
        return total


class SpoolReader:
    """The writer's side.

    Parameters
    ----------
    write
        Appends what is new of the requests and puts the files' marks by key, in one atomic write.
    """

    def __init__(
        self, store: PrimaryStore, write: Callable[[Sequence[AppendRequest], Mapping[bytes, bytes]], list[bool]]
    ) -> None:
        self._store = store
        self._folder = store.path / "spool"
        self._write = write
        self._seen = -1  # the folder's modification time when it was last found empty
        self._marks: set[str] = store.spool_marks()
        self._refused: set[str] = set()
        remove_leftovers(self._folder)

    def take_in(self) -> bool:
        """Append what waits, a bounded amount; whether there was anything."""
        with explained(self._store.path, "take in its spool"):
            stamp = self._folder.stat().st_mtime_ns
            if stamp == self._seen:
                return False
            names = [name for name in _waiting(self._folder) if name not in self._refused]
            if not names:
                # A rename within the clock's granularity would not be seen: trust a stamp only when it is old enough.
                if time.time_ns() - stamp > 50_000_000:
                    self._seen = stamp
                self._forget_marks()
                return False
            return self._take(names)

    def _take(self, names: list[str]) -> bool:
        taken: list[str] = []
        requests: list[AppendRequest] = []
        size = 0
        for name in names:
            if size >= _TAKE_BYTES:
                break
            if name not in self._marks:  # else written before a crash, only not deleted
                raw = (self._folder / name).read_bytes()
                size += len(raw)
                try:
                    requests += load(raw)
                except (ValueError, msgspec.DecodeError) as exc:
                    # fsynced before it got its name, so this is the disk or a newer version: keep it for inspection.
                    logger.error("log %s: spool/%s is left alone: %s", self._store.path, name, exc)
                    self._refused.add(name)
                    continue
            taken.append(name)
        with self._store.writing():
            self._write(requests, {spool_key(name): b"" for name in taken if name not in self._marks})
            self._marks.update(taken)
        for name in taken:
            os.unlink(self._folder / name)
        return bool(requests)

    def _forget_marks(self) -> None:
        """Delete the marks of files that are certainly gone: the folder is empty, and that is made durable first."""
        if not self._marks:
            return
        fsync_folder(self._folder)
        batch = WriteBatch(raw_mode=True)
        for name in self._marks:
            del batch[spool_key(name)]
        with self._store.writing():
            self._store.write(batch, sync=False)
        self._marks.clear()
