"""The view's RocksDB: opening it, keys, rings of a fixed length.

Keys, by first byte::

    v  format of the folder                  p  position per topic partition
    r  newest list, by user                  h  event, by user, event time, item and action
    s  shift, by user and step               e  erasure receipt, by user
    c  newest message of an intent           q  one entry of a ring, by ring and number
    w  newest report of a worker             n  counts
    E  time of the record that requests an erasure, by user
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from rocksdict import BlockBasedOptions, Cache, DBCompressionType, Options, Rdict, WriteBatch

from monitor.errors import ViewError, ViewInUse

_T = TypeVar("_T")
logger = logging.getLogger(__name__)

FORMAT: Final = b"1"
_ROOM_BYTES: Final = 4 << 20  # that must be free before a folder is opened again
_CACHE_BYTES: Final = 16 << 20
_WRITE_BUFFER_BYTES: Final = 8 << 20


def user_hash(user: bytes) -> bytes:
    """16 bytes that stand for a user in keys: ids may be long, and prefixes of each other."""
    return blake2b(user, digest_size=16).digest()


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(2)
    options.set_max_total_wal_size(4 * _WRITE_BUFFER_BYTES)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_keep_log_file_num(2)
    options.set_max_open_files(64)
    options.set_max_background_jobs(2)
    table = BlockBasedOptions()
    table.set_block_cache(Cache(_CACHE_BYTES))
    table.set_bloom_filter(10, False)
    table.set_cache_index_and_filter_blocks(True)  # so that memory does not grow with the number of users
    options.set_block_based_table_factory(table)
    return options


def _open(path: Path) -> Rdict:
    try:
        path.mkdir(parents=True, exist_ok=True)
        return Rdict(str(path), _options())
    except Exception as exc:  # rocksdict raises bare Exception
        text = _one_line(exc)
        if "lock" in text.lower():
            raise ViewInUse(f"view {path}: another monitor has it open; give this one another folder") from exc
        raise ViewError(
            f"view {path}: cannot be opened: {text}; it may be deleted: the monitor fills it again from the topics"
        ) from exc


def _one_line(exc: Exception) -> str:
    return " ".join(str(exc).split())


class ViewDb:
    """One open view folder. Reads may come from any thread, writes from one.

    Every method raises `ViewError` when the folder cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db = _open(path)
        self._closed = False
        found = self.get(b"v")
        if found is not None and found != FORMAT:
            self.clear()
        if found != FORMAT:
            self._db[b"v"] = FORMAT
        if next(self.scan(b"i"), None) is not None:
            self._db.delete_range(b"i", b"j")  # idempotency keys, which views held until the log did

    def get(self, key: bytes) -> bytes | None:
        """The value at a key."""
        try:
            value: bytes | None = self._db.get(key)
        except Exception as exc:
            raise self._unreadable(exc) from exc
        return value

    def write(self, batch: WriteBatch) -> None:
        """Write a batch, all or nothing."""
        try:
            self._db.write(batch)
        except Exception as exc:
            raise ViewError(f"view {self.path}: cannot be written: {_one_line(exc)}") from exc

    def scan(self, prefix: bytes, start: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Pairs whose key has the prefix, in order, from `start` on."""
        it = self._iterator()
        it.seek(prefix if start is None else start)
        while it.valid():
            key = it.key()
            if not key.startswith(prefix):
                return
            yield key, it.value()
            it.next()

    def scan_back(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Pairs whose key has the prefix, last one first."""
        it = self._iterator()
        it.seek_for_prev(prefix + b"\xff" * 40)
        while it.valid():
            key = it.key()
            if not key.startswith(prefix):
                return
            yield key, it.value()
            it.prev()

    def load(self, prefix: bytes, decode: Callable[[bytes], _T]) -> list[tuple[bytes, _T]]:
        """Decoded pairs whose key has the prefix. What cannot be decoded was written by another version: it goes."""
        found, unreadable = [], WriteBatch(raw_mode=True)
        for key, value in self.scan(prefix):
            try:
                found.append((key, decode(value)))
            except msgspec.MsgspecError as exc:
                logger.warning("view %s: an entry of another version is dropped: %s", self.path, exc)
                unreadable.delete(key)
        if len(unreadable):
            self.write(unreadable)
        return found

    def _iterator(self) -> Any:
        try:
            return self._db.iter()
        except Exception as exc:
            raise self._unreadable(exc) from exc

    def _unreadable(self, exc: Exception) -> ViewError:
        return ViewError(f"view {self.path}: cannot be read: {_one_line(exc)}")

    def reopen(self) -> None:
        """Open the folder anew after a failed write, which RocksDB does not get over by itself.

        While there is no room the folder stays open as it is, so that it can still be read.
        """
        probe = self.path / "room"
        try:
            probe.write_bytes(bytes(_ROOM_BYTES))
        except OSError as exc:
            raise ViewError(f"view {self.path}: cannot be written: {exc.strerror}") from exc
        finally:
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)
        with contextlib.suppress(Exception):  # reports the failed write again
            self._db.close()
        self._db = _open(self.path)

    def clear(self) -> None:
        """Forget everything but the format."""
        batch = WriteBatch(raw_mode=True)
        for key, _ in self.scan(b""):
            batch.delete(key)
            if len(batch) >= 10_000:
                self.write(batch)
                batch = WriteBatch(raw_mode=True)
        self.write(batch)
        self._db[b"v"] = FORMAT

    def close(self) -> None:
        """Release the folder; a second call does nothing."""
        if not self._closed:
            self._closed = True
            try:
                self._db.close()
            except Exception as exc:
                logger.warning("view %s: closing it: %s", self.path, _one_line(exc))


class Ring:
    """The newest `size` entries of a kind, in memory and in the view.

    Any thread may read: reading copies the references.
    """

    def __init__(self, db: ViewDb, name: bytes, size: int) -> None:
        self._prefix = b"q" + name
        self._size = size
        self._numbers: deque[int] = deque()
        self._entries: deque[Any] = deque()
        self._db = db
        self.total = 0

    def load(self, decode: Callable[[bytes], Any]) -> None:
        """Read what the view holds; entries of another version that this one cannot read are removed."""
        for key, entry in self._db.load(self._prefix, decode):
            self._numbers.append(int.from_bytes(key[-8:], "big"))
            self._entries.append(entry)
        self.total = self._numbers[-1] + 1 if self._numbers else 0

    def append(self, batch: WriteBatch, entry: Any, raw: bytes) -> None:
        """Add an entry after the newest one."""
        number = self.total
        self.total += 1
        self._numbers.append(number)
        self._entries.append(entry)
        batch.put(self._prefix + number.to_bytes(8, "big"), raw)
        while len(self._numbers) > self._size:
            batch.delete(self._prefix + self._numbers.popleft().to_bytes(8, "big"))
            self._entries.popleft()

    def replace_last(self, batch: WriteBatch, entry: Any, raw: bytes) -> None:
        """Put an entry in the place of the newest one."""
        self._entries[-1] = entry
        batch.put(self._prefix + self._numbers[-1].to_bytes(8, "big"), raw)

    def remove(self, batch: WriteBatch, unwanted: Callable[[Any], bool]) -> None:
        """Remove every entry for which `unwanted` is true."""
        numbers, entries = list(self._numbers), list(self._entries)
        kept = []
        for number, entry in zip(numbers, entries, strict=True):
            if unwanted(entry):
                batch.delete(self._prefix + number.to_bytes(8, "big"))
            else:
                kept.append((number, entry))
        if len(kept) < len(numbers):
            self._numbers = deque(number for number, _ in kept)
            self._entries = deque(entry for _, entry in kept)

    def clear(self) -> None:
        """Forget what is in memory."""
        self._numbers.clear()
        self._entries.clear()
        self.total = 0

    def newest(self, count: int | None = None) -> list[Any]:
        """Up to `count` entries, oldest first."""
        entries = list(self._entries)
        return entries if count is None else entries[-count:]

    def last(self) -> Any:
        """The newest entry, None when there is none."""
        return self._entries[-1] if self._entries else None

    def __len__(self) -> int:
        return len(self._entries)
