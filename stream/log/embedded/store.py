"""The RocksDB under an embedded log: one writer per machine, any number of readers in other processes.

Layout of a log folder::

    format.json   what the folder is, and the version of its layout
    lock          held (flock) by the one process that writes
    db/           RocksDB: topics, partitions, writers, entries, spool marks
    spool/        appends of other processes, see spool.py
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, cast

import msgspec
from rocksdict import AccessType, BlockBasedOptions, Cache, DBCompressionType, Options, Rdict, WriteBatch, WriteOptions

from stream.log.base import LogError, LogInUse, LogUnavailable, TopicSpec

T = TypeVar("T")

FORMAT: Final = 1
_KIND: Final = "intentstream-log"
_TICK_S: Final = 0.005  # how often a waiting reader in another process looks again
_WRITE_BUFFER_BYTES: Final = 32 * 1024 * 1024
_CACHE_BYTES: Final = 32 * 1024 * 1024
_PARTITION = struct.Struct(">qqqqq")
_ENTRY_KEY = struct.Struct(">cHHQ")


def entry_key(topic_id: int, partition: int, offset: int) -> bytes:
    """Key of the entry that begins at this offset; keys sort as (topic, partition, offset)."""
    return _ENTRY_KEY.pack(b"e", topic_id, partition, offset)


def offset_of(key: bytes) -> int:
    """The base offset in an entry's key."""
    return int.from_bytes(key[-8:], "big")


def topic_key(name: str) -> bytes:
    """Key of a topic's settings."""
    return b"t" + name.encode()


def partition_key(topic_id: int, partition: int) -> bytes:
    """Key of a partition's bounds."""
    return b"p" + topic_id.to_bytes(2, "big") + partition.to_bytes(2, "big")


def writer_key(worker_id: str) -> bytes:
    """Key of a writer's epoch and positions."""
    return b"w" + worker_id.encode()


def spool_key(name: str) -> bytes:
    """Key of the mark that a spooled file was taken in."""
    return b"s" + name.encode()


@dataclass(slots=True)
class Bounds:
    """What is kept per partition.

    begin, end: offsets; size: bytes of its entries; cleaned: a compaction has seen everything before; live: records in
    compacted partitions at the last compaction.
    """

    begin: int = 0
    end: int = 0
    size: int = 0
    cleaned: int = 0
    live: int = 0

    def pack(self) -> bytes:
        """As stored."""
        return _PARTITION.pack(self.begin, self.end, self.size, self.cleaned, self.live)

    @staticmethod
    def unpack(raw: bytes | None) -> Bounds:
        """From what is stored; nothing stored: an empty partition."""
        return Bounds() if raw is None else Bounds(*_PARTITION.unpack(raw))


class Topic(msgspec.Struct, frozen=True):
    """A topic as stored."""

    id: int
    spec: TopicSpec


class Writer(msgspec.Struct):
    """A claimed worker as stored: the newest epoch may commit."""

    epoch: int = 0
    positions: dict[str, list[int]] = {}  # topic -> offset per partition, -1: none


class Store(Protocol):
    """What reading needs, by the writer itself or by another process."""

    path: Path

    def refresh(self) -> None:
        """See what was written since."""
        ...

    def wait(self, timeout_s: float) -> None:
        """Return when something may have been written, or after this time."""
        ...

    def topic(self, name: str) -> Topic | None:
        """The topic of this name."""
        ...

    def bounds(self, topic: Topic, partition: int) -> Bounds:
        """Bounds of a partition."""
        ...

    def writer(self, worker_id: str) -> Writer:
        """Epoch and positions of a worker; a fresh one when there is none."""
        ...

    def iterator(self) -> Any:
        """A RocksDB iterator over a consistent view."""
        ...

    def release(self) -> None:
        """The user of this object is done with it."""
        ...


@contextmanager
def explained(path: Path, doing: str) -> Iterator[None]:
    """Turn errors of the disk and of RocksDB into one line that names the log and what to do."""
    try:
        yield
    except LogError:
        raise
    except OSError as exc:
        raise LogError(f"log {path}: cannot {doing}: {exc.strerror or exc}") from exc
    except Exception as exc:  # rocksdict raises bare Exception
        if type(exc) is not Exception and type(exc).__name__ != "DbClosedError":
            raise
        text = " ".join(str(exc).split())
        hint = ": free some space, then start again" if "No space left" in text else ""
        raise LogError(f"log {path}: cannot {doing}: {text}{hint}") from exc


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
    if kind != _KIND or not isinstance(version, int) or version > FORMAT:
        raise LogError(
            f"log {path}: {kind} of format {version}, this version reads {_KIND} up to format {FORMAT}: "
            "update intentstream, or give another folder"
        )
    return True


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_max_total_wal_size(4 * _WRITE_BUFFER_BYTES)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_keep_log_file_num(2)
    options.set_max_background_jobs(2)
    table = BlockBasedOptions()
    table.set_block_cache(Cache(_CACHE_BYTES))
    table.set_block_size(64 * 1024)
    options.set_block_based_table_factory(table)
    return options


def fsync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that it is there in full or not at all, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
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


@dataclass(slots=True)
class _Shared:
    """The writers that are open in this process, by real path."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    stores: dict[Path, PrimaryStore] = field(default_factory=dict)


_shared = _Shared()


class PrimaryStore:
    """The writer's side. One per log and process: objects that open the same folder share it."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.users = 1
        self._lock_fd = lock_fd
        self._db = Rdict(str(path / "db"), _options())
        self._sync = WriteOptions()
        self._sync.sync = True
        self.topics: dict[str, Topic] = {}
        self._bounds: dict[tuple[int, int], Bounds] = {}
        self.writers: dict[str, Writer] = {}
        self._companion: object | None = None
        self._load()

    @staticmethod
    def open(path: Path) -> PrimaryStore:
        """Open, or share what this process has open already; `LogInUse` when another process writes."""
        path = Path(os.path.realpath(path))
        with _shared.lock:
            store = _shared.stores.get(path)
            if store is not None:
                store.users += 1
                return store
            with explained(path, "open it for writing"):
                store = PrimaryStore._create(path)
            _shared.stores[path] = store
            return store

    @staticmethod
    def shared(path: Path) -> PrimaryStore | None:
        """The store that this process has open for writing already, if any."""
        path = Path(os.path.realpath(path))
        with _shared.lock:
            store = _shared.stores.get(path)
            if store is not None:
                store.users += 1
            return store

    @staticmethod
    def _create(path: Path) -> PrimaryStore:
        if not check_format(path):
            path.mkdir(parents=True, exist_ok=True)
            (path / "spool").mkdir(exist_ok=True)
            write_durably(path / "format.json", json.dumps({"kind": _KIND, "format": FORMAT}).encode())
        fd = try_lock(path)
        if fd is None:
            holder = (path / "lock").read_text().strip() or "another process"
            raise LogInUse(
                f"log {path}: process {holder} writes to it already: stop that one first, "
                "or append to it while it runs (simulate, HTTP API)"
            )
        try:
            (path / "spool").mkdir(exist_ok=True)
            return PrimaryStore(path, fd)
        except BaseException:
            os.close(fd)
            raise

    def _load(self) -> None:
        for key, raw in self._scan(b"t"):
            topic = msgspec.msgpack.decode(raw, type=Topic)
            self.topics[key[1:].decode()] = topic
            for partition in range(topic.spec.partitions):
                found = self._db.get(partition_key(topic.id, partition))
                self._bounds[topic.id, partition] = Bounds.unpack(found)
        for key, raw in self._scan(b"w"):
            self.writers[key[1:].decode()] = msgspec.msgpack.decode(raw, type=Writer)

    def _scan(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        found = []
        it = self._db.iter()
        it.seek(prefix)
        while it.valid() and it.key().startswith(prefix):
            found.append((it.key(), it.value()))
            it.next()
        return found

    def spool_marks(self) -> set[str]:
        """Names of the spooled files that were taken in and whose marks are still kept."""
        return {key[1:].decode() for key, _ in self._scan(b"s")}

    def refresh(self) -> None:
        """Nothing to do: the writer sees its own writes."""

    def wait(self, timeout_s: float) -> None:
        """Return when something was written, or after this time."""
        with self.changed:
            self.changed.wait(timeout_s)

    def topic(self, name: str) -> Topic | None:
        """The topic of this name."""
        return self.topics.get(name)

    def bounds(self, topic: Topic, partition: int) -> Bounds:
        """Bounds of a partition; never changed in place."""
        return self._bounds[topic.id, partition]

    def end_of(self, topic_id: int, partition: int) -> int:
        """End offset of a partition."""
        return self._bounds[topic_id, partition].end

    def attach(self, make: Callable[[], T]) -> T:
        """The one companion object that all users of this store share. The caller holds `lock`."""
        if self._companion is None:
            self._companion = make()
        return cast(T, self._companion)

    def set_bounds(self, topic_id: int, partition: int, bounds: Bounds) -> None:
        """Make bounds known that were just written. The caller holds `lock`."""
        self._bounds[topic_id, partition] = bounds

    def writer(self, worker_id: str) -> Writer:
        """Epoch and positions of a worker."""
        return self.writers.get(worker_id) or Writer()

    def iterator(self) -> Any:
        """A RocksDB iterator over a consistent view."""
        return self._db.iter()

    def add_topic(self, spec: TopicSpec) -> None:
        """Create a topic."""
        topic = Topic(1 + max((t.id for t in self.topics.values()), default=0), spec)
        batch = WriteBatch(raw_mode=True)
        batch[topic_key(spec.name)] = msgspec.msgpack.encode(topic)
        for partition in range(spec.partitions):
            batch[partition_key(topic.id, partition)] = Bounds().pack()
        self.write(batch)
        for partition in range(spec.partitions):
            self._bounds[topic.id, partition] = Bounds()
        self.topics[spec.name] = topic

    def write(self, batch: WriteBatch, *, sync: bool = True) -> None:
        """Write all or nothing; durable when it returns unless `sync` is off. The caller holds `lock`."""
        with explained(self.path, "write"):
            self._db.write(batch, self._sync if sync else None)

    def release(self) -> None:
        """Close when nobody in this process uses it any more."""
        with _shared.lock:
            self.users -= 1
            if self.users:
                return
            _shared.stores.pop(self.path, None)
            with self.lock:
                self._db.close()
            os.close(self._lock_fd)


class SecondaryStore:
    """A reader's side in another process: a RocksDB secondary, which follows the writer's files without a lock."""

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.realpath(path))
        with explained(self.path, "open it for reading"):
            if not check_format(self.path) or not (self.path / "db" / "CURRENT").exists():
                raise LogError(
                    f"log {self.path}: there is no log in this folder: start a worker on it, "
                    f"or create it with `intentstream topics --create --log file://{self.path}`"
                )
            self._scratch = Path(tempfile.mkdtemp(prefix="intentstream-reader-"))
            self._db = self._open()
        self._topics: dict[str, Topic] = {}

    def _open(self) -> Rdict:
        options = _options()
        options.create_if_missing(False)
        options.set_max_open_files(-1)  # the writer may delete a file that this reader still needs
        for attempt in range(5):
            try:
                return Rdict(str(self.path / "db"), options, access_type=AccessType.secondary(str(self._scratch)))
            except Exception:  # a file was replaced while it was being opened
                if attempt == 4:
                    raise
                time.sleep(_TICK_S)
        raise AssertionError("unreachable")

    def refresh(self) -> None:
        """See what was written since; a reader that fell behind the writer's deletions opens anew."""
        try:
            self._db.try_catch_up_with_primary()
        except Exception:
            self._db.close()
            try:
                self._db = self._open()
            except Exception as exc:
                raise LogUnavailable(
                    f"log {self.path}: cannot follow its writer: {' '.join(str(exc).split())}"
                ) from exc

    def wait(self, timeout_s: float) -> None:
        """Sleep a little: another process cannot wake this one."""
        time.sleep(min(timeout_s, _TICK_S))

    def topic(self, name: str) -> Topic | None:
        """The topic of this name."""
        topic = self._topics.get(name)
        if topic is None:
            raw = self._db.get(topic_key(name))
            if raw is not None:
                topic = self._topics[name] = msgspec.msgpack.decode(raw, type=Topic)
        return topic

    def bounds(self, topic: Topic, partition: int) -> Bounds:
        """Bounds of a partition as of the last refresh."""
        return Bounds.unpack(self._db.get(partition_key(topic.id, partition)))

    def writer(self, worker_id: str) -> Writer:
        """Epoch and positions of a worker as of the last refresh."""
        raw = self._db.get(writer_key(worker_id))
        return Writer() if raw is None else msgspec.msgpack.decode(raw, type=Writer)

    def iterator(self) -> Any:
        """A RocksDB iterator over a consistent view."""
        return self._db.iter()

    def release(self) -> None:
        """Close and remove what RocksDB wrote for this reader."""
        self._db.close()
        shutil.rmtree(self._scratch, ignore_errors=True)


def positions_of(writer: Writer) -> Mapping[tuple[str, int], int]:
    """A writer's positions, flat."""
    return {(t, p): o for t, offsets in writer.positions.items() for p, o in enumerate(offsets) if o >= 0}
