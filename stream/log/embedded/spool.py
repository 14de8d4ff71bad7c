"""Appends from processes that are not the log's writer: fsynced files in `spool/`, taken in by the writer exactly once.

A producer writes a file under a temporary name, fsyncs it and renames it: from then on it is durable. The writer adds
a file's messages and a mark with the file's name in one atomic write, then deletes the file. A crash in between leaves
the file and the mark, and the mark says that there is nothing left to do but delete.
"""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from rocksdict import WriteBatch

from stream.log.base import Headers, LogUnavailable, Message
from stream.log.embedded.folder import explained, fsync_folder
from stream.log.embedded.layout import spool_key
from stream.log.embedded.primary import PrimaryStore

logger = logging.getLogger(__name__)

_SUFFIX: Final = ".batch"
_MAX_BYTES: Final = 1024 * 1024 * 1024  # what may wait for a writer before producers are told to stop
_TAKE_BYTES: Final = 8 * 1024 * 1024  # taken in at once, so that a long backlog does not hold a poll up
_FORMAT: Final = 1


class _Spooled(msgspec.Struct, frozen=True, array_like=True):
    """One topic's messages in a spool file, as columns."""

    topic: str
    keys: list[bytes | None]
    values: list[bytes | None]
    timestamps_ms: list[int]
    headers: list[Headers] | None
    partitions: list[int | None] | None


class _File(msgspec.Struct, frozen=True, array_like=True):
    format: int
    topics: list[_Spooled]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_File).decode


def _dump(messages: Sequence[Message]) -> bytes:
    topics: dict[str, list[Message]] = {}
    for message in messages:
        topics.setdefault(message.topic, []).append(message)
    columns = [
        _Spooled(
            topic,
            [m.key for m in group],
            [m.value for m in group],
            [m.timestamp_ms for m in group],
            [m.headers for m in group] if any(m.headers for m in group) else None,
            [m.partition for m in group] if any(m.partition is not None for m in group) else None,
        )
        for topic, group in topics.items()
    ]
    body = _encode(_File(_FORMAT, columns))
    return zlib.crc32(body).to_bytes(4, "big") + body


def _load(raw: bytes) -> list[Message]:
    if len(raw) < 4 or zlib.crc32(raw[4:]) != int.from_bytes(raw[:4], "big"):
        raise ValueError("checksum does not match")
    file = _decode(raw[4:])
    if file.format != _FORMAT:
        raise ValueError(f"format {file.format}, this version reads {_FORMAT}")
    messages = []
    for part in file.topics:
        n = len(part.keys)
        headers = part.headers or [()] * n
        partitions = part.partitions or [None] * n
        rows = zip(part.keys, part.values, part.timestamps_ms, headers, partitions, strict=True)
        messages += [Message(part.topic, k, v, ts, h, p) for k, v, ts, h, p in rows]
    return messages


def _waiting(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.endswith(_SUFFIX))


class SpoolWriter:
    """The producer's side. Files of one producer are taken in, in the order in which they were written."""

    def __init__(self, log: Path, *, max_bytes: int = _MAX_BYTES, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._folder = log / "spool"
        self._max_bytes = max_bytes
        self._now_ns = now_ns
        self._id = secrets.token_hex(6)
        self._last = 0
        self._count = itertools.count()

    def put(self, messages: Sequence[Message]) -> None:
        """Make the messages durable, in this order; `LogUnavailable` when too much waits for a writer."""
        with explained(self._folder.parent, "append to its spool"):
            if next(self._count) % 64 == 0 and self.waiting_bytes() > self._max_bytes:
                raise LogUnavailable(
                    f"log {self._folder.parent}: more than {self._max_bytes} bytes wait in {self._folder} and nothing "
                    "takes them in: start a worker on this log"
                )
            # The wall clock orders producers; within one producer names only grow, also when the clock goes back.
            self._last = max(self._last + 1, self._now_ns())
            name = f"{self._last:020d}-{self._id}"
            temporary = self._folder / f".{name}"
            with open(temporary, "wb") as file:
                file.write(_dump(messages))
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, self._folder / (name + _SUFFIX))
            fsync_folder(self._folder)

    def waiting_bytes(self) -> int:
        """Bytes that wait for the writer."""
        total = 0
        for entry in os.scandir(self._folder):
            try:
                total += entry.stat().st_size
            except FileNotFoundError:  # taken in meanwhile
                continue
        return total


class SpoolReader:
    """The writer's side.

    Parameters
    ----------
    write
        Appends messages and puts the files' marks by key, in one atomic write.
    """

    def __init__(self, store: PrimaryStore, write: Callable[[Sequence[Message], Mapping[bytes, bytes]], None]) -> None:
        self._store = store
        self._folder = store.path / "spool"
        self._write = write
        self._seen = -1  # the folder's modification time when it was last found empty
        self._marks: set[str] = store.spool_marks()
        self._refused: set[str] = set()

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
        messages: list[Message] = []
        size = 0
        for name in names:
            if size >= _TAKE_BYTES:
                break
            if name not in self._marks:  # else written before a crash, only not deleted
                raw = (self._folder / name).read_bytes()
                size += len(raw)
                try:
                    messages += _load(raw)
                except (ValueError, msgspec.DecodeError) as exc:
                    # fsynced before it got its name, so this is the disk or a newer version: keep it for inspection.
                    logger.error("log %s: spool/%s is left alone: %s", self._store.path, name, exc)
                    self._refused.add(name)
                    continue
            taken.append(name)
        with self._store.lock:
            self._write(messages, {spool_key(name): b"" for name in taken if name not in self._marks})
            self._marks.update(taken)
        for name in taken:
            os.unlink(self._folder / name)
        return bool(messages)

    def _forget_marks(self) -> None:
        """Delete the marks of files that are certainly gone: the folder is empty, and that is made durable first."""
        if not self._marks:
            return
        fsync_folder(self._folder)
        batch = WriteBatch(raw_mode=True)
        for name in self._marks:
            del batch[spool_key(name)]
        with self._store.lock:
            self._store.write(batch, sync=False)
        self._marks.clear()
