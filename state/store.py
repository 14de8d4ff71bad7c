"""Users on disk: one RocksDB per partition, all with one block cache and one budget of write buffers.

The write-ahead log is off: the newest checkpoint is the truth, and the journal brings back later writes. So the running
folder is worth nothing after a crash; every start makes it anew from a checkpoint by hard
links (`UserStore.restore`).
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from state.errors import StateError, StorageFull, storage_error
from state.records import RecordCodec, blank_users, is_live
from state.store_checkpoint import PendingStoreCheckpoint, partition_path

logger = logging.getLogger(__name__)

_CHUNK_USERS: Final = 4096  # users in memory at a time while scanning
_MAX_UNWRITTEN: Final = 200_000  # records in memory during a checkpoint or with a full disk, at most
_BLOCK_BYTES: Final = 4096
_BUFFER_BLOOM_SHARE: Final = 0.02  # of a write buffer
_BLOOM_BITS: Final = 10  # per key; one in a hundred reads of an unknown user goes to the disk


class Digest(Protocol):
    """A hash of `hashlib`."""

    def update(self, data: bytes, /) -> None:
        """Add bytes."""
        ...


class UserStore:
    """Records of users, by partition and user id.

    Parameters
    ----------
    path
        Folder of the running databases; made when missing.
    partitions
        Number of partitions, one database each.
    max_len, list_len
        Shape of a record, see `user_dtype`.
    history_ttl_ms
        Users unseen for longer than twice this (event time, milliseconds) are forgotten, see `is_live`; 0 = never.
    cache_bytes
        Block cache of all partitions together.
    write_buffer_bytes
        Memory of records not yet in files, all partitions together; a checkpoint flushes it.

    Raises
    ------
    StateInUse
        Another process has the folder open.
    StateError
        The folder cannot be opened or read.
    """

    def __init__(
        self,
        path: Path,
        *,
        partitions: int,
        max_len: int,
        list_len: int,
        history_ttl_ms: int,
        cache_bytes: int,
        write_buffer_bytes: int,
    ) -> None:
        self.path = Path(path)
        self.partitions = partitions
        self.history_ttl_ms = history_ttl_ms
        self.codec = RecordCodec(max_len, list_len)
        self._write_options = WriteOptions()
        self._write_options.disable_wal = True  # type: ignore[method-assign,assignment]  # the stub calls it a method
        self._cursors: dict[int, bytes] = {}
        self._pending: PendingStoreCheckpoint | None = None
        self._full = False  # the disk took no records lately: they stay in memory
        self._unwritten: list[dict[bytes, bytes | None]] = [{} for _ in range(partitions)]  # not in the databases yet
        self._databases: list[Rdict] = []
        self._closed = False
        self._options = _options(cache_bytes, write_buffer_bytes, partitions)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for partition in range(partitions):
                self._databases.append(self._open(partition))
        except Exception as exc:
            self.close()
            raise storage_error("opening users", self.path, exc) from exc

    @staticmethod
    def destroy(path: Path) -> None:
        """Remove the folder of a store that is not open; nothing happens when there is none."""
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            return
        except OSError as exc:
            raise storage_error("removing the running state", path, exc) from exc

    @classmethod
    def restore(cls, checkpoint_folder: Path, path: Path) -> None:
        """Replace the folder `path` by the checkpoint: hard links of data files, copies of the others."""
        cls.destroy(path)
        try:
            for folder, _, names in os.walk(checkpoint_folder):
                target = path / Path(folder).relative_to(checkpoint_folder)
                target.mkdir(parents=True, exist_ok=True)
                for name in names:
                    _link(Path(folder, name), target / name)
        except OSError as exc:
            raise storage_error(f"restoring {checkpoint_folder}", path, exc) from exc

    def _open(self, partition: int) -> Rdict:
        return Rdict(str(partition_path(self.path, partition)), self._options)

    def blank(self, count: int) -> NDArray[np.void]:
        """Records of `count` unknown users."""
        return blank_users(count, self.codec.dtype)

    def read(self, partition: int, users: Sequence[bytes]) -> NDArray[np.void]:
        """(B,) records of the users; those unknown are blank."""
        if not users:
            return self.blank(0)
        try:
            found: list[bytes | None] = self._databases[partition].get(list(users))  # type: ignore[assignment]
        except Exception as exc:
            raise self._failed("reading users", partition, exc) from exc
        if unwritten := self._unwritten[partition]:
            found = [unwritten.get(user, value) for user, value in zip(users, found, strict=True)]
        return decode_found(self.codec, found)

    def write(self, partition: int, users: Sequence[bytes], records: NDArray[np.void]) -> None:
        """Store the records of distinct users; a user whose record never saw an event is removed."""
        values: list[bytes | None] = list(self.codec.encode(records))
        for row in np.flatnonzero(records["events"] == 0).tolist():
            values[row] = None
        self._put(partition, users, values)

    def erase(self, partition: int, users: Sequence[bytes]) -> None:
        """Forget the users; unknown ones are ignored."""
        self._put(partition, users, [None] * len(users))

    def scan(self, partition: int) -> Iterator[tuple[list[bytes], NDArray[np.void]]]:
        """All users of a partition in key order, some thousands at a time."""
        for users, values in self._chunks(partition, b""):
            yield users, self.codec.decode(values)

    def count(self, partition: int | None = None) -> int:
        """Estimate of the number of users; one who is in several files counts several times until they are merged."""
        chosen = range(self.partitions) if partition is None else [partition]
        stored = sum(self._databases[p].property_int_value("rocksdb.estimate-num-keys") or 0 for p in chosen)
        return stored + sum(len(self._unwritten[p]) for p in chosen)

    def sweep(self, now: NDArray[np.int64], *, max_users: int) -> int:
        """Scan up to `max_users` users of each partition, round robin, and remove those forgotten at the clocks `now`
        (P,); returns how many.

        The time of the call changes no result: `append` starts forgotten users anew anyway, and the digest leaves them
        out.
        """
        removed = 0
        if self._full:
            self._write_back_if_there_is_room()
        if not self.history_ttl_ms or self._full or (self._pending is not None and not self._pending.done):
            return removed
        for partition in range(self.partitions):
            seen = 0
            cursor = self._cursors.pop(partition, b"")
            for users, values in self._chunks(partition, cursor, min(_CHUNK_USERS, max_users)):
                gone = np.flatnonzero(~live_users(self.codec, values, int(now[partition]), self.history_ttl_ms))
                self.erase(partition, [users[row] for row in gone.tolist()])
                removed += len(gone)
                seen += len(users)
                if seen >= max_users:
                    self._cursors[partition] = users[-1] + b"\0"
                    break
        return removed

    def begin_checkpoint(self, folder: Path) -> Callable[[], None]:
        """Keep writes out of the databases and return the function that makes the checkpoint in `folder`, which must
        not exist.

        Another thread may call the function while this store is read and written; the checkpoint has no write made
        after this call. It makes hard links and raises `StateError` when it fails. `restore` reads its result.
        """
        self._write_back()
        try:
            folder.mkdir(parents=True)
        except OSError as exc:
            raise storage_error("making a checkpoint of the users", folder, exc) from exc
        self._pending = PendingStoreCheckpoint(list(self._databases), folder)
        return self._pending.run

    def checkpoint(self, folder: Path) -> None:
        """Make a checkpoint in `folder`, which must not exist."""
        self.begin_checkpoint(folder)()

    def update_digest(self, digest: Digest, now: NDArray[np.int64]) -> None:
        """Feed all live users at the clocks `now` (P,) into a hash, partition by partition in key order."""
        for partition in range(self.partitions):
            for users, values in self._chunks(partition, b""):
                digest_users(digest, self.codec, partition, users, values, int(now[partition]), self.history_ttl_ms)

    def close(self) -> None:
        """Close the databases; a second call does nothing."""
        if not self._closed:
            self._closed = True
            if self._pending is not None:
                self._pending.finish()
            for partition, database in enumerate(self._databases):
                try:
                    database.close()
                except (
                    Exception
                ) as exc:  # a full disk: the error that stopped the work is reported, and the checkpoints serve
                    logger.warning("%s", self._failed("closing users", partition, exc))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _put(self, partition: int, users: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        unwritten = self._unwritten[partition]
        if self._full or (self._pending is not None and not self._pending.done):
            unwritten.update(zip(users, values, strict=True))
            if sum(map(len, self._unwritten)) > _MAX_UNWRITTEN:
                self._write_back()
            return
        if unwritten:
            for user in users:
                unwritten.pop(user, None)
            # Twice as many unwritten records as new ones: no step pays for all of them.
            moved = [unwritten.popitem() for _ in range(min(len(unwritten), 2 * len(users)))]
            self._write_or_keep(partition, moved)
        self._write_or_keep(partition, list(zip(users, values, strict=True)))

    def _write_or_keep(self, partition: int, pairs: list[tuple[bytes, bytes | None]]) -> None:
        """Write records; when the disk is full they stay in memory until `sweep` finds room, within a bound."""
        try:
            self._write(partition, pairs)
        except StorageFull as exc:
            if not self._full:
                logger.error("going on in memory for a while, without checkpoints: %s", exc)
            self._full = True
            self._unwritten[partition].update(pairs)
            if sum(map(len, self._unwritten)) > _MAX_UNWRITTEN:
                raise

    def _write_back_if_there_is_room(self) -> None:
        try:
            self._write_back()
        except StorageFull:
            return  # RocksDB looks for room by itself, every few seconds
        logger.info("users in %s: there is room again, all records are written", self.path)

    def _write(self, partition: int, pairs: Iterable[tuple[bytes, bytes | None]]) -> None:
        batch = WriteBatch(raw_mode=True)
        for user, value in pairs:
            if value is None:
                batch.delete(user)
            else:
                batch.put(user, value)
        try:
            self._databases[partition].write(batch, self._write_options)
        except Exception as exc:
            raise self._failed("writing users", partition, exc) from exc

    def _write_back(self) -> None:
        """Finish the pending checkpoint and write everything that waited for it."""
        if self._pending is not None:
            self._pending.finish()
            self._pending = None
        for partition, unwritten in enumerate(self._unwritten):
            if unwritten:
                self._write(partition, unwritten.items())
                unwritten.clear()
        self._full = False

    def _chunks(
        self, partition: int, start: bytes, size: int = _CHUNK_USERS
    ) -> Iterator[tuple[list[bytes], list[bytes]]]:
        self._write_back()
        try:
            cursor = self._databases[partition].iter()
            cursor.seek(start)
            while cursor.valid():
                users: list[bytes] = []
                values: list[bytes] = []
                while cursor.valid() and len(users) < size:
                    users.append(cursor.key())
                    values.append(cursor.value())
                    cursor.next()
                yield users, values
            cursor.status()
        except StateError:
            raise
        except Exception as exc:
            raise self._failed("scanning users", partition, exc) from exc

    def _failed(self, doing: str, partition: int, cause: Exception) -> StateError:
        return storage_error(doing, partition_path(self.path, partition), cause)


def decode_found(codec: RecordCodec, found: Sequence[bytes | None]) -> NDArray[np.void]:
    """(B,) records of the values found; blank where there was none."""
    if None not in found:
        return codec.decode(found)  # type: ignore[arg-type]  # just looked
    records = blank_users(len(found), codec.dtype)
    there = [row for row, value in enumerate(found) if value is not None]
    records[there] = codec.decode([value for value in found if value is not None])
    return records


def live_users(codec: RecordCodec, values: Sequence[bytes], now_ts: int, ttl_ms: int) -> NDArray[np.bool_]:
    """Which of the stored values are not forgotten when the clock is at `now_ts`."""
    return is_live(codec.seen_ts(values), now_ts, ttl_ms)


def digest_users(
    digest: Digest,
    codec: RecordCodec,
    partition: int,
    users: Sequence[bytes],
    values: Sequence[bytes],
    now_ts: int,
    ttl_ms: int,
) -> None:
    """Feed the live ones among these users into a hash; the size of the chunks makes no difference."""
    live = live_users(codec, values, now_ts, ttl_ms).tolist()
    parts: list[bytes] = []
    for user, value, alive in zip(users, values, live, strict=True):
        if alive:
            parts += (b"%d %d %d " % (partition, len(user), len(value)), user, value)
    digest.update(b"".join(parts))


def _options(cache_bytes: int, write_buffer_bytes: int, partitions: int) -> Options:
    table = BlockBasedOptions()
    table.set_block_cache(Cache(cache_bytes))
    table.set_bloom_filter(_BLOOM_BITS, False)
    table.set_block_size(_BLOCK_BYTES)
    table.set_format_version(5)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(table)
    options.set_compression_type(DBCompressionType.lz4())
    # Most users of a step are not in the write buffer: a filter there saves a quarter of a read.
    options.set_memtable_whole_key_filtering(True)
    options.set_memtable_prefix_bloom_ratio(_BUFFER_BLOOM_SHARE)
    options.set_write_buffer_manager(WriteBufferManager(write_buffer_bytes, False))
    options.set_write_buffer_size(max(write_buffer_bytes // partitions, 1024 * 1024))
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(1024 * 1024)
    options.set_stats_dump_period_sec(0)
    return options


def _link(source: Path, target: Path) -> None:
    """Hard link files that RocksDB never rewrites, copy the others; copy all where the file system has no links."""
    if source.suffix == ".sst":
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # another file system, or one without links: fall through to a copy, which reports its own failure
    shutil.copyfile(source, target)
