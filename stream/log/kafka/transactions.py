"""A worker's commits: one transaction each, by a producer that fences the worker's earlier ones."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import kafka.errors as errors

from stream.log.base import CommitOutcomeUnknown, LogError, LogUnavailable, TopicPartition, WriterFenced
from stream.log.kafka.calls import bounded
from stream.log.kafka.connection import KafkaConnection
from stream.log.kafka.coordinators import abort_left_open, group_positions, last_transaction, name_of
from stream.log.kafka.errors import is_fenced, translated
from stream.log.kafka.producer import LogProducer, OpenTransaction, PartitionMessages
from stream.log.kafka.reader import KafkaReader
from stream.log.kafka.topics import KafkaTopics

logger = logging.getLogger(__name__)

_TIMED_OUT: Final = ("PrepareEpochFence", "PrepareAbort", "CompleteAbort")  # a coordinator raises the epoch for these
_ABORTED: Final = ("Ongoing", *_TIMED_OUT)  # a claim aborts the ongoing one
_COMMITTED: Final = ("PrepareCommit", "CompleteCommit")


@dataclass(slots=True)
class _Commit:
    """A commit in a thread of its own, which may go on after it was given up."""

    transaction: OpenTransaction | None
    ending: bool = False


class KafkaTransactions:
    """The claims and commits of one worker at a time."""

    def __init__(self, connection: KafkaConnection, topics: KafkaTopics, reader: KafkaReader) -> None:
        self._connection = connection
        self._topics = topics
        self._reader = reader
        self._producer: LogProducer | None = None
        self._prepared: OpenTransaction | None = None  # the transaction of the next commit
        self._worker: str | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._fenced: str | None = None
        self._held: tuple[int, int] | None = None  # producer id and epoch of the producer dropped last
        self._committed_before: bool | None = None  # outcome of the last transaction before a claim, as far as known

    # Claims

    def claim(self, worker_id: str) -> None:
        """Become the one writer that may `commit` as this worker; an earlier one gets `WriterFenced` from then on.

        Waits until every transaction of an earlier writer is committed or aborted. When this log had claimed the worker
        before, the transaction coordinator is asked first whether another one has since: that one is left alone.
        """
        self.drop_producer()
        before = last_transaction(self._connection, worker_id)
        self._refuse_if_taken(worker_id, before)
        if self._committed_before is None and before is not None and before.state in (*_COMMITTED, *_ABORTED):
            # Not after a failed claim that had found it out: a mark of its own may be under way now.
            self._committed_before = before.state in _COMMITTED
        self._producer, self._worker, self._fenced = self._new_producer(worker_id), worker_id, None
        self._close_left_open(worker_id, committed=self._committed_before is not False)
        self._committed_before = None
        self._positions = group_positions(self._connection, worker_id, wait_until_decided=True)

    def _refuse_if_taken(self, worker_id: str, last: Any) -> None:
        """Raise `WriterFenced` when another process claimed the worker after this log did.

        A process that was stopped for a while and wakes up would otherwise fence the one that took its place, and stop
        as well.
        """
        held, self._held = self._held, None  # from here on a claim of this log, given up, may have changed it
        if held is None or last is None or worker_id != self._worker:
            return
        if (last.producer_id, last.producer_epoch) != held and last.state not in _TIMED_OUT:
            self._fenced = (
                f"{self._connection.url}: worker {worker_id} was claimed anew: another process runs as this worker, "
                "this one must stop"
            )
            raise WriterFenced(self._fenced)

    def _new_producer(self, worker_id: str) -> LogProducer:
        made: list[LogProducer] = []
        given_up = threading.Event()

        def claim() -> None:
            producer = self._connection.producer(
                transactional_id=name_of(worker_id),
                transaction_timeout_ms=self._connection.config.transaction_timeout_ms,
            )
            made.append(producer)
            try:
                if not given_up.is_set():  # it would fence the producer of the next try
                    producer.init_transactions()
            finally:
                if given_up.is_set():
                    self._discard(producer)

        failure = bounded(claim, 2 * self._connection.config.commit_timeout_ms, "kafka-claim")
        if failure is not None:
            given_up.set()
            for producer in made:
                self._discard(producer)
            raise self._unclaimed(failure, f"claim worker {worker_id}") from failure
        return made[0]

    def _close_left_open(self, worker_id: str, *, committed: bool) -> None:
        """Write the mark that the brokers forgot: readers, the journal's too, would wait before it for good.

        A coordinator that comes back while a partition has no leader takes the topic for deleted and passes its mark
        over (KAFKA-20734; brokers 4.x, replication factor 1): what was committed, or aborted, stays open there. The
        mark of an empty transaction of the same producer decides it. It does nothing to open transactions of others.

        committed: the decision of the coordinator before the claim.
        """
        left = self._reader.undecided(self._topics.known())
        producer, timeout_ms = self._producer, self._connection.config.commit_timeout_ms
        if not left or producer is None:
            return
        if producer.marks:
            doing = "mark transactions left open"
            failure = bounded(lambda: producer.mark(left, timeout_ms, committed=committed), timeout_ms, "kafka-commit")
            if failure is not None:
                self.drop_producer()
                raise self._unclaimed(failure, doing) from failure
        elif not abort_left_open(self._connection, worker_id, left, committed=committed):
            return
        outcome = "committed" if committed else "aborted"
        logger.info("%s: marked as %s what was left open in %s", self._connection.url, outcome, sorted(left))

    def _unclaimed(self, failure: BaseException, doing: str) -> BaseException:
        if isinstance(failure, TimeoutError):
            return LogUnavailable(f"{self._connection.url}: cannot {doing}: {failure}")
        return translated(failure, self._connection.url, doing) if isinstance(failure, Exception) else failure

    # Commits

    def prepare(self, positions: Mapping[TopicPartition, int], partitions: Sequence[TopicPartition]) -> None:
        """Begin the next commit's transaction: its first requests are under way while the caller works.

        An error stays with the producer, and `commit` raises it.
        """
        if self._producer is None or self._prepared is not None:
            return
        with contextlib.suppress(errors.KafkaError):
            self._prepared = self._producer.prepare(positions, name_of(str(self._worker)), partitions)

    def check_claimed(self) -> None:
        """Raise what a commit would raise before it looks at its messages."""
        if self._worker is None:
            raise LogError(f"{self._connection.url}: commit without `claim` first")
        if self._fenced is not None:
            raise WriterFenced(self._fenced)

    def commit(self, parts: Sequence[PartitionMessages], positions: Mapping[TopicPartition, int]) -> None:
        """Write the messages and move the positions of the claimed worker, all or nothing, durably.

        1. messages and group offsets go into one transaction; an error aborts it, and the same call may be made again;
        2. the transaction is ended; an error here, or no answer, is `CommitOutcomeUnknown`: `claim` again, which
           decides the transaction, then read the journal.
        """
        producer = self._producer
        if producer is None:
            raise CommitOutcomeUnknown(
                f"{self._connection.url}: the outcome of the last commit of worker {self._worker} is not known: claim "
                "it again"
            )
        if not parts and not positions:
            return
        commit, self._prepared = _Commit(self._prepared), None
        failure = bounded(
            lambda: self._run(producer, commit, parts, positions),
            self._connection.config.commit_timeout_ms,
            "kafka-commit",
        )
        if failure is not None:
            self._raise(failure, commit, producer)
        self._positions |= positions

    def _run(
        self,
        producer: LogProducer,
        commit: _Commit,
        parts: Sequence[PartitionMessages],
        positions: Mapping[TopicPartition, int],
    ) -> None:
        transaction = commit.transaction
        if transaction is not None and transaction.positions != positions:
            producer.abort()
            transaction = None
        if transaction is None:
            transaction = commit.transaction = producer.begin(positions, name_of(str(self._worker)))
        producer.fill(transaction, parts)
        commit.ending = True
        producer.commit()

    def _raise(self, failure: BaseException, commit: _Commit, producer: LogProducer) -> NoReturn:
        """Raise what a failed commit means. What is not certain is never guessed."""
        url, config = self._connection.url, self._connection.config
        doing = f"commit as worker {self._worker}"
        if isinstance(failure, TimeoutError) and not isinstance(failure, errors.KafkaError):
            # The thread of this commit may still go on: only a new claim decides.
            self.drop_producer()
            raise CommitOutcomeUnknown(f"{url}: {doing}: {failure}") from failure
        if not isinstance(failure, Exception):
            raise failure
        if is_fenced(failure):
            self.drop_producer()
            began_at = commit.transaction.began_at if commit.transaction is not None else None
            if began_at is not None and time.monotonic() - began_at > config.transaction_timeout_ms / 1000:
                # The brokers may have aborted it, as they do with one that stays open: the next claim tells that from
                # another process.
                raise CommitOutcomeUnknown(f"{url}: {doing}: the transaction was open for too long") from failure
            self._fenced = str(translated(failure, url, doing))
            raise WriterFenced(self._fenced) from failure
        aborted = bounded(producer.abort, config.request_timeout_ms, "kafka-abort")
        if aborted is None:
            # Also after an error at the end: an abort is accepted only while the transaction is not committed.
            raise translated(failure, url, doing) from failure
        self.drop_producer()
        if isinstance(aborted, Exception) and is_fenced(aborted):
            self._fenced = str(translated(aborted, url, doing))
            raise WriterFenced(self._fenced) from failure
        raise CommitOutcomeUnknown(
            f"{url}: {doing}: {type(failure).__name__}: {failure}"
            + (" at the end of the transaction" if commit.ending else "")
        ) from failure

    def committed(self, worker_id: str) -> dict[TopicPartition, int]:
        """The positions of a worker's last commit; empty when there was none.

        Does not wait for a transaction that stays open, as that of a worker that hangs or was killed in a step.
        """
        if worker_id == self._worker and self._producer is not None:
            return dict(self._positions)
        return group_positions(self._connection, worker_id, wait_until_decided=False)

    # The end

    def drop_producer(self) -> None:
        """Give up the producer and what it may still do; does nothing without one."""
        producer, self._producer, self._prepared = self._producer, None, None
        if producer is not None:
            self._held = producer.identity()
            self._discard(producer)

    def _discard(self, producer: LogProducer) -> None:
        """Close a producer without waiting for it: its thread ends when the brokers answer or its records expire."""
        longest_s = 2 * self._connection.config.commit_timeout_ms / 1000
        bounded(lambda: producer.close(longest_s), 1_000, "kafka-close")
