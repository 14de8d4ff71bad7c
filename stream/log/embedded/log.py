"""The embedded log: durable, partitioned, one writer process, any number of readers; on RocksDB, no server.

Records lie in entries of up to 1,024 (see packing.py), one RocksDB value each: a poll of 2,000 events is a few reads.
A commit is one synced write batch: messages, positions and the writer's epoch together.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from stream.log.base import (
    AppendRequest,
    CommitOutcomeUnknown,
    LogDamaged,
    LogError,
    LogInUse,
    LogUnavailable,
    Message,
    Mode,
    OffsetRange,
    RecordBatch,
    TopicPartition,
    TopicSpec,
    WriterFenced,
)
from stream.log.clock import wall_clock_ms
from stream.log.embedded.file_check import check_files
from stream.log.embedded.folder import WriteFailed, explained
from stream.log.embedded.idempotency_keys import is_known
from stream.log.embedded.layout import Bounds, Writer, positions_of, writer_key
from stream.log.embedded.primary import PrimaryStore
from stream.log.embedded.reader import LogReader
from stream.log.embedded.secondary import SecondaryStore
from stream.log.embedded.spool import SpoolWriter
from stream.log.embedded.store import Store
from stream.log.embedded.topics import EmbeddedTopics
from stream.log.embedded.writer import LogWriter
from stream.log.idempotency import select
from stream.log.partitioner import rows_by_partition
from stream.log.topic_checks import check_messages

logger = logging.getLogger(__name__)

_SPOOL_TICK_S: Final = 0.01  # how often a waiting owner looks into the spool


class EmbeddedLog:
    """One user's view of an embedded log; see `EventLog` for what the methods promise.

    Parameters
    ----------
    path
        The log's folder.
    mode
        `owner`: the writer of this machine (shared within the process); `reader`: reads, also beside a writer in
        another process; `producer`: appends, through the writer when it is in this process, else through the spool.
    clock_ms
        Wall clock for retention by age, epoch milliseconds.
    """

    def __init__(self, path: Path, mode: Mode = "owner", *, clock_ms: Callable[[], int] = wall_clock_ms) -> None:
        self._mode = mode
        self._clock_ms = clock_ms
        self._worker: str | None = None
        self._epoch = 0
        self._closed = False
        self._full = False  # the last look at the spool found no room to take it in
        self._store: Store
        self._writing: LogWriter | None = None
        self._spool: SpoolWriter | None = None
        primary = PrimaryStore.open(path) if mode == "owner" else PrimaryStore.shared(path)
        if primary is not None:
            self._store = primary
            self._writing = self._attached(primary)
        else:
            if mode == "producer":
                self._create_if_new(path)
                self._spool = SpoolWriter(path)
            self._store = SecondaryStore(path)
        self._reader = LogReader(self._store)
        self._topics = EmbeddedTopics(self._store, self._reader, mode)

    def _attached(self, store: PrimaryStore) -> LogWriter:
        try:
            with store.lock, explained(store.path, "open it for writing"):
                return store.attach(lambda: LogWriter(store, self._clock_ms))
        except BaseException:
            store.release()
            raise

    @staticmethod
    def _create_if_new(path: Path) -> None:
        """A producer may be the first to come: it makes the folder, and leaves it to the writer of later."""
        if not (path / "db" / "CURRENT").exists():
            try:
                PrimaryStore.open(path).release()
            except LogInUse:
                return

    @property
    def url(self) -> str:
        """The URL of this log."""
        return f"file://{self._store.path}"

    # Topics

    def create_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Create the topics that are missing; leave those that are there."""
        self._topics.create(specs)

    def check_topics(self, specs: Sequence[TopicSpec], *, may_have_grown: Collection[str] = ()) -> None:
        """Raise `TopicMismatch` when a topic is missing or has another cleanup policy or number of partitions."""
        self._topics.check(specs, may_have_grown=may_have_grown)

    def add_partitions(self, topic: str, partitions: int) -> None:
        """Give a topic that many partitions; keys move to others from then on. `LogError` when it has more."""
        self._topics.add_partitions(topic, partitions)

    def partition_count(self, topic: str, *, current: bool = False) -> int:
        """Number of partitions; `TopicMismatch` when there is no such topic."""
        return self._topics.partition_count(topic, current=current)

    def begin_offsets(self, topic: str) -> list[int]:
        """First offset that is still there, per partition."""
        return [bounds.begin for bounds in self._all_bounds(topic)]

    def end_offsets(self, topic: str) -> list[int]:
        """Offset of the next record to come, per partition."""
        return [bounds.end for bounds in self._all_bounds(topic)]

    def stable_offsets(self, topic: str) -> list[int]:
        """The end: nothing here is undecided."""
        return self.end_offsets(topic)

    def _all_bounds(self, topic: str) -> list[Bounds]:
        self._look()
        return self._reader.all_bounds(topic)

    # Writing

    def append(self, messages: Sequence[Message], *, idempotency_key: bytes | None = None) -> bool:
        """Append outside of any transaction, once for an idempotency key; False when the key is known."""
        return self.append_each([AppendRequest(messages, idempotency_key)])[0]

    def append_each(self, requests: Sequence[AppendRequest]) -> list[bool]:
        """Append every request whose key is new, with one durable write for all.

        Through the spool, True says that the key was new to this process: when another producer's append under the
        same key is under way, the writer takes in one of them.
        """
        if self._mode == "reader":
            raise LogError(f"log {self._store.path}: opened for reading, cannot append")
        if self._writing is not None:
            return self._writing.write(requests)
        assert self._spool is not None
        self._check([message for request in requests for message in request.messages])
        keyed = any(request.idempotency_key is not None for request in requests)
        waiting = self._spool.waiting_keys() if keyed else set()
        if keyed:  # after looking into the spool: a file is taken in before it goes from there
            self._store.refresh()
        now_ms = self._clock_ms()
        selection = select(requests, lambda digest: digest in waiting or is_known(self._store, digest, now_ms))
        self._spool.put(selection.fresh)
        return selection.answers

    def _check(self, messages: Sequence[Message]) -> None:
        """Raise what the writer would raise, which takes the messages from the spool after this call has returned."""
        for name in {m.topic for m in messages}:
            spec = self._reader.topic(name).spec
            group = [m for m in messages if m.topic == name]
            keys = [m.key for m in group]
            check_messages(spec, keys, [m.value for m in group], [m.headers for m in group])
            rows_by_partition(spec, keys, [m.partition for m in group])

    def claim(self, worker_id: str) -> None:
        """Become the one writer that may `commit` as this worker; an earlier one gets `WriterFenced` from then on."""
        if self._writing is None or self._mode != "owner":
            raise LogError(
                f"log {self._store.path}: opened as {self._mode}, only an owner may claim worker {worker_id}"
            )
        store = self._writing.store
        with store.writing():
            before = store.writer(worker_id)
            writer = Writer(before.epoch + 1, before.positions)
            self._writing.write((), {writer_key(worker_id): msgspec.msgpack.encode(writer)})
            store.writers[worker_id] = writer
            self._worker, self._epoch = worker_id, writer.epoch

    def prepare(self, positions: Mapping[TopicPartition, int], partitions: Sequence[TopicPartition]) -> None:
        """Nothing: a commit is one write."""

    def commit(self, messages: Sequence[Message], positions: Mapping[TopicPartition, int]) -> None:
        """Append the messages and record the input positions of the claimed worker, all or nothing, durably."""
        worker_id, writing = self._worker, self._writing
        if worker_id is None or writing is None:
            raise LogError(f"log {self._store.path}: commit without `claim` first")
        with writing.store.writing():
            before = writing.store.writer(worker_id)
            if before.epoch != self._epoch:
                raise WriterFenced(
                    f"worker {worker_id} on log {self._store.path}: epoch {self._epoch} was replaced by {before.epoch}"
                    ": another process or thread runs as this worker, this one must stop"
                )
            after = before.moved(positions)
            try:
                writing.write([AppendRequest(messages)], {writer_key(worker_id): msgspec.msgpack.encode(after)})
            except WriteFailed as exc:
                raise CommitOutcomeUnknown(str(exc)) from exc
            writing.store.writers[worker_id] = after

    def committed(self, worker_id: str) -> dict[TopicPartition, int]:
        """The positions of the worker's last commit; empty when there was none."""
        self._store.refresh()
        return positions_of(self._store.writer(worker_id))

    # Reading

    def poll(self, positions: Mapping[TopicPartition, int], max_records: int, max_wait_ms: int) -> list[RecordBatch]:
        """Committed records from these positions on; waits at most `max_wait_ms` for the first."""
        deadline = time.monotonic() + max_wait_ms / 1000
        while True:
            self._look()
            batches = self._reader.poll(positions, max_records)
            left = deadline - time.monotonic()
            if batches or left <= 0:
                return batches
            self._wait(positions, left)

    def drain(self) -> None:
        """Take in all that waits in the spool; the owner's polls do it in portions."""
        if self._writing is not None:
            with self._writing.store.writing():
                while self._writing.spool.take_in():
                    pass

    def _look(self) -> None:
        """See what others wrote: the spool for the writer, the writer's files for a reader."""
        if self._writing is None:
            self._store.refresh()
            return
        try:
            with self._writing.store.writing():
                self._writing.spool.take_in()
                self._writing.clean()
        except LogUnavailable as exc:  # what is there can be read all the same
            if not self._full:
                logger.warning("%s", exc)
            self._full = True
        else:
            self._full = False

    def _wait(self, positions: Mapping[TopicPartition, int], left_s: float) -> None:
        if self._writing is None:
            self._store.wait(left_s)
            return
        store = self._writing.store
        with store.changed:  # checked under the lock: an append between looking and waiting is not missed
            if not any(self._reader.bounds(tp).end > offset for tp, offset in positions.items()):
                store.wait(min(left_s, _SPOOL_TICK_S))

    def read(self, span: OffsetRange) -> RecordBatch:
        """Exactly the committed records of the range, for recovery; `OffsetOutOfRange` when some are gone."""
        if span.stop > self._reader.bounds(TopicPartition(span.topic, span.partition)).end:
            self._look()
        return self._reader.read(span)

    def verify_files(self) -> int:
        """Read every block of every file, also of records that are deleted; `LogDamaged` when one is not as written."""
        found = check_files(self._store.path)
        if found.damaged:
            raise LogDamaged(
                f"log {self._store.path}: {len(found.damaged)} of {found.files} files are damaged: "
                f"{', '.join(f'db/{name}' for name in found.damaged)}: check the disk, restore the folder from a copy"
            )
        return found.files

    def close(self) -> None:
        """Release everything; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._store.release()
        if self._spool is not None:
            self._hand_over()

    def _hand_over(self) -> None:
        """A producer that leaves takes its spool in itself when no writer runs, so that readers see what it wrote."""
        try:
            with EmbeddedLog(self._store.path, "owner", clock_ms=self._clock_ms) as owner:
                owner.drain()
        except (LogInUse, LogUnavailable):  # the next writer takes it in
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
