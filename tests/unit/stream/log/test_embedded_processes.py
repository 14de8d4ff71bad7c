"""The embedded log: writers, readers and producers in several processes, the spool, idempotency keys."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from stream.log import (
    AppendRequest,
    LogError,
    LogInUse,
    LogUnavailable,
    TopicPartition,
    TopicSpec,
    open_log,
)
from stream.log.embedded import idempotency_keys
from stream.log.embedded.log import EmbeddedLog
from stream.log.embedded.primary import PrimaryStore
from stream.log.embedded.spool import SpoolWriter
from tests.contracts.log_checks import messages_of, take, values
from tests.unit.stream.log.other_process import (
    EVENTS,
    Clock,
    Other,
    append_more,
    append_some,
    create_events,
    take_ten,
    take_twenty,
    wanted,
)


def test_a_second_writer_process_is_refused_in_one_line(tmp_path: Path, other: Callable[[str], Other]) -> None:
    with EmbeddedLog(tmp_path / "log") as log:
        log.create_topics([EVENTS])
        second = other("owner")
        assert isinstance(second.opened, LogInUse)
        assert str(os.getpid()) in str(second.opened) and "\n" not in str(second.opened)
    assert other("owner").opened is None


def test_a_reader_in_another_process_follows(tmp_path: Path, other: Callable[[str], Other]) -> None:
    with EmbeddedLog(tmp_path / "log") as log:
        log.create_topics([EVENTS])
        append_some(log)
        reader = other("reader")
        assert reader.ask(take_ten) == wanted(10)
        append_more(log)
        assert reader.ask(take_twenty) == wanted(20)
        log.claim("w")
        log.commit([], {TopicPartition("events", 1): 7})
    assert reader.ask(take_twenty) == wanted(20)  # also after the writer is gone


def test_a_producer_in_another_process_goes_through_the_spool(tmp_path: Path, other: Callable[[str], Other]) -> None:
    with EmbeddedLog(tmp_path / "log") as log:
        log.create_topics([EVENTS])
        producer = other("producer")
        assert producer.ask(append_some) is None
        assert take_ten(log) == wanted(10)
        assert producer.ask(append_more) is None
        assert take_twenty(log) == wanted(20)
        assert list((tmp_path / "log" / "spool").iterdir()) == []


def test_a_producer_without_a_writer_leaves_a_log_that_readers_see(
    tmp_path: Path, other: Callable[[str], Other]
) -> None:
    producer = other("producer")
    assert producer.ask(create_events) is None
    assert producer.ask(append_some) is None
    producer.close()
    with open_log(str(tmp_path / "log"), mode="reader") as reader:
        assert isinstance(reader, EmbeddedLog)
        assert take_ten(reader) == wanted(10)


def test_what_a_killed_producer_wrote_is_there(tmp_path: Path, other: Callable[[str], Other]) -> None:
    producer = other("producer")
    assert producer.ask(create_events) is None
    assert producer.ask(append_some) is None
    producer.kill()
    with EmbeddedLog(tmp_path / "log") as log:
        assert take_ten(log) == wanted(10)


def test_a_writer_may_start_while_a_producer_runs(tmp_path: Path, other: Callable[[str], Other]) -> None:
    producer = other("producer")
    assert producer.ask(create_events) is None
    assert producer.ask(append_some) is None
    with EmbeddedLog(tmp_path / "log") as log:
        assert producer.ask(append_more) is None
        assert take_twenty(log) == wanted(20)


# The spool


def test_a_crash_between_the_write_and_the_unlink_takes_a_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    with EmbeddedLog(path) as log:
        log.create_topics([EVENTS])
    SpoolWriter(path).put([AppendRequest(messages_of("events", 10))])

    def crash(_: Path) -> None:
        raise OSError(5, "crashed here")

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", crash)
        log = EmbeddedLog(path)
        with pytest.raises(LogError, match="crashed here"):
            log.drain()
        log.close()
    assert len(list((path / "spool").iterdir())) == 1
    for _ in range(2):
        with EmbeddedLog(path) as log:
            log.drain()
            assert sum(log.end_offsets("events")) == 10
    assert list((path / "spool").iterdir()) == []


def test_marks_do_not_pile_up(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with EmbeddedLog(path) as log:
        log.create_topics([EVENTS])
        writer = SpoolWriter(path)
        for i in range(20):
            writer.put([AppendRequest(messages_of("events", 1, start=i))])
        log.drain()
        log.drain()
        assert sum(log.end_offsets("events")) == 20
    with EmbeddedLog(path) as log:
        store = log._store
        assert isinstance(store, PrimaryStore)
        assert store.spool_marks() == set()


def test_a_damaged_spool_file_is_left_alone_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "log"
    with EmbeddedLog(path) as log:
        log.create_topics([EVENTS])
        writer = SpoolWriter(path)
        writer.put([AppendRequest(messages_of("events", 10))])
        damaged = next((path / "spool").glob("*.batch"))
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
        writer.put([AppendRequest(messages_of("events", 10))])
        assert take_ten(log) == wanted(10)
        assert damaged.name in caplog.text and "checksum" in caplog.text
        assert damaged.exists()


def test_what_else_lies_in_the_spool_is_neither_read_nor_removed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with EmbeddedLog(path) as log:
        log.create_topics([EVENTS])
        SpoolWriter(path).put([AppendRequest(messages_of("events", 10))])
        spool = path / "spool"
        (good,) = spool.iterdir()
        (tmp_path / "elsewhere").write_bytes(good.read_bytes())
        (spool / ("0" * 20 + "-" + "a" * 12 + ".batch")).symlink_to(tmp_path / "elsewhere")
        (spool / ("1" * 20 + "-" + "a" * 12 + ".batch")).mkdir()
        (spool / "notes.batch").write_bytes(good.read_bytes())
        assert take_ten(log) == wanted(10)
        assert sum(log.end_offsets("events")) == 10
        assert len(list(spool.iterdir())) == 3 and not good.exists()


def test_a_spool_that_nobody_takes_in_fills_up(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with EmbeddedLog(path) as log:
        log.create_topics([EVENTS])
    writer = SpoolWriter(path, max_bytes=1000)
    with pytest.raises(LogUnavailable, match="start a worker"):
        for i in range(200):
            writer.put([AppendRequest(messages_of("events", 5, start=i))])


def test_a_producer_whose_clock_goes_back_keeps_its_order(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with EmbeddedLog(path) as log:
        log.create_topics([TopicSpec("t", 1)])
        times = iter([100, 50, 60, 200])
        writer = SpoolWriter(path, now_ns=lambda: next(times))
        for i in range(4):
            writer.put([AppendRequest(messages_of("t", 1, start=i))])
        assert values(take(log, {TopicPartition("t", 0): 0}, 4)) == [b"value-%d" % i for i in range(4)]


# Idempotency keys


def append_keyed(log: EmbeddedLog) -> bool:
    return log.append(messages_of("events", 10), idempotency_key=b"request-1")


def test_a_request_that_a_killed_producer_wrote_is_known_to_the_next_one(
    tmp_path: Path, other: Callable[[str], Other]
) -> None:
    """It was killed between the append and the answer, so the client sends the request again."""
    with EmbeddedLog(tmp_path / "log") as log:
        log.create_topics([EVENTS])
    first = other("producer")
    assert first.ask(append_keyed) is True
    first.kill()  # its file still waits in the spool
    second = other("producer")
    assert second.ask(append_keyed) is False
    with EmbeddedLog(tmp_path / "log") as log:
        assert take_ten(log) == wanted(10)
        assert sum(log.end_offsets("events")) == 10
        third = other("producer")
        assert third.ask(append_keyed) is False  # taken in meanwhile
        assert append_keyed(log) is False


def test_of_two_files_with_one_key_the_writer_takes_one(tmp_path: Path) -> None:
    """Two producers that have not seen each other's file."""
    path = tmp_path / "log"
    with EmbeddedLog(path) as log:
        log.create_topics([EVENTS])
        for _ in range(2):
            SpoolWriter(path).put(
                [
                    AppendRequest(messages_of("events", 10), b"request-1"),
                    AppendRequest(messages_of("events", 1, start=10), b"request-2"),
                ]
            )
        SpoolWriter(path).put([AppendRequest(messages_of("events", 1, start=11))])
        log.drain()
        assert sum(log.end_offsets("events")) == 12
    assert list((path / "spool").iterdir()) == []


def test_a_key_is_known_for_a_day_and_then_forgotten(tmp_path: Path) -> None:
    clock = Clock()
    day = 24 * 3600 * 1000
    with EmbeddedLog(tmp_path / "log", clock_ms=clock) as log:
        log.create_topics([EVENTS])
        for i in range(100):
            assert log.append(messages_of("events", 1), idempotency_key=b"%d" % i)
        clock.now += day - 1
        assert not log.append(messages_of("events", 1), idempotency_key=b"0")
        assert log.append(messages_of("events", 1), idempotency_key=b"young")
        clock.now += 1
        assert log.append(messages_of("events", 1), idempotency_key=b"0")
    with EmbeddedLog(tmp_path / "log", clock_ms=clock) as log:
        for _ in range(64):  # writes, after which the store is cleaned
            log.append(messages_of("events", 1))
        assert not log.append(messages_of("events", 1), idempotency_key=b"young")
        assert not log.append(messages_of("events", 1), idempotency_key=b"0")
        store = log._store
        assert isinstance(store, PrimaryStore)
        assert len(store._scan(b"k")) == len(store._scan(b"x")) == 2
        assert int.from_bytes(store.value(b"n") or b"", "big") == 2


def test_more_keys_than_fit_forget_the_oldest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency_keys, "MAX_KEYS", 50)
    with EmbeddedLog(tmp_path / "log") as log:
        log.create_topics([EVENTS])
        for i in range(128):
            assert log.append(messages_of("events", 1), idempotency_key=b"%d" % i)
        assert not log.append(messages_of("events", 1), idempotency_key=b"127")
        store = log._store
        assert isinstance(store, PrimaryStore)
        assert 50 <= len(store._scan(b"k")) <= 50 + 64


# A full disk
