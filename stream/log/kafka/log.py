"""The log on Apache Kafka: one transaction per step, stable transactional ids, explicit assignment, read_committed.

What a commit is: messages, the journal's entry among them, and the input positions (as offsets of the consumer
group `intentstream-WORKER`) in one transaction of the producer `intentstream-WORKER`. A second process with the same
worker id fences the first. Nothing here subscribes, so no rebalance can take a partition away during a long step.

Retention counts from the append here as in the embedded log: topics are created with LogAppendTime, since a replay of
old events would otherwise be deleted as it arrives.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import kafka
import kafka.errors as errors
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewTopic

from stream.log.base import (
    CommitOutcomeUnknown,
    LogError,
    LogUnavailable,
    Message,
    Mode,
    OffsetOutOfRange,
    OffsetRange,
    RecordBatch,
    TopicPartition,
    TopicSpec,
    WriterFenced,
)
from stream.log.kafka.client import PAUSE_S, bounded, connect, explained, fenced, offsets_of, translated
from stream.log.kafka.config import KafkaConfig
from stream.log.kafka.fetch import Fetcher, joined, split_fairly
from stream.log.kafka.pipelining import overlapped
from stream.log.kafka.produce import Group, OpenTransaction, begin, check, fill, mark, send, unsplit
from stream.log.kafka.topics import compare_settings, other_partitions, topic_settings
from stream.log.partitioner import rows_by_partition
from stream.log.topic_checks import check_messages, compare_topics, missing_topic

logger = logging.getLogger(__name__)

_GROUP_PREFIX: Final = "intentstream-"
_BATCH_BYTES: Final = 64 * 1024  # of records in one produce batch; below max_message_bytes of every topic
_MAX_REQUEST_BYTES: Final = 8 * 1024 * 1024
_LINGER_MS: Final = 20  # a commit flushes at once; this only keeps half-full batches back while it is being filled
_RECONNECT_MS: Final = 1_000  # the client's 30 s would keep a worker waiting for a broker that is long back
_COORDINATOR_BUSY: Final = (
    errors.CoordinatorNotAvailableError,
    errors.CoordinatorLoadInProgressError,
    errors.NotCoordinatorError,
)
_UNDECIDED_MS: Final = 2_000  # what was decided is there sooner; a worker's transaction is open for a whole step
_AGAIN_MS: Final = 5  # longer than a broker nearby takes for a fetch
_TIMED_OUT: Final = ("PrepareEpochFence", "PrepareAbort", "CompleteAbort")  # a coordinator raises the epoch for these
_ABORTED: Final = ("Ongoing", *_TIMED_OUT)  # what is going on, a claim aborts
_COMMITTED: Final = ("PrepareCommit", "CompleteCommit")


class KafkaLog:
    """One user's connection to Kafka; see `EventLog` for what the methods promise.

    Parameters
    ----------
    url
        `kafka://host:port[,host:port]`.
    mode
        `owner`: everything; `reader`: reads; `producer`: appends and reads.
    config
        Security and timeouts.
    """

    def __init__(self, url: str, mode: Mode = "owner", config: KafkaConfig | None = None) -> None:
        parts = urlsplit(url)
        if "@" in url:  # first: no other message may show it
            raise LogError("log kafka://: no user or password in the URL: use log.kafka.sasl_* in the configuration")
        if not parts.netloc or parts.path not in ("", "/") or parts.query:
            raise LogError(f"log {url}: expected kafka://host:port[,host:port]")
        self.url = f"kafka://{parts.netloc}"
        self._mode = mode
        self._config = config or KafkaConfig()
        self._options: dict[str, Any] = {
            "bootstrap_servers": parts.netloc.split(","),
            "bootstrap_timeout_ms": self._config.request_timeout_ms,
            "reconnect_backoff_max_ms": _RECONNECT_MS,
            **self._config.client_options(),
        }
        self._poller: Fetcher | None = None
        self._recovery: Fetcher | None = None
        self._offsets_consumer: Any = None
        self._appender: Any = None
        self._producer: Any = None
        self._begun: OpenTransaction | None = None  # the transaction of the next commit
        self._worker: str | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._fenced: str | None = None
        self._held: tuple[int, int] | None = None  # producer id and epoch of the producer dropped last
        self._outcome: bool | None = None  # whether the last transaction before a claim was committed, as far as known
        self._specs: dict[str, TopicSpec] = {}
        self._partitions: dict[str, int] = {}
        self._known_ends: dict[TopicPartition, int] = {}
        self._turn = count()

    # Topics

    @contextlib.contextmanager
    def _admin(self, doing: str) -> Iterator[Any]:
        with explained(self.url, doing):
            admin = connect(KafkaAdminClient, **self._options)
            try:
                yield admin
            finally:
                admin.close()

    def create_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Create the topics that are missing; leave those that are there."""
        if self._mode == "reader":
            raise LogError(f"{self.url}: opened for reading, cannot create topics")
        with self._admin("create topics") as admin:
            there = set(admin.list_topics())
            for spec in specs:
                if spec.name not in there:
                    topic = NewTopic(
                        spec.name,
                        num_partitions=spec.partitions,
                        replication_factor=self._config.replication_factor,
                        topic_configs=topic_settings(spec),
                    )
                    with contextlib.suppress(errors.TopicAlreadyExistsError):  # another process was faster
                        admin.create_topics([topic], wait_for_metadata=True)
        self._specs |= {spec.name: spec for spec in specs}

    def check_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Raise `TopicMismatch` when a topic is missing or has other settings than these; retention is not compared."""
        with self._admin("check topics") as admin:
            there = set(admin.list_topics())
            wanted = {spec.name: spec for spec in specs}
            names = [name for name in wanted if name in there]
            partitions = {t["name"]: len(t["partitions"]) for t in admin.describe_topics(names)} if names else {}
            resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
            settings = admin.describe_configs(resources, config_filter="all").get("topic", {}) if names else {}
        found: dict[str, TopicSpec | None] = {spec.name: None for spec in specs}
        found |= {name: TopicSpec(name, partitions[name], wanted[name].cleanup) for name in names}
        compare_topics(specs, found, self.url, partial(other_partitions, self.url))
        for spec in specs:
            compare_settings(self.url, spec, {key: str(entry["value"]) for key, entry in settings[spec.name].items()})
        self._specs |= {spec.name: spec for spec in specs}
        self._partitions |= partitions

    def partition_count(self, topic: str) -> int:
        """Number of partitions; `TopicMismatch` when there is no such topic."""
        known = self._partitions.get(topic)
        if known is None:
            with self._admin("look up a topic") as admin:
                there = set(admin.list_topics())
                if topic not in there:
                    raise missing_topic(topic, self.url)
                known = self._partitions[topic] = len(admin.describe_topics([topic])[0]["partitions"])
        return known

    def _all(self, topic: str) -> list[Any]:
        return [kafka.TopicPartition(topic, p) for p in range(self.partition_count(topic))]

    def _uncommitted(self) -> Any:
        """A read_uncommitted consumer: a read_committed one's end stops at the last stable offset."""
        if self._offsets_consumer is None:
            with explained(self.url, "connect"):
                self._offsets_consumer = connect(
                    kafka.KafkaConsumer,
                    group_id=None,
                    enable_auto_commit=False,
                    auto_offset_reset="none",
                    isolation_level="read_uncommitted",
                    metrics_enabled=False,
                    **self._options,
                )
        return self._offsets_consumer

    def begin_offsets(self, topic: str) -> list[int]:
        """First offset that is still there, per partition."""
        partitions = self._all(topic)
        with explained(self.url, f"ask for the begin of {topic}"):
            return self._offsets(self._uncommitted().beginning_offsets, partitions)

    def end_offsets(self, topic: str) -> list[int]:
        """Offset of the next record to come, per partition, records of open transactions included."""
        partitions = self._all(topic)
        with explained(self.url, f"ask for the end of {topic}"):
            ends = self._offsets(self._uncommitted().end_offsets, partitions)
        self._known_ends |= {TopicPartition(topic, p): end for p, end in enumerate(ends)}
        return ends

    def stable_offsets(self, topic: str) -> list[int]:
        """Offset before which every transaction is decided, per partition."""
        partitions = self._all(topic)
        with explained(self.url, f"ask for the stable end of {topic}"):
            return self._offsets(self._reader().end_offsets, partitions)

    def _offsets(self, ask: Callable[[Sequence[Any]], dict[Any, int]], partitions: Sequence[Any]) -> list[int]:
        return offsets_of(ask, partitions, self._config.request_timeout_ms)

    # Writing

    def _spec(self, topic: str) -> TopicSpec:
        spec = self._specs.get(topic)
        if spec is None:
            with self._admin("look up a topic") as admin:
                if topic not in set(admin.list_topics()):
                    raise missing_topic(topic, self.url)
                resource = ConfigResource(ConfigResourceType.TOPIC, topic)
                settings = admin.describe_configs([resource], config_filter="all")["topic"][topic]
            spec = self._specs[topic] = TopicSpec(
                topic,
                self.partition_count(topic),
                cleanup="compact" if "compact" in str(settings["cleanup.policy"]["value"]) else "delete",
                max_message_bytes=int(settings["max.message.bytes"]["value"]),
            )
        return spec

    def _placed(self, messages: Sequence[Message]) -> list[Group]:
        """The messages by partition; refuses what the topics do not take, before anything is sent."""
        if self._mode == "reader":
            raise LogError(f"{self.url}: opened for reading, cannot append")
        groups: dict[str, list[Message]] = {}
        for message in messages:
            groups.setdefault(message.topic, []).append(message)
        placed: list[Group] = []
        for topic, group in groups.items():
            spec = self._spec(topic)
            keys = [m.key for m in group]
            check_messages(spec, keys, [m.value for m in group], [m.headers for m in group])
            for partition, rows in rows_by_partition(spec, keys, [m.partition for m in group]):
                placed.append(Group(topic, partition, group if rows is None else [group[i] for i in rows]))
        return placed

    def _new_producer(self, **settings: Any) -> Any:
        producer = connect(
            kafka.KafkaProducer,
            acks="all",
            batch_size=_BATCH_BYTES,
            linger_ms=_LINGER_MS,
            max_request_size=_MAX_REQUEST_BYTES,
            max_block_ms=self._config.request_timeout_ms,
            delivery_timeout_ms=max(self._config.commit_timeout_ms, self._config.request_timeout_ms + _LINGER_MS),
            allow_auto_create_topics=False,
            metrics_enabled=False,
            **settings,
            **self._options,
        )
        return unsplit(producer)

    def append(self, messages: Sequence[Message]) -> None:
        """Append outside of any transaction; when this returns, the messages are durable, in order per partition.

        After `LogUnavailable` some of them may have been written.
        """
        if not messages:
            return
        placed = self._placed(messages)
        with explained(self.url, "append"):
            if self._appender is None:
                self._appender = self._new_producer()
            futures = send(self._appender, placed, _BATCH_BYTES, _MAX_REQUEST_BYTES)
            self._appender.flush()
            check(futures)

    def claim(self, worker_id: str) -> None:
        """Become the one writer that may `commit` as this worker; an earlier one gets `WriterFenced` from then on.

        Waits until every transaction of an earlier writer is committed or aborted. When this log had claimed the worker
        before, the transaction coordinator is asked first whether another one has since: that one is left alone.
        """
        if self._mode != "owner":
            raise LogError(f"{self.url}: opened as {self._mode}, only an owner may claim worker {worker_id}")
        self._drop_producer()
        before = self._last_transaction(worker_id)
        self._refuse_if_taken(worker_id, before)
        if self._outcome is None and before is not None and before.state in (*_COMMITTED, *_ABORTED):
            # Not when a claim that failed had found it out: a mark of its own may be what is going on now.
            self._outcome = before.state in _COMMITTED
        doing = f"claim worker {worker_id}"
        made: list[Any] = []
        given_up = threading.Event()

        def claim() -> None:
            producer = self._new_producer(
                transactional_id=_GROUP_PREFIX + worker_id,
                transaction_timeout_ms=self._config.transaction_timeout_ms,
            )
            overlapped(producer)
            made.append(producer)
            try:
                if not given_up.is_set():  # it would fence the producer of the next try
                    producer.init_transactions()
            finally:
                if given_up.is_set():
                    self._discard(producer)

        failure = bounded(claim, 2 * self._config.commit_timeout_ms, "kafka-claim")
        if failure is not None:
            given_up.set()
            for producer in made:
                self._discard(producer)
            raise self._unclaimed(failure, doing) from failure
        self._producer, self._worker, self._fenced = made[0], worker_id, None
        self._close_left_open(committed=self._outcome is not False)
        self._outcome = None
        self._positions = self._group_offsets(worker_id)

    def _last_transaction(self, worker_id: str) -> Any:
        """What the coordinator knows of the worker's last transaction; None: nothing, or it is too old to say."""
        name = _GROUP_PREFIX + worker_id
        with self._admin(f"look who is worker {worker_id}") as admin:
            try:
                return self._patiently(lambda: admin.describe_transactions([name]))[name]
            except (errors.TransactionalIdNotFoundError, errors.UnsupportedVersionError):
                return None

    def _refuse_if_taken(self, worker_id: str, last: Any) -> None:
        """Raise `WriterFenced` when another process claimed the worker after this log did.

        Who was stopped for a while and wakes up would otherwise fence the one that took its place, and stop as well.
        """
        held, self._held = self._held, None  # from here on it may be a claim of ours, given up, that changed it
        if held is None or last is None or worker_id != self._worker:
            return
        if (last.producer_id, last.producer_epoch) != held and last.state not in _TIMED_OUT:
            self._fenced = (
                f"{self.url}: worker {worker_id} was claimed anew: another process runs as this worker, this one must "
                "stop"
            )
            raise WriterFenced(self._fenced)

    def _close_left_open(self, *, committed: bool) -> None:
        """Write the mark that the brokers forgot: readers, ours of the journal too, would wait before it for good.

        A coordinator that comes back while a partition has no leader takes the topic for deleted and passes its mark
        over (KAFKA-20734; brokers 4.x, replication factor 1): what was committed, or aborted, stays open there. The
        mark of an empty transaction of the same producer decides it. To what others have open it does nothing.

        `committed`: what the coordinator had decided before the claim.
        """
        partitions = [tp for topic in self._specs for tp in self._all(topic)]
        with explained(self.url, "look for transactions left open"):
            ends = self._offsets(self._uncommitted().end_offsets, partitions)
            stable = self._offsets(self._reader().end_offsets, partitions)
        left = [tp for tp, decided, end in zip(partitions, stable, ends, strict=True) if decided < end]
        if not left:
            return
        producer, timeout_ms = self._producer, self._config.commit_timeout_ms
        failure = bounded(lambda: mark(producer, left, timeout_ms, committed=committed), timeout_ms, "kafka-commit")
        if failure is not None:
            self._drop_producer()
            raise self._unclaimed(failure, "mark what was left open") from failure
        logger.info(
            "%s: marked as %s what was left open in %s",
            self.url,
            "committed" if committed else "aborted",
            sorted(left),
        )

    def _unclaimed(self, failure: BaseException, doing: str) -> BaseException:
        if isinstance(failure, TimeoutError):
            return LogUnavailable(f"{self.url}: cannot {doing}: {failure}")
        return translated(failure, self.url, doing) if isinstance(failure, Exception) else failure

    def prepare(self, positions: Mapping[TopicPartition, int], partitions: Sequence[TopicPartition]) -> None:
        """Begin the next commit's transaction: what the coordinators must know is on its way while the caller works.

        An error stays with the producer, and `commit` raises it.
        """
        if self._producer is None or self._begun is not None:
            return
        with contextlib.suppress(errors.KafkaError):
            self._begun = begin(self._producer, positions, _GROUP_PREFIX + str(self._worker), partitions)

    def commit(self, messages: Sequence[Message], positions: Mapping[TopicPartition, int]) -> None:
        """Append the messages and record the input positions of the claimed worker, all or nothing, durably.

        1. everything is checked that can be checked without the broker;
        2. messages and group offsets go into one transaction; an error aborts it, and the same call may be made again;
        3. the transaction is ended; an error here, or no answer, is `CommitOutcomeUnknown`: `claim` again, which
           decides the transaction, then read the journal.
        """
        if self._worker is None:
            raise LogError(f"{self.url}: commit without `claim` first")
        if self._fenced is not None:
            raise WriterFenced(self._fenced)
        placed = self._placed(messages)
        if self._producer is None:
            raise CommitOutcomeUnknown(
                f"{self.url}: the outcome of the last commit of worker {self._worker} is not known: claim it again"
            )
        if not placed and not positions:
            return
        ending: list[bool] = []
        failure = bounded(
            lambda: self._transaction(self._producer, placed, positions, ending),
            self._config.commit_timeout_ms,
            "kafka-commit",
        )
        begun, self._begun = self._begun, None
        if failure is None:
            self._positions |= positions
            return
        self._failed_commit(failure, bool(ending), begun)

    def _transaction(
        self,
        producer: Any,
        placed: Sequence[Group],
        positions: Mapping[TopicPartition, int],
        ending: list[bool],
    ) -> None:
        group = _GROUP_PREFIX + str(self._worker)
        begun = self._begun
        if begun is not None and begun.positions != positions:
            producer.abort_transaction()
            begun = None
        if begun is None:
            begun = self._begun = begin(producer, positions, group, ())
        fill(producer, begun, placed, _BATCH_BYTES, _MAX_REQUEST_BYTES)
        ending.append(True)
        producer.commit_transaction()

    def _failed_commit(self, failure: BaseException, ending: bool, begun: OpenTransaction | None) -> None:
        """Raise what a failed commit means. What is not certain is never guessed."""
        doing = f"commit as worker {self._worker}"
        if isinstance(failure, TimeoutError) and not isinstance(failure, errors.KafkaError):
            # The thread of this commit may still go on: only a new claim decides.
            self._drop_producer()
            raise CommitOutcomeUnknown(f"{self.url}: {doing}: {failure}") from failure
        if not isinstance(failure, Exception):
            raise failure
        if fenced(failure):
            self._drop_producer()
            if begun is not None and time.monotonic() - begun.at > self._config.transaction_timeout_ms / 1000:
                # The brokers may have aborted it, as they do with one that stays open: the next claim tells that from
                # another process.
                raise CommitOutcomeUnknown(f"{self.url}: {doing}: the transaction was open for too long") from failure
            self._fenced = str(translated(failure, self.url, doing))
            raise WriterFenced(self._fenced) from failure
        aborted = bounded(self._producer.abort_transaction, self._config.request_timeout_ms, "kafka-abort")
        if aborted is None:
            # Also after an error at the end: an abort is accepted only while the transaction is not committed.
            error = translated(failure, self.url, doing)
            raise error from failure
        self._drop_producer()
        if isinstance(aborted, Exception) and fenced(aborted):
            self._fenced = str(translated(aborted, self.url, doing))
            raise WriterFenced(self._fenced) from failure
        raise CommitOutcomeUnknown(
            f"{self.url}: {doing}: {type(failure).__name__}: {failure}"
            + (" at the end of the transaction" if ending else "")
        ) from failure

    def _drop_producer(self) -> None:
        producer, self._producer, self._begun = self._producer, None, None
        if producer is not None:
            held = producer._transaction_manager.producer_id_and_epoch  # noqa: SLF001  # it has no public name
            self._held = (held.producer_id, held.epoch)
            self._discard(producer)

    def _discard(self, producer: Any) -> None:
        """Close a producer without waiting for it: its thread ends when the brokers answer or its records expire."""
        longest_s = 2 * self._config.commit_timeout_ms / 1000

        def close() -> None:
            try:
                producer.close(timeout=longest_s)
            except errors.KafkaTimeoutError:  # records that nobody took, which would keep its thread
                producer._sender.force_close()  # noqa: SLF001

        bounded(close, 1_000, "kafka-close")

    def committed(self, worker_id: str) -> dict[TopicPartition, int]:
        """The positions of the worker's last commit; empty when there was none.

        A transaction that stays open, as that of a worker that hangs or was killed in a step, is not waited for.
        """
        if worker_id == self._worker and self._producer is not None:
            return dict(self._positions)
        return self._group_offsets(worker_id, decided=False)

    def _group_offsets(self, worker_id: str, *, decided: bool = True) -> dict[TopicPartition, int]:
        group = _GROUP_PREFIX + worker_id
        with self._admin(f"read the positions of worker {worker_id}") as admin:
            try:
                found = self._patiently(lambda: admin.list_group_offsets({group: None})).get(group, {})
            except errors.GroupIdNotFoundError:
                found = {}
        if not found:
            return {}
        # The admin client may see offsets whose transaction is about to end; a read_committed consumer waits for it.
        with explained(self.url, f"read the positions of worker {worker_id}"):
            consumer = connect(
                kafka.KafkaConsumer,
                group_id=group,
                enable_auto_commit=False,
                auto_offset_reset="none",
                isolation_level="read_committed",
                metrics_enabled=False,
                **self._options,
            )
            wait_ms = self._config.request_timeout_ms if decided else _UNDECIDED_MS
            try:
                offsets = {tp: consumer.committed(tp, timeout_ms=wait_ms) for tp in found}
            except errors.KafkaTimeoutError:
                if decided:
                    raise
                offsets = {tp: there.offset for tp, there in found.items()}
            finally:
                consumer.close(autocommit=False, timeout_ms=1000)
        return {TopicPartition(tp.topic, tp.partition): at for tp, at in offsets.items() if at is not None and at >= 0}

    def _patiently(self, ask: Callable[[], Any]) -> Any:
        """Ask a coordinator; a new broker first creates the topic it works on, which takes a second."""
        deadline = time.monotonic() + self._config.request_timeout_ms / 1000
        while True:
            try:
                return ask()
            except _COORDINATOR_BUSY:
                if time.monotonic() > deadline:
                    raise
                time.sleep(PAUSE_S)

    # Reading

    def poll(self, positions: Mapping[TopicPartition, int], max_records: int, max_wait_ms: int) -> list[RecordBatch]:
        """Committed records from these positions on; waits at most `max_wait_ms` for the first."""
        if self._poller is None:
            self._poller = Fetcher(self.url, self._options)
        for topic in {tp.topic for tp in positions}:
            self.partition_count(topic)
        deadline = time.monotonic() + max_wait_ms / 1000
        buffers = self._poller.buffers(positions, keep_others=False)
        while True:
            self._poller.fill(0)
            ready = sum(map(len, buffers.values()))
            if 0 < ready < max_records:
                # It came while the caller was busy, and a fetch is answered with the first that comes: what came after
                # that is asked for, or it would wait for the next step.
                self._poller.fill(_AGAIN_MS)
                ready = sum(map(len, buffers.values()))
            moved = True
            # What has come already is taken together: under backlog, few large steps cost less than many small ones.
            while moved and ready < max_records:
                left = 0.0 if ready else max(0.0, deadline - time.monotonic())
                moved = self._poller.fill(1000 * left)
                ready = sum(map(len, buffers.values()))
            batches = split_fairly(buffers, max_records, next(self._turn))
            if batches or time.monotonic() >= deadline:
                return batches

    def read(self, span: OffsetRange) -> RecordBatch:
        """Exactly the committed records of the range, for recovery; `OffsetOutOfRange` when some are gone.

        `LogUnavailable` when a transaction of another writer stays open inside the range.
        """
        tp = TopicPartition(span.topic, span.partition)
        if span.stop > self._known_ends.get(tp, -1):
            end = self.end_offsets(span.topic)[span.partition]
            if span.stop > end:
                raise OffsetOutOfRange(f"{tp} of {self.url}: offsets up to {span.stop} asked for, the end is {end}")
        if span.start >= span.stop:
            return RecordBatch(span.topic, span.partition, [], [], [], [], [], span.stop)
        reader = self._reader()
        parts: list[RecordBatch] = []
        buffer = reader.buffers({tp: span.start}, keep_others=True)[tp]
        deadline = time.monotonic() + self._config.request_timeout_ms / 1000
        try:
            while buffer.position < span.stop:
                batch = buffer.take(tp, span.stop - span.start, span.stop)
                if len(batch):
                    parts.append(batch)
                    deadline = time.monotonic() + self._config.request_timeout_ms / 1000
                elif buffer.position < span.stop and not reader.fill(500) and time.monotonic() > deadline:
                    raise LogUnavailable(f"{tp} of {self.url}: offsets [{buffer.position}, {span.stop}) do not come")
        except OffsetOutOfRange as exc:
            reader.close()  # it would say so of every partition that it is asked for from now on
            self._recovery = None
            begin = self.begin_offsets(span.topic)[span.partition]
            if begin <= buffer.position:
                return self.read(span)  # it was another partition's
            raise OffsetOutOfRange(
                f"{tp} of {self.url}: offsets [{span.start}, {span.stop}) asked for, the first one there is {begin}"
            ) from exc
        return joined(span, parts)

    def _reader(self) -> Fetcher:
        if self._recovery is None:
            self._recovery = Fetcher(self.url, self._options)
        return self._recovery

    def close(self) -> None:
        """Release everything; a second call does nothing."""
        self._drop_producer()
        if self._appender is not None:
            bounded(lambda: self._appender.close(timeout=1), 5_000, "kafka-close")
        for fetcher in (self._poller, self._recovery):
            if fetcher is not None:
                fetcher.close()
        if self._offsets_consumer is not None:
            self._offsets_consumer.close(autocommit=False, timeout_ms=1000)
        self._appender = self._poller = self._recovery = self._offsets_consumer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
