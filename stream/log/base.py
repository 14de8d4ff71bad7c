"""The log: topics with partitions, offsets and one atomic commit. Two implementations, one contract.

"Offset" and "position" always mean the next record to read. Both implementations pass the checks in
`tests/contracts/log_checks.py`; the worker, the sources and the monitor know this protocol only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Final, Literal, Protocol, Self

Headers = tuple[tuple[str, bytes], ...]
Mode = Literal["owner", "reader", "producer"]
KEY_TTL_MS: Final = 24 * 3600 * 1000  # for so long the log knows an idempotency key
MAX_KEYS: Final = 100_000_000  # and at most so many: more than 1,000 a second for a day; the oldest go first


class LogError(Exception):
    """Root of every error that a log raises on purpose.

    `retriable`: the same call may succeed later, the log object is still good.
    """

    retriable: ClassVar[bool] = False


class LogUnavailable(LogError):
    """The log does not answer at present; the same call may be made again."""

    retriable = True


class WriterFenced(LogError):
    """Another writer with the same worker id took over: stop this process, the other one goes on."""


class OffsetOutOfRange(LogError):
    """The wanted records are no longer there (retention) or not there yet."""


class CommitOutcomeUnknown(LogError):
    """The answer to a commit was lost: the journal says whether it took effect."""


class LogInUse(LogError):
    """Another process is the writer of this log: stop it, or append through a log opened with `mode="producer"`."""


class MessageTooLarge(LogError):
    """A message is larger than its topic takes; nothing of the call was written. Send less, or in parts."""


class LogDamaged(LogError):
    """What the log holds cannot be read as it was written: the disk lost or changed it."""


class TopicMismatch(LogError):
    """A topic is missing or has other settings than this version needs; the message names the correcting command."""


@dataclass(frozen=True, slots=True, order=True)
class TopicPartition:
    """One partition of a topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """The settings with which a topic is created and against which it is checked.

    retention_ms, retention_bytes (per partition), retention_records (per partition; embedded log only): None keeps all.
    """

    name: str
    partitions: int
    cleanup: Literal["delete", "compact"] = "delete"
    retention_ms: int | None = None
    retention_bytes: int | None = None
    retention_records: int | None = None
    max_message_bytes: int = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Message:
    """One record to be published. `partition` None: by murmur2 of the key, as Kafka's default partitioner does."""

    topic: str
    key: bytes | None
    value: bytes | None  # None is a tombstone
    timestamp_ms: int
    headers: Headers = ()
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class AppendRequest:
    """Messages that are appended together; with an `idempotency_key` once, however often they are sent."""

    messages: Sequence[Message]
    idempotency_key: bytes | None = None


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Records of one partition in offset order; the lists have the same length.

    next_offset: the position after this batch; it may lie beyond `offsets[-1] + 1` (control records, aborted ones,
    compaction).
    """

    topic: str
    partition: int
    offsets: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    timestamps_ms: list[int]
    headers: list[Headers]
    next_offset: int

    def __len__(self) -> int:
        return len(self.offsets)


@dataclass(frozen=True, slots=True, order=True)
class OffsetRange:
    """The half-open range [start, stop) of one partition's offsets."""

    topic: str
    partition: int
    start: int
    stop: int


class EventLog(Protocol):
    """A durable, partitioned log. One object is used by one thread."""

    def create_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Create the topics that are missing; leave those that are there."""
        ...

    def check_topics(self, specs: Sequence[TopicSpec], *, may_have_grown: Collection[str] = ()) -> None:
        """Raise `TopicMismatch` when a topic is missing or has other settings that matter; retention does not: the
        operator of the log decides on it.

        may_have_grown: topics that may have more partitions than their settings say.
        """
        ...

    def add_partitions(self, topic: str, partitions: int) -> None:
        """Give a topic that many partitions; keys move to others from then on. `LogError` when it has more."""
        ...

    def partition_count(self, topic: str, *, current: bool = False) -> int:
        """Number of partitions; `TopicMismatch` when there is no such topic.

        current: ask the log; otherwise an earlier answer may do, which misses partitions that were added since.
        """
        ...

    def begin_offsets(self, topic: str) -> list[int]:
        """First offset that is still there, per partition."""
        ...

    def end_offsets(self, topic: str) -> list[int]:
        """Offset of the next record to come, per partition, records of open transactions included."""
        ...

    def stable_offsets(self, topic: str) -> list[int]:
        """Offset before which every transaction is decided, per partition: what `read` gives without waiting."""
        ...

    def append(self, messages: Sequence[Message], *, idempotency_key: bytes | None = None) -> bool:
        """Append outside of any transaction; when this returns, the messages are durable, in order per partition.

        With an `idempotency_key`, the key and the messages are one atomic write, and an append under a known key
        writes nothing. The log knows a key for `KEY_TTL_MS` after its append, also after a restart and for other
        processes.

        Returns
        -------
        False when the key is known: the messages are in the log already. True otherwise.

        Raises
        ------
        LogUnavailable
            The log does not answer, has no room, or another append under this key is undecided. Messages without a key
            may have been written in part; those with a key may have been written as a whole: the same call may be made
            again.
        """
        ...

    def append_each(self, requests: Sequence[AppendRequest]) -> list[bool]:
        """Like `append` for every request, with one durable write for all; an error means all of them."""
        ...

    def claim(self, worker_id: str) -> None:
        """Become the one writer that may `commit` as this worker; an earlier one gets `WriterFenced` from then on.

        When this returns, no transaction of an earlier writer is undecided. A log that has claimed this worker before
        may find out that another one has meanwhile: it raises `WriterFenced` and leaves that one alone.
        """
        ...

    def prepare(self, positions: Mapping[TopicPartition, int], partitions: Sequence[TopicPartition]) -> None:
        """Say which positions the next `commit` will have, and partitions that it will likely write to.

        Only a hint, which waits for nothing: the log may send the first requests of the commit meanwhile.
        """
        ...

    def commit(self, messages: Sequence[Message], positions: Mapping[TopicPartition, int]) -> None:
        """Append the messages and record the input positions of the claimed worker, all or nothing, durably."""
        ...

    def committed(self, worker_id: str) -> dict[TopicPartition, int]:
        """The positions of the worker's last commit; empty when there was none."""
        ...

    def poll(self, positions: Mapping[TopicPartition, int], max_records: int, max_wait_ms: int) -> list[RecordBatch]:
        """Committed records from these positions on, at most `max_records`; waits at most `max_wait_ms` for the first.

        Partitions take turns, so that none starves. Empty batches may be there when only `next_offset` moved. Raises
        `OffsetOutOfRange` when a position lies before the begin or beyond the end.
        """
        ...

    def read(self, span: OffsetRange) -> RecordBatch:
        """Exactly the committed records of the range, for recovery; `OffsetOutOfRange` when some are gone."""
        ...

    def verify_files(self) -> int:
        """Read all that lies on this machine's disk; `LogDamaged` when something does not match its checksum.

        Returns
        -------
        The number of files read; 0 for a log on brokers, which look after their own.
        """
        ...

    def close(self) -> None:
        """Release everything; a second call does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
