"""The writer's RocksDB: one per log and process, under the writer's lock."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, cast

import msgspec
from rocksdict import Rdict, WriteBatch, WriteOptions

from stream.log.base import LogError, LogInUse, LogUnavailable, TopicSpec
from stream.log.embedded.folder import FORMAT, KIND, WriteFailed, check_format, explained, try_lock, write_durably
from stream.log.embedded.layout import Bounds, Topic, Writer, partition_key, topic_key
from stream.log.embedded.store import database_options

logger = logging.getLogger(__name__)

_OPEN_AGAIN_S: Final = 0.2  # between two tries
_SPARE_BYTES: Final = 1024 * 1024


class Companion(Protocol):
    """What the users of a store share beside it."""

    def reload(self) -> None:
        """Forget what was read from the store: it was closed and opened again."""
        ...


T = TypeVar("T", bound=Companion)


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
        self._db: Rdict | None = Rdict(str(path / "db"), database_options())
        self._failed = False  # a write failed: RocksDB takes no other one until it is opened again
        self._opened_at = time.monotonic()
        self._sync = WriteOptions()
        self._sync.sync = True
        self.topics: dict[str, Topic] = {}
        self._bounds: dict[tuple[int, int], Bounds] = {}
        self.writers: dict[str, Writer] = {}
        self._companion: Companion | None = None
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
            content = json.dumps({"kind": KIND, "format": FORMAT}).encode()
            write_durably(path / f".format.json.{os.getpid()}", path / "format.json", content)
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
        self.topics, self._bounds, self.writers = {}, {}, {}
        for key, raw in self._scan(b"t"):
            topic = msgspec.msgpack.decode(raw, type=Topic)
            self.topics[key[1:].decode()] = topic
            for partition in range(topic.spec.partitions):
                self._bounds[topic.id, partition] = Bounds.unpack(self.value(partition_key(topic.id, partition)))
        for key, raw in self._scan(b"w"):
            self.writers[key[1:].decode()] = msgspec.msgpack.decode(raw, type=Writer)

    def _scan(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        found = []
        it = self.iterator()
        it.seek(prefix)
        while it.valid() and it.key().startswith(prefix):
            found.append((it.key(), it.value()))
            it.next()
        it.status()  # a block that cannot be read ends the iteration like the last one
        return found

    def _database(self) -> Rdict:
        if self._db is None:
            raise LogUnavailable(f"log {self.path}: closed after a failed write: free some space; it goes on by itself")
        return self._db

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock, with a store that takes writes; opens RocksDB again when an earlier write failed.

        Whatever a write is based on is read inside of this.
        """
        with self.changed:
            if self._failed:
                self._open_again()
            yield

    def _open_again(self) -> None:
        wal_bytes = sum(path.stat().st_size for path in (self.path / "db").glob("*.log"))
        free = shutil.disk_usage(self.path).free
        if free < 2 * wal_bytes + _SPARE_BYTES or time.monotonic() < self._opened_at + _OPEN_AGAIN_S:
            raise LogUnavailable(f"log {self.path}: no space left: free some space; it goes on by itself")
        self._opened_at = time.monotonic()
        self._close()
        try:
            with explained(self.path, "open it again"):
                self._db = Rdict(str(self.path / "db"), database_options())
                self._load()
        except LogError as exc:  # still full, or a reader in this process has not finished with what was closed
            raise LogUnavailable(str(exc)) from exc
        self._failed = False
        if self._companion is not None:
            self._companion.reload()
        logger.info("log %s: writes again", self.path)

    def _close(self) -> None:
        db, self._db = self._db, None
        try:
            if db is not None:
                db.close()
        except Exception as exc:  # rocksdict raises bare Exception; what was committed is synced
            text = " ".join(str(exc).split())
            logger.warning("log %s: closed with an error, nothing committed is lost: %s", self.path, text)

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

    def value(self, key: bytes) -> bytes | None:
        """The value of a key."""
        found: bytes | None = self._database().get(key)
        return found

    def iterator(self) -> Any:
        """A RocksDB iterator over a consistent view."""
        return self._database().iter()

    def add_topic(self, spec: TopicSpec) -> None:
        """Create a topic. The caller is within `writing`."""
        self._save(Topic(1 + max((t.id for t in self.topics.values()), default=0), spec), 0)

    def add_partitions(self, topic: Topic, partitions: int) -> None:
        """Give a topic that many partitions. The caller is within `writing`."""
        grown = msgspec.structs.replace(topic, spec=replace(topic.spec, partitions=partitions))
        self._save(grown, topic.spec.partitions)

    def _save(self, topic: Topic, first_new: int) -> None:
        """Write a topic's settings and the bounds of its partitions from `first_new` on, which are empty."""
        batch = WriteBatch(raw_mode=True)
        batch[topic_key(topic.spec.name)] = msgspec.msgpack.encode(topic)
        for partition in range(first_new, topic.spec.partitions):
            batch[partition_key(topic.id, partition)] = Bounds().pack()
        self.write(batch)
        for partition in range(first_new, topic.spec.partitions):
            self._bounds[topic.id, partition] = Bounds()
        self.topics[topic.spec.name] = topic

    def write(self, batch: WriteBatch, *, sync: bool = True) -> None:
        """Write all or nothing; durable when it returns unless `sync` is off. The caller is within `writing`.

        Raises
        ------
        WriteFailed
            The disk is full.
        """
        try:
            with explained(self.path, "write"):
                self._database().write(batch, self._sync if sync else None)
        except LogUnavailable as exc:
            self._failed = True
            raise WriteFailed(str(exc)) from exc

    def release(self) -> None:
        """Close when nobody in this process uses it any more."""
        with _shared.lock:
            self.users -= 1
            if self.users:
                return
            _shared.stores.pop(self.path, None)
            with self.lock:
                self._close()
            os.close(self._lock_fd)
