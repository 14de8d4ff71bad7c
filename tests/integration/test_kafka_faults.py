"""The Kafka log under real faults: a broker killed or paused, answers lost, zombies, truncated input; TLS and SASL."""

from __future__ import annotations

import gc
import os
import shutil
import socket
import struct
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import kafka
import kafka.codec
import msgspec
import pytest
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewTopic

from stream.log import (
    CommitOutcomeUnknown,
    KafkaConfig,
    LogError,
    LogUnavailable,
    Message,
    MessageTooLarge,
    OffsetOutOfRange,
    OffsetRange,
    TopicMismatch,
    TopicPartition,
    TopicSpec,
    WriterFenced,
)
from stream.log.idempotency import key_digest
from stream.log.kafka.client_path import OVERRIDE
from stream.log.kafka.keyed_appends import KEYS_TOPIC
from stream.log.kafka.log import KafkaLog
from tests.contracts.log_checks import LogCase, messages_of, starts, take, values
from tests.integration.conftest import Broker, free_port

pytestmark = [
    pytest.mark.integration,
    # kafka-python leaves the sockets of connections that failed to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


@pytest.fixture(autouse=True)
def collect() -> Iterator[None]:
    """No client goes on behind the test, and what it left is collected while its warnings are still allowed.

    A `kafka-commit` thread may stay, asleep: kafka-python waits without end for a transaction of a closed producer.
    """
    before = set(threading.enumerate())
    yield
    for thread in threading.enumerate():
        if thread not in before and "kafka-python" in thread.name:  # its network and producer threads
            thread.join(30)
            assert not thread.is_alive(), f"{thread.name} outlives its log"
    gc.collect()


QUICK = KafkaConfig(request_timeout_ms=3_000, commit_timeout_ms=4_000)
END_TXN = 26  # the API key of EndTxn


@pytest.fixture
def case(kafka_url: str) -> LogCase:
    return LogCase(lambda mode: KafkaLog(kafka_url, mode), uuid.uuid4().hex[:12])


def steps_in(log: KafkaLog, spec: TopicSpec) -> list[bytes | None]:
    """All committed records, as a fresh reader sees them."""
    end = log.end_offsets(spec.name)[0]
    return log.read(OffsetRange(spec.name, 0, 0, end)).values


def commit_surely(log: KafkaLog, worker: str, spec: TopicSpec, step: int) -> int:
    """What the worker does: on an unknown outcome claim again and look; returns how often it had to."""
    asked = 0
    while True:
        try:
            log.commit([Message(spec.name, b"w", b"step-%d" % step, 0)], {TopicPartition(spec.name, 0): step})
            return asked
        except LogUnavailable:
            asked += 1
        except CommitOutcomeUnknown:
            asked += 1
            while True:
                try:
                    log.claim(worker)
                    done = steps_in(log, spec)
                    break
                except LogUnavailable:
                    continue
            if done and done[-1] == b"step-%d" % step:
                return asked


def test_a_broker_killed_and_restarted_between_and_during_commits(
    make_broker: Callable[..., Broker], each_client_path: str
) -> None:
    broker = make_broker()
    spec = TopicSpec("journal", 1)
    with KafkaLog(broker.url, config=QUICK) as log:
        log.create_topics([spec])
        log.claim("w")
        for step in range(5):
            commit_surely(log, "w", spec, step)
        broker.wait_for_marks("intentstream-w")
        broker.kill()
        restart = threading.Timer(0.2, broker.start)
        restart.start()
        for step in range(5, 10):
            commit_surely(log, "w", spec, step)
        restart.join()
        assert steps_in(log, spec) == [b"step-%d" % i for i in range(10)]
        assert log.committed("w") == {TopicPartition("journal", 0): 9}
        assert values(take(log, starts(spec), 10)) == [b"step-%d" % i for i in range(10)]  # readers go on too


def test_a_paused_broker(make_broker: Callable[..., Broker], each_client_path: str) -> None:
    broker = make_broker()
    spec = TopicSpec("journal", 1)
    with KafkaLog(broker.url, config=QUICK) as log:
        log.create_topics([spec])
        log.claim("w")
        commit_surely(log, "w", spec, 0)
        broker.pause()
        try:
            with pytest.raises(CommitOutcomeUnknown):
                log.commit([Message("journal", b"w", b"step-1", 0)], {})
            with pytest.raises(CommitOutcomeUnknown, match="claim it again"):
                log.commit([Message("journal", b"w", b"step-1", 0)], {})
            with pytest.raises(LogUnavailable):
                log.end_offsets("journal")
        finally:
            broker.resume()
        log.claim("w")
        if len(steps_in(log, spec)) == 1:
            commit_surely(log, "w", spec, 1)
        commit_surely(log, "w", spec, 2)
        assert steps_in(log, spec) == [b"step-0", b"step-1", b"step-2"]


class LossyProxy:
    """Between the clients and the broker; once armed, the answer to the next EndTxn and all after it are lost."""

    def __init__(self, port: int, target: int) -> None:
        self.armed = False
        self.lost = threading.Event()
        self._target = target
        self._server = socket.create_server(("127.0.0.1", port))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def heal(self) -> None:
        self.armed = False
        self.lost.clear()
        for connection in self._open:
            _shut(connection)
        self._open.clear()

    def close(self) -> None:
        _shut(self._server)
        self.heal()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
                broker = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._open += [client, broker]
            threading.Thread(target=self._requests, args=(client, broker), daemon=True).start()
            threading.Thread(target=self._answers, args=(broker, client), daemon=True).start()

    def _requests(self, client: socket.socket, broker: socket.socket) -> None:
        with _quiet(client, broker):
            while True:
                size = _exactly(client, 4)
                body = _exactly(client, struct.unpack(">i", size)[0])
                if self.armed and struct.unpack(">h", body[:2])[0] == END_TXN:
                    self.lost.set()
                broker.sendall(size + body)

    def _answers(self, broker: socket.socket, client: socket.socket) -> None:
        with _quiet(client, broker):
            while True:
                data = broker.recv(65536)
                if not data:
                    return
                if not self.lost.is_set():
                    client.sendall(data)


@contextmanager
def _quiet(*sockets: socket.socket) -> Iterator[None]:
    try:
        yield
    except OSError:
        pass
    finally:
        for one in sockets:
            _shut(one)


def _shut(connection: socket.socket) -> None:
    """Close for good: a mere close leaves the connection up while another thread waits in `recv`."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise OSError("closed")
        data += more
    return data


def test_a_commit_whose_answer_is_lost_is_found_out_from_the_log(
    make_broker: Callable[..., Broker], each_client_path: str
) -> None:
    port = free_port()
    broker = make_broker_behind(make_broker, port)
    proxy = LossyProxy(port, int(broker.bootstrap.split(":")[1]))
    try:
        spec = TopicSpec("journal", 1)
        with KafkaLog(f"kafka://127.0.0.1:{port}", config=QUICK) as log:
            log.create_topics([spec])
            log.claim("w")
            commit_surely(log, "w", spec, 0)
            proxy.armed = True
            with pytest.raises(CommitOutcomeUnknown):
                log.commit([Message("journal", b"w", b"step-1", 0)], {TopicPartition("journal", 0): 1})
            assert proxy.lost.is_set()
            proxy.heal()
            log.claim("w")
            assert steps_in(log, spec) == [b"step-0", b"step-1"]  # it had taken effect
            assert log.committed("w") == {TopicPartition("journal", 0): 1}
            commit_surely(log, "w", spec, 2)
            assert steps_in(log, spec) == [b"step-0", b"step-1", b"step-2"]
    finally:
        proxy.close()


def test_records_that_the_client_gave_up_are_not_left_out_of_a_commit(case: LogCase, kafka_url: str) -> None:
    spec, worker = case.spec(), case.name("w")
    with KafkaLog(kafka_url) as log:
        log.create_topics([spec])
        log.claim(worker)
        producer = log._transactions._producer
        assert producer is not None
        producer._client._accumulator.config["delivery_timeout_ms"] = 0
        with pytest.raises(LogUnavailable, match="Expiring"):
            log.commit(messages_of(spec.name, 2), {TopicPartition(spec.name, 0): 1})
        assert (steps_in(log, spec), log.committed(worker)) == ([], {})


def _left_open(broker: Broker, end: str) -> None:
    """A transaction of worker `w` that stays open in the journal, whatever was decided about it."""
    producer = kafka.KafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id="intentstream-w")
    producer.init_transactions()
    producer.begin_transaction()
    # Unknown to the coordinator, as a partition whose mark it passed over.
    producer._transaction_manager._partitions_in_transaction.add(kafka.TopicPartition("journal", 0))
    producer.send("journal", end.encode(), b"w", partition=0)
    if end != "never told":
        producer.send("lists", end.encode(), b"w", partition=0)
    producer.flush()
    getattr(producer, end, lambda: None)()
    producer.close(timeout=1)


def test_what_the_brokers_left_open_gets_the_mark_that_was_decided(make_broker: Callable[..., Broker]) -> None:
    """A commit is committed, and an abort aborted: also one that the claim makes, of a worker that died in a step."""
    broker = make_broker("transaction.partition.verification.enable=false")
    spec, other = TopicSpec("journal", 1), TopicSpec("lists", 1)
    seen: list[bytes | None] = []
    for end in ("never told", "commit_transaction", "abort_transaction", "dies"):
        with KafkaLog(broker.url, config=QUICK) as log:
            log.create_topics([spec, other])
            value = end.encode()
            _left_open(broker, end)
            assert log.stable_offsets("journal") < log.end_offsets("journal")
            log.claim("w")
            seen += [value] if end in ("never told", "commit_transaction") else []
            assert steps_in(log, spec) == seen
            assert commit_surely(log, "w", spec, len(seen)) == 0
            seen.append(b"step-%d" % len(seen))
            assert steps_in(log, spec) == seen
    with pytest.MonkeyPatch.context() as patch:  # the public methods abort; that a commit cannot be marked is said
        patch.setenv(OVERRIDE, "public")
        with KafkaLog(broker.url, config=QUICK) as log:
            log.check_topics([spec, other])
            _left_open(broker, "abort_transaction")
            log.claim("w")
            assert steps_in(log, spec) == seen
            _left_open(broker, "commit_transaction")
            with pytest.raises(LogError, match=r"lost the mark of a commit .* journal\[0\] .*install kafka-python 3"):
                log.claim("w")
        patch.setenv(OVERRIDE, "fast")
        with KafkaLog(broker.url, config=QUICK) as log:
            log.check_topics([spec, other])
            log.claim("w")
            assert steps_in(log, spec) == [*seen, b"commit_transaction"]


def make_broker_behind(make_broker: Callable[..., Broker], port: int) -> Broker:
    """A broker that tells its clients to come through this port."""
    return make_broker(f"advertised.listeners=PLAINTEXT://127.0.0.1:{port}")


def _transaction(url: str, worker: str, topic: str, value: bytes) -> kafka.KafkaProducer:
    """An open transaction of a worker that stands still in the middle of a commit."""
    producer = kafka.KafkaProducer(
        bootstrap_servers=url.removeprefix("kafka://"), transactional_id=f"intentstream-{worker}", retry_backoff_ms=10
    )
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(topic, value, b"k", partition=0)
    producer.flush()
    return producer


def test_the_ends_of_topics_that_the_client_learns_of_one_by_one(case: LogCase, kafka_url: str) -> None:
    one, other = case.spec("one"), case.spec("other")
    with KafkaLog(kafka_url) as log:
        log.create_topics([one, other])
        assert log.end_offsets(one.name) == log.stable_offsets(one.name) == [0]
        log.claim(case.name("w"))  # asks for all topics at once
        assert log.end_offsets(other.name) == [0]


def test_a_limit_that_was_lowered_under_a_worker_is_one_line_and_nothing_is_seen(case: LogCase, kafka_url: str) -> None:
    spec, worker = case.spec(), case.name("w")
    many = [Message(spec.name, b"k", b"%03d" % i * 100, i) for i in range(100)]
    brokers = kafka_url.removeprefix("kafka://")
    with closing(KafkaAdminClient(bootstrap_servers=brokers)) as admin, KafkaLog(kafka_url, config=QUICK) as log:
        log.create_topics([spec])
        for limit, fits in ((10_000, False), (100_000, True)):
            log.claim(worker)  # as a worker does that is started again
            configs = {"max.message.bytes": str(limit)}
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, spec.name, configs=configs)])
            if fits:
                log.commit(many, {})
            else:
                with pytest.raises(MessageTooLarge, match="max.message.bytes is smaller than this version needs"):
                    log.commit(many, {})
        assert steps_in(log, spec) == [m.value for m in many]


def test_what_a_dead_worker_left_open_is_never_seen(case: LogCase, kafka_url: str, each_client_path: str) -> None:
    spec, worker = case.spec(), case.name("w")
    with KafkaLog(kafka_url) as log:
        log.create_topics([spec])
        zombie = _transaction(kafka_url, worker, spec.name, b"zombie")
        assert log.end_offsets(spec.name) == [1]  # open transactions count
        assert log.stable_offsets(spec.name) == [0]
        assert log.poll(starts(spec), 10, 100) == []
        log.claim(worker)
        log.commit(messages_of(spec.name, 2), {TopicPartition(spec.name, 0): 1})
        positions = starts(spec)
        assert values(take(log, positions, 2)) == [b"value-0", b"value-1"]
        assert steps_in(log, spec) == [b"value-0", b"value-1"]
        with pytest.raises(kafka.errors.KafkaError):
            zombie.commit_transaction()
        zombie.close(timeout=1)
        assert steps_in(log, spec) == [b"value-0", b"value-1"]


def test_a_fenced_worker_that_wakes_up_writes_nothing(case: LogCase, kafka_url: str, each_client_path: str) -> None:
    spec, worker = case.spec(), case.name("w")
    with KafkaLog(kafka_url) as old, KafkaLog(kafka_url) as new:
        old.create_topics([spec])
        old.claim(worker)
        old.commit(messages_of(spec.name, 1), {})
        new.claim(worker)
        new.commit(messages_of(spec.name, 1, start=1), {})
        for _ in range(2):
            with pytest.raises(WriterFenced, match="must stop"):
                old.commit([Message(spec.name, b"k", b"zombie", 0)], {TopicPartition(spec.name, 0): 99})
        assert steps_in(new, spec) == [b"value-0", b"value-1"]
        assert new.committed(worker) == {}


def test_a_commit_that_was_open_for_too_long_is_not_taken_for_another_process(
    make_broker: Callable[..., Broker],
) -> None:
    """A worker that stood still within a step: the brokers have given its transaction up, which looks like a fence."""
    broker = make_broker("transaction.abort.timed.out.transaction.cleanup.interval.ms=100")
    spec, tp = TopicSpec("journal", 1), TopicPartition("journal", 0)
    with KafkaLog(broker.url, config=msgspec.structs.replace(QUICK, transaction_timeout_ms=1_000)) as log:
        log.create_topics([spec])
        log.claim("w")
        log.commit(messages_of(spec.name, 1), {tp: 1})
        log.prepare({tp: 2}, [tp])
        broker.wait_for_marks("intentstream-w", "CompleteAbort")
        with pytest.raises(CommitOutcomeUnknown, match="open for too long"):
            log.commit([Message(spec.name, b"k", b"late", 0)], {tp: 2})
        log.claim("w")
        assert log.committed("w") == {tp: 1}
        log.commit(messages_of(spec.name, 1, start=1), {tp: 2})
        assert steps_in(log, spec) == [b"value-0", b"value-1"]
    with KafkaLog(broker.url, config=QUICK) as log, KafkaLog(broker.url, config=QUICK) as other:
        log.claim("w")
        log.prepare({tp: 3}, [tp])
        other.claim("w")
        with pytest.raises(WriterFenced, match="must stop"):
            log.commit([Message(spec.name, b"k", b"zombie", 0)], {tp: 3})
        assert other.committed("w") == {tp: 2}


def test_a_producer_that_died_within_an_append_is_waited_for_and_its_request_appended_once(
    case: LogCase, kafka_url: str
) -> None:
    spec, key = case.spec(), case.name("key").encode()
    with KafkaLog(kafka_url) as log:
        log.create_topics([spec])
        assert log.append(messages_of(spec.name, 1), idempotency_key=case.name("first").encode())
        dying = kafka.KafkaProducer(
            bootstrap_servers=kafka_url.removeprefix("kafka://"),
            transactional_id=case.name("dying"),
            transaction_timeout_ms=1_500,
        )
        dying.init_transactions()
        dying.begin_transaction()
        dying.send(KEYS_TOPIC.name, key_digest(key), partition=0)
        dying.send(spec.name, b"value-1", b"k", partition=0)
        dying.flush()
        assert log.append(messages_of(spec.name, 1, start=1), idempotency_key=key)
        with suppress(kafka.errors.KafkaError):
            dying.close(timeout=1)
        assert not log.append(messages_of(spec.name, 1, start=1), idempotency_key=key)
        assert steps_in(log, spec) == [b"value-0", b"value-1"]


def test_an_append_whose_answer_is_lost_is_found_by_the_next(make_broker: Callable[..., Broker]) -> None:
    port = free_port()
    broker = make_broker_behind(make_broker, port)
    proxy = LossyProxy(port, int(broker.bootstrap.split(":")[1]))
    try:
        spec = TopicSpec("events", 1)
        with KafkaLog(f"kafka://127.0.0.1:{port}", config=QUICK) as log:
            log.create_topics([spec])
            assert log.append(messages_of(spec.name, 1), idempotency_key=b"first")
            proxy.armed = True
            with pytest.raises(LogUnavailable):
                log.append(messages_of(spec.name, 1, start=1), idempotency_key=b"second")
            assert proxy.lost.is_set()
            proxy.heal()
            assert not log.append(messages_of(spec.name, 1, start=1), idempotency_key=b"second")
            assert steps_in(log, spec) == [b"value-0", b"value-1"]
    finally:
        proxy.close()


def test_reading_over_aborted_transactions(case: LogCase, kafka_url: str, each_client_path: str) -> None:
    spec = case.spec()
    with KafkaLog(kafka_url) as log:
        log.create_topics([spec])
        log.append(messages_of(spec.name, 2))
        aborted = _transaction(kafka_url, case.name("x"), spec.name, b"aborted")
        aborted.abort_transaction()
        aborted.close(timeout=1)
        while log.end_offsets(spec.name) != [4]:  # the marker is written after the answer
            pass
        log.append(messages_of(spec.name, 1, start=2))
        positions = starts(spec)
        assert values(take(log, positions, 3)) == [b"value-0", b"value-1", b"value-2"]
        end = log.end_offsets(spec.name)[0]
        assert end == 5  # two records, the aborted one, its marker, one record
        assert positions == {TopicPartition(spec.name, 0): end}
        assert log.read(OffsetRange(spec.name, 0, 1, 4)).values == [b"value-1"]
        assert log.read(OffsetRange(spec.name, 0, 2, 4)).values == []


def test_input_that_was_deleted(case: LogCase, kafka_url: str, each_client_path: str) -> None:
    spec = case.spec()
    with KafkaLog(kafka_url) as log:
        log.create_topics([spec])
        log.append(messages_of(spec.name, 10))
        admin = KafkaAdminClient(bootstrap_servers=kafka_url.removeprefix("kafka://"))
        admin.delete_records({kafka.TopicPartition(spec.name, 0): 6})
        admin.close()
        assert log.begin_offsets(spec.name) == [6]
        with pytest.raises(OffsetOutOfRange, match="the first one there is 6"):
            log.read(OffsetRange(spec.name, 0, 4, 8))
        with pytest.raises(OffsetOutOfRange):
            log.poll({TopicPartition(spec.name, 0): 4}, 10, 10_000)
        assert log.read(OffsetRange(spec.name, 0, 6, 8)).values == [b"value-6", b"value-7"]
        assert len(log.poll({TopicPartition(spec.name, 0): 6}, 10, 10_000)[0]) == 4


def test_a_partition_whose_begin_is_gone_does_not_spoil_the_others(
    case: LogCase, kafka_url: str, each_client_path: str
) -> None:
    spec = case.spec(partitions=2)
    with KafkaLog(kafka_url) as log:
        log.create_topics([spec])
        log.append([Message(spec.name, b"k", b"%d" % i, 0, partition=p) for i in range(50) for p in (0, 1)])
        assert len(log.read(OffsetRange(spec.name, 1, 0, 10))) == 10
        admin = KafkaAdminClient(bootstrap_servers=kafka_url.removeprefix("kafka://"))
        admin.delete_records({kafka.TopicPartition(spec.name, 0): 20})
        admin.close()
        with pytest.raises(OffsetOutOfRange, match="the first one there is 20"):
            log.read(OffsetRange(spec.name, 0, 0, 10))
        assert values([log.read(OffsetRange(spec.name, 1, 10, 50))]) == [b"%d" % i for i in range(10, 50)]
        assert values([log.read(OffsetRange(spec.name, 0, 20, 50))]) == [b"%d" % i for i in range(20, 50)]


def test_topics_with_other_settings_name_the_command(case: LogCase, kafka_url: str) -> None:
    small = case.spec(max_message_bytes=100_000)
    with KafkaLog(kafka_url) as log:
        log.create_topics([small])
        with pytest.raises(TopicMismatch, match="kafka-configs.sh.*max.message.bytes=200000"):
            log.check_topics([case.spec(max_message_bytes=200_000)])
        with pytest.raises(TopicMismatch, match="kafka-configs.sh.*cleanup.policy=compact"):
            log.check_topics([case.spec(cleanup="compact")])


@pytest.mark.parametrize("cleanup", ["delete", "compact"])
def test_topics_that_would_lose_what_they_hold_are_refused_and_mended_by_the_command(
    case: LogCase, kafka_url: str, cleanup: Literal["delete", "compact"]
) -> None:
    spec = case.spec(cleanup=cleanup)
    brokers = kafka_url.removeprefix("kafka://")
    settings = {"cleanup.policy": "compact,delete", "message.timestamp.type": "CreateTime"}
    with closing(KafkaAdminClient(bootstrap_servers=brokers)) as admin, KafkaLog(kafka_url) as log:
        admin.create_topics([NewTopic(spec.name, 1, 1, topic_configs=settings)], wait_for_metadata=True)
        with pytest.raises(TopicMismatch, match="cleanup.policy=compact,delete, message.timestamp.type=Cr") as caught:
            log.check_topics([spec])
        command, added = str(caught.value).split("--add-config ")
        assert f"kafka-configs.sh --bootstrap-server {brokers} --alter " in command
        assert f"--entity-name {spec.name} " in command
        wanted = dict(setting.split("=") for setting in added.split(","))
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, spec.name, configs=wanted)])
        log.check_topics([spec])


def test_partitions_that_were_added_say_how_to_go_on(case: LogCase, kafka_url: str) -> None:
    spec = case.spec(partitions=2)
    brokers = kafka_url.removeprefix("kafka://")
    with closing(KafkaAdminClient(bootstrap_servers=brokers)) as admin, KafkaLog(kafka_url) as log:
        log.create_topics([spec])
        command = f"kafka-topics.sh --bootstrap-server {brokers} --alter --topic {spec.name} --partitions 3"
        with pytest.raises(TopicMismatch, match=f"set log.partitions = 2; .*{command}"):
            log.check_topics([case.spec(partitions=3)])
        admin.create_partitions({spec.name: 3})
        with pytest.raises(TopicMismatch, match="set log.partitions = 3. .* start over .*intentstream worker --state"):
            log.check_topics([spec])
        log.check_topics([case.spec(partitions=3)])


class Latin1(str):
    """A header's name as a client writes it that does not use UTF-8."""

    def encode(self, *_: object) -> bytes:
        return super().encode("latin-1")


def test_headers_whose_names_are_no_utf_8(case: LogCase, kafka_url: str) -> None:
    spec = case.spec()
    with KafkaLog(kafka_url) as log:
        log.create_topics([spec])
        headers: Any = ((Latin1("größe"), b"7"), ("ok", b""))
        log.append([Message(spec.name, b"k", b"v", 0, headers), Message(spec.name, b"k", b"w", 0)])
        (batch,) = take(log, starts(spec), 2)
        assert (batch.values, batch.headers) == ([b"v", b"w"], [(("gr\\xf6\\xdfe", b"7"), ("ok", b"")), ()])


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_batches_that_clients_compressed(case: LogCase, kafka_url: str, codec: str) -> None:
    spec = case.spec(max_message_bytes=8 * 1024 * 1024)
    sent = [b"%d" % i * 1000 for i in range(2_000)]  # larger than a fetch, larger still when it is unpacked
    settings = {"batch_size": 4 * 1024 * 1024, "linger_ms": 1000, "compression_type": codec}
    with KafkaLog(kafka_url) as log:
        log.create_topics([spec])
        with closing(kafka.KafkaProducer(bootstrap_servers=kafka_url.removeprefix("kafka://"), **settings)) as producer:
            for value in sent:
                producer.send(spec.name, value, b"k", partition=0)
            producer.flush()
        assert values(take(log, starts(spec), len(sent))) == sent
        assert log.read(OffsetRange(spec.name, 0, 700, 702)).values == sent[700:702]


def test_a_codec_that_is_not_installed_is_one_line_that_says_what_to_install(
    case: LogCase, kafka_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = case.spec()
    with KafkaLog(kafka_url) as log:
        log.create_topics([spec])
        log.append(messages_of(spec.name, 2))
        brokers = kafka_url.removeprefix("kafka://")
        with closing(kafka.KafkaProducer(bootstrap_servers=brokers, compression_type="zstd")) as producer:
            producer.send(spec.name, b"packed" * 100, b"k", partition=0)
            producer.flush()
        monkeypatch.setattr(kafka.codec, "zstd", None)
        positions = starts(spec)
        assert values(take(log, positions, 2)) == [b"value-0", b"value-1"]
        for _ in range(2):
            with pytest.raises(LogError, match=r"cannot read .* at offset 2: .*zstd.*: install .*zstandard"):
                log.poll(positions, 10, 10_000)
        with pytest.raises(LogError, match="install .*zstandard"):
            log.read(OffsetRange(spec.name, 0, 0, 3))
        monkeypatch.undo()
        assert values(take(log, positions, 1)) == [b"packed" * 100]


def test_no_broker_is_one_line() -> None:
    with pytest.raises(LogUnavailable) as caught:
        KafkaLog(f"kafka://127.0.0.1:{free_port()}", config=KafkaConfig(request_timeout_ms=1000)).end_offsets("t")
    assert "\n" not in str(caught.value)


def _certificates(folder: Path) -> tuple[Path, Path]:
    """A key store for the broker and the certificate that clients trust."""
    if shutil.which("keytool") is None:
        pytest.skip("no keytool: install a JDK")
    store, pem = folder / "broker.p12", folder / "ca.pem"
    common = ["-keystore", str(store), "-storepass", "changeit", "-storetype", "PKCS12", "-alias", "broker"]
    make = ["keytool", "-genkeypair", *common, "-keyalg", "RSA", "-dname", "CN=127.0.0.1", "-ext", "SAN=IP:127.0.0.1"]
    subprocess.run(make, check=True, capture_output=True)
    subprocess.run(["keytool", "-exportcert", *common, "-rfc", "-file", str(pem)], check=True, capture_output=True)
    return store, pem


def test_tls_and_sasl(tmp_path: Path, make_broker: Callable[..., Broker], monkeypatch: pytest.MonkeyPatch) -> None:
    store, pem = _certificates(tmp_path)
    plain, secure, controller = free_port(), free_port(), free_port()
    broker = make_broker(
        f"listeners=PLAINTEXT://127.0.0.1:{plain},SASL_SSL://127.0.0.1:{secure},CONTROLLER://127.0.0.1:{controller}",
        f"advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SASL_SSL://127.0.0.1:{secure}",
        f"controller.quorum.bootstrap.servers=127.0.0.1:{controller}",
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
        f"ssl.keystore.location={store}",
        "ssl.keystore.password=changeit",
        "ssl.keystore.type=PKCS12",
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule "
        'required user_alice="wonderland";',
        *(
            f"listener.name.sasl_ssl.scram-sha-{bits}.sasl.jaas.config="
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            for bits in (256, 512)
        ),
        port=plain,
    )
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    admin.alter_user_scram_credentials(
        [
            kafka.admin.UserScramCredentialUpsertion("bob", kafka.admin.ScramMechanism.SCRAM_SHA_512, "builder"),
            kafka.admin.UserScramCredentialUpsertion("carol", kafka.admin.ScramMechanism.SCRAM_SHA_256, "builder"),
        ]
    )
    admin.close()
    monkeypatch.setenv("ALICE", "wonderland")
    (tmp_path / "bob").write_text("builder\n")
    by_env = KafkaConfig(
        security_protocol="SASL_SSL",
        ssl_cafile=str(pem),
        request_timeout_ms=5000,
        sasl_username="alice",
        sasl_password_env="ALICE",
    )
    by_file = msgspec.structs.replace(
        by_env,
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="bob",
        sasl_password_env="",
        sasl_password_file=str(tmp_path / "bob"),
    )
    shorter = msgspec.structs.replace(by_file, sasl_mechanism="SCRAM-SHA-256", sasl_username="carol")
    spec = TopicSpec("events", 1)
    url = f"kafka://127.0.0.1:{secure}"
    for i, config in enumerate((by_env, by_file, shorter)):
        assert "wonderland" not in repr(config) and "builder" not in repr(config)
        with KafkaLog(url, config=config) as log:
            log.create_topics([spec])
            log.claim("w")
            log.commit(messages_of("events", 1, start=i), {TopicPartition("events", 0): i})
            assert values(take(log, starts(spec), i + 1))[-1] == b"value-%d" % i
    monkeypatch.setenv("ALICE", "looking-glass")
    with pytest.raises(LogError) as caught:
        KafkaLog(url, config=by_env).end_offsets("events")
    assert "looking-glass" not in str(caught.value)
    assert os.environ["ALICE"] == "looking-glass"
