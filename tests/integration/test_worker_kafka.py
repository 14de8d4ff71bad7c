"""The worker on a real broker: killed, fenced, its broker killed, its input or journal deleted; the same bits after."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import kafka
import msgspec
import pytest
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from benchmarks.crash import AIMED, torture
from intentstream.cli.app import app
from intentstream.config import Config
from stream.errors import JournalError
from stream.log import (
    EventLog,
    KafkaConfig,
    LogUnavailable,
    Message,
    OffsetRange,
    TopicPartition,
    WriterFenced,
    open_log,
)
from stream.log.partitioner import partition_of
from stream.schema import topics
from stream.worker.dead_letters import read_dead_letters
from stream.worker.worker import Worker
from tests.integration.conftest import Broker
from tests.unit.intentstream.commands import invoke
from tests.unit.stream.streams import START_MS, as_messages, events, small_config
from tests.unit.stream.worker.faulty import Flaky
from tests.unit.stream.worker.test_worker import assert_equal_to_a_rebuild, drain, journal

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(300),
    # kafka-python leaves the sockets of connections that failed to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]
QUICK = KafkaConfig(request_timeout_ms=3_000, commit_timeout_ms=4_000)


@pytest.fixture(autouse=True)
def collect() -> Iterator[None]:
    """Collect what the client left while its warnings are still allowed."""
    yield
    gc.collect()


def filled(broker: Broker, count: int = 300) -> tuple[Config, EventLog]:
    config = small_config(url=broker.url, checkpoint_every_steps=4)
    config = msgspec.structs.replace(config, log=msgspec.structs.replace(config.log, kafka=QUICK))
    log = open_log(config.log.url, config=config.log)
    log.create_topics(topics.topic_specs(config.log.partitions))
    log.append(as_messages(events(count)))
    return config, log


def work(worker: Worker, steps: int) -> None:
    """So many steps more; a poll may come back with nothing."""
    target = worker.engine.step_number + steps
    while worker.engine.step_number < target:
        worker.turn()


def all_values(log: EventLog, topic: str) -> list[bytes]:
    ends = enumerate(log.end_offsets(topic))
    return [value for p, end in ends for value in log.read(OffsetRange(topic, p, 0, end)).values if value is not None]


def delete_before(broker: Broker, topic: str, partition: int, offset: int) -> None:
    """What retention does, at once."""
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    admin.delete_records({kafka.TopicPartition(topic, partition): offset})
    admin.close()


def test_a_worker_killed_at_every_planned_moment(
    tmp_path: Path, make_broker: Callable[..., Broker], each_client_path: str
) -> None:
    count = 5 if each_client_path == "fast" else 2  # those around a commit come first
    moments = list(AIMED[:count])  # the others are about the disk alone: test_kill.py
    seen: list[str] = []
    url = make_broker().url
    figures = torture(tmp_path, url, kills=len(moments), events=4_000, seed=2, aimed_share=1.0, say=seen.append)
    assert [line.split()[-1] for line in seen] == moments
    assert figures["difference"] == ""
    assert (figures["events"], figures["lost"], figures["duplicated"]) == (4_000, 0, 0)


def test_a_zombie_that_wakes_up_is_stopped(tmp_path: Path, make_broker: Callable[..., Broker]) -> None:
    config, log = filled(make_broker())
    with log, open_log(config.log.url, config=config.log) as other:
        zombie = Worker(config, log, tmp_path / "zombie")
        zombie.recover()
        work(zombie, 2)
        worker = Worker(config, other, tmp_path / "state")  # another machine: no checkpoint, the journal only
        assert worker.recover() == 2
        with pytest.raises(WriterFenced, match="this one must stop"):
            work(zombie, 1)
        zombie.close()
        drain(worker, other)
        worker.checkpoint()
        worker.close()
        assert_equal_to_a_rebuild(config, other, tmp_path)


@pytest.mark.parametrize("steps", [0, 2], ids=["the other has only claimed", "the other has gone on"])
def test_a_zombie_without_an_answer_leaves_alone_who_took_its_place(
    tmp_path: Path, make_broker: Callable[..., Broker], steps: int
) -> None:
    """It is stopped in a commit for longer than the commit may take; when it wakes up it has no answer."""
    config, log = filled(make_broker())
    with log, open_log(config.log.url, config=config.log) as other:
        zombie = Worker(config, Flaky(log, ["well", "well", "before"]), tmp_path / "zombie")
        zombie.recover()
        work(zombie, 2)
        worker = Worker(config, other, tmp_path / "state")
        assert worker.recover() == 2
        work(worker, steps)
        with pytest.raises(WriterFenced, match="this one must stop"):
            work(zombie, 1)
        zombie.close()
        drain(worker, other)  # was not fenced
        worker.checkpoint()
        worker.close()
        assert_equal_to_a_rebuild(config, other, tmp_path)


def test_a_broker_killed_under_a_worker(tmp_path: Path, make_broker: Callable[..., Broker]) -> None:
    broker = make_broker()
    config, log = filled(broker)
    with log:
        worker = Worker(config, log, tmp_path / "state")
        worker.recover()
        work(worker, 1)
        ends = log.end_offsets(topics.EVENTS)
        broker.wait_for_marks("intentstream-worker-0")
        broker.kill()
        restart = threading.Timer(0.2, broker.start)
        restart.start()
        while any(worker.engine.positions[p] < end for p, end in enumerate(ends)):
            worker.turn()
        restart.join()
        worker.checkpoint()
        worker.close()
        assert_equal_to_a_rebuild(config, log, tmp_path)
        assert [entry.step for entry in journal(log)] == list(range(1, worker.engine.step_number + 1))


class Pausing:
    """A log whose broker hangs from before a commit until the worker was told twice that it gets no answer."""

    def __init__(self, log: EventLog, broker: Broker, commit: int) -> None:
        self._log, self._broker, self._commit = log, broker, commit
        self.refused = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def commit(self, messages: Sequence[Message], positions: Mapping[TopicPartition, int]) -> None:
        self._commit -= 1
        if self._commit == 0:
            self._broker.pause()
        self._log.commit(messages, positions)

    def begin_offsets(self, topic: str) -> list[int]:
        try:
            return self._log.begin_offsets(topic)
        except LogUnavailable:
            self.refused += 1
            if self.refused == 2:
                self._broker.resume()
            raise


def test_a_broker_that_hangs_under_a_worker_for_longer_than_a_commit_may_take(
    tmp_path: Path, make_broker: Callable[..., Broker]
) -> None:
    broker = make_broker()
    config, log = filled(broker)
    kafka_config = KafkaConfig(request_timeout_ms=1_000, commit_timeout_ms=2_000)
    config = msgspec.structs.replace(config, log=msgspec.structs.replace(config.log, kafka=kafka_config))
    with log, open_log(config.log.url, config=config.log) as quick:
        pausing = Pausing(quick, broker, commit=3)
        worker = Worker(config, cast(EventLog, pausing), tmp_path / "state")
        worker.recover()
        drain(worker, log)
        assert pausing.refused >= 2
        worker.checkpoint()
        worker.close()
        assert_equal_to_a_rebuild(config, log, tmp_path)
        assert [entry.step for entry in journal(log)] == list(range(1, worker.engine.step_number + 1))


def test_wide_ids_large_records_and_events_beside_their_users_partition(
    tmp_path: Path, make_broker: Callable[..., Broker]
) -> None:
    """The largest that every topic may be sent: ids whose every character takes six bytes in JSON."""
    broker = make_broker()
    config, log = filled(broker, 0)
    config = msgspec.structs.replace(config, engine=msgspec.structs.replace(config.engine, list_len=100))

    def wide(name: str) -> str:
        return name.ljust(256, "\x01")

    records = [{"user": wide(f"u{n % 20}"), "item": wide(f"i{n % 120}"), "ts": START_MS + n} for n in range(240)]
    large = 2 * 1024 * 1024
    with log, closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap)) as admin:
        wider = ConfigResource(ConfigResourceType.TOPIC, topics.EVENTS, configs={"max.message.bytes": str(2 * large)})
        admin.alter_configs([wider])  # an operator raised it
        with closing(kafka.KafkaProducer(bootstrap_servers=broker.bootstrap, max_request_size=2 * large)) as producer:
            producer.send(topics.EVENTS, b"x" * large, b"u1", partition=0)
            producer.send(topics.EVENTS, b"{}", b"k" * large, partition=1)
            producer.flush()
        log.append(as_messages([json.dumps(record).encode() for record in records]))
        for user in (b"a", b"b", b"c", b"d", b"e"):
            event = b'{"user":"%b","item":"i","ts":%d}' % (user, START_MS)
            log.append([Message(topics.EVENTS, user, event, 0, partition=1 - partition_of(user, 2))])
        worker = Worker(config, log, tmp_path / "state")
        worker.recover()
        drain(worker, log)
        worker.checkpoint()
        worker.publish_metrics()
        said = msgspec.json.decode(all_values(log, topics.METRICS)[-1])["counters"]
        assert said["misplaced"] == worker.engine.counters["misplaced"] == 5
        worker.close()
        assert max(map(len, all_values(log, topics.RECOMMENDATIONS))) > 100 * 256 * 5
        assert sum(letter.truncated for letter in read_dead_letters(log)) == 2
        assert_equal_to_a_rebuild(config, log, tmp_path)


def test_input_deleted_before_it_was_read(tmp_path: Path, make_broker: Callable[..., Broker]) -> None:
    broker = make_broker()
    config, log = filled(broker)
    with log:
        first = Worker(config, log, tmp_path / "state")
        first.recover()
        work(first, 1)
        first.checkpoint()
        position, end = first.engine.positions[0], log.end_offsets(topics.EVENTS)[0]
        begin = position + 20
        assert begin < end
        delete_before(broker, topics.EVENTS, 0, begin)
        first.close()
    with open_log(config.log.url, config=config.log) as log:  # one that has not fetched them already
        first = Worker(config, log, tmp_path / "state")
        first.recover()
        with pytest.raises(JournalError, match=rf'{topics.EVENTS}.*{position}.*"earliest" or "latest"'):
            drain(first, log)
        first.close()
        digests = []
        for policy, target in (("latest", end), ("earliest", begin)):
            engine = msgspec.structs.replace(config.engine, on_truncated_input=policy)
            worker = Worker(msgspec.structs.replace(config, engine=engine), log, tmp_path / "state")
            worker.recover()
            while worker.engine.positions[0] == position:
                worker.turn()  # finds out, and goes on where the policy says
            assert worker.engine.positions[0] == target
            assert worker.engine.counters["truncated"] == target - position
            if policy == "earliest":
                drain(worker, log)
                digests.append(worker.engine.digest())
            worker.close()  # without a checkpoint: "latest" left no trace, "earliest" its gap in the journal
        again = Worker(config, log, tmp_path / "state")
        assert again.recover() > 0
        assert [again.engine.digest()] == digests
        again.close()


def test_a_mark_that_retention_took_is_no_lost_input(tmp_path: Path, make_broker: Callable[..., Broker]) -> None:
    broker = make_broker()
    config, log = filled(broker)
    config = msgspec.structs.replace(config, engine=msgspec.structs.replace(config.engine, checkpoint_every_steps=1000))
    producer = kafka.KafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id="a-client")
    producer.init_transactions()
    with log:
        worker = Worker(config, log, tmp_path / "state")
        worker.recover()
        drain(worker, log)
        for round in (1, 2):
            producer.begin_transaction()
            producer.send(topics.EVENTS, b"never seen", b"u1", partition=0)
            producer.flush()
            producer.abort_transaction()
            broker.wait_for_marks("a-client", "CompleteAbort")
            end = log.end_offsets(topics.EVENTS)[0]
            while worker.input.read_positions(worker.engine.positions)[0] < end:
                worker.turn()
            if round == 1:
                worker.make_step(
                    worker.input.control_records(worker.engine.positions)
                )  # what an idle worker does now and then, and one that stops
            worker.checkpoint()
            delete_before(broker, topics.EVENTS, 0, end)
            if round == 1:
                worker.close()
                worker = Worker(config, log, tmp_path / "state")
                worker.recover()
            log.append(as_messages(events(20, seed=round)))
            drain(worker, log)
        digest = worker.engine.digest()
        worker.close()  # without a checkpoint: the range of the last step begins before what is there
        again = Worker(config, log, tmp_path / "state")
        assert again.recover() > 0
        assert (again.engine.digest(), again.engine.counters["truncated"]) == (digest, 0)
        again.close()
    producer.close(timeout=1)


def status(config: Config, state: Path, *words: str) -> tuple[int, str]:
    done = invoke(app, "status", "--log", config.log.url, "--state", state, *words)
    return done.exit_code, done.output


def test_status_is_0_when_healthy_1_when_not_and_2_when_it_cannot_tell(
    tmp_path: Path, make_broker: Callable[..., Broker]
) -> None:
    broker = make_broker()
    config, log = filled(broker)
    with log:
        worker = Worker(config, log, tmp_path / "state")
        worker.recover()
        drain(worker, log)
        worker.checkpoint()
        worker.publish_metrics()
        code, said = status(config, tmp_path / "state")
        assert (code, "problem" in said) == (0, False), said
        assert f"last step             {worker.engine.step_number}\n" in said and "worker-0, running" in said
        log.append(as_messages(events(20, seed=2)))
        # A worker that hangs in a commit: what it has not decided is not waited for.
        hanging = kafka.KafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id="intentstream-worker-0")
        hanging.init_transactions()
        hanging.begin_transaction()
        hanging.send(topics.JOURNAL, b"{}", b"worker-0", partition=0)
        hanging.send(topics.METRICS, b"{}", b"worker-0", partition=0)
        hanging.flush()
        code, said = status(config, tmp_path / "state", "--max-lag", "10")
        assert (code, "problem               lag 20 records is above 10" in said) == (1, True), said
        hanging.abort_transaction()
        hanging.close(timeout=1)
        worker.close()
    assert status(config, tmp_path / "state", "--max-lag", "-1")[0] == 2


def test_a_journal_that_was_deleted(tmp_path: Path, make_broker: Callable[..., Broker]) -> None:
    broker = make_broker()
    config, log = filled(broker)
    with log:
        worker = Worker(config, log, tmp_path / "state")
        worker.recover()
        drain(worker, log)
        worker.checkpoint()
        digest = worker.engine.digest()
        worker.close()
        delete_before(broker, topics.JOURNAL, 0, 5)
        lost = Worker(config, log, tmp_path / "elsewhere")
        with pytest.raises(
            JournalError, match="the entries between were removed by retention; start from a newer checkpoint"
        ):
            lost.recover()
        lost.close()
        kept = Worker(config, log, tmp_path / "state")  # a newer checkpoint does not need them
        assert kept.recover() == 0
        assert kept.engine.digest() == digest
        kept.close()
