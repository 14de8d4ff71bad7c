"""The embedded log beyond the contract: retention, compaction, the spool, other processes, folders that are wrong."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from stream.log import (
    AppendRequest,
    CommitOutcomeUnknown,
    LogDamaged,
    LogError,
    LogInUse,
    LogUnavailable,
    Message,
    OffsetOutOfRange,
    OffsetRange,
    TopicPartition,
    TopicSpec,
    open_log,
)
from stream.log.embedded import idempotency_keys
from stream.log.embedded.layout import entry_key
from stream.log.embedded.log import EmbeddedLog
from stream.log.embedded.primary import PrimaryStore
from stream.log.embedded.spool import SpoolWriter
from tests.contracts.log_checks import flip, messages_of, starts, take, values

EVENTS = TopicSpec("events", 2)
SPAWN = multiprocessing.get_context("spawn")
ANSWER_S = 60


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now


Do = Callable[[EmbeddedLog], Any]


def _serve(pipe: Connection, path: str, mode: Any) -> None:
    """Another process with the log open: runs what it is sent."""
    try:
        log = EmbeddedLog(Path(path), mode)
    except LogError as exc:
        pipe.send(exc)
        return
    pipe.send(None)
    while (do := pipe.recv()) is not None:
        try:
            pipe.send(do(log))
        except LogError as exc:
            pipe.send(exc)
    log.close()
    pipe.send(None)


class Other:
    """A process that has the log open."""

    def __init__(self, path: Path, mode: str) -> None:
        self._pipe, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_serve, args=(theirs, str(path), mode), daemon=True)
        self.process.start()
        theirs.close()
        self.opened = self._answer()

    def _answer(self) -> Any:
        assert self._pipe.poll(ANSWER_S), "the other process does not answer"
        return self._pipe.recv()

    def ask(self, do: Do) -> Any:
        self._pipe.send(do)
        return self._answer()

    def kill(self) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join(ANSWER_S)

    def close(self) -> None:
        if self.process.is_alive() and self.opened is None:
            self._pipe.send(None)
            self._answer()
        self.process.join(ANSWER_S)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Callable[[str], Other]]:
    made: list[Other] = []

    def make(mode: str) -> Other:
        made.append(Other(tmp_path / "log", mode))
        return made[-1]

    yield make
    for process in made:
        process.close()


# What other processes are sent: functions of this module, by name.


def append_some(log: EmbeddedLog) -> None:
    log.append(messages_of("events", 10))


def append_more(log: EmbeddedLog) -> None:
    log.append(messages_of("events", 10, start=10))


def create_events(log: EmbeddedLog) -> None:
    log.create_topics([EVENTS])


def take_ten(log: EmbeddedLog) -> list[bytes | None]:
    return sorted(values(take(log, starts(EVENTS), 10)), key=str)


def take_twenty(log: EmbeddedLog) -> list[bytes | None]:
    return sorted(values(take(log, starts(EVENTS), 20)), key=str)


def wanted(count: int) -> list[bytes]:
    return sorted((b"value-%d" % i for i in range(count)), key=str)


# Retention


def poll_all(log: EmbeddedLog, topic: str = "t") -> list[bytes | None]:
    tp = TopicPartition(topic, 0)
    return values(log.poll({tp: log.begin_offsets(topic)[0]}, 100_000, 0))


def fill(log: EmbeddedLog, calls: int, each: int = 10) -> None:
    for i in range(calls):
        log.append(messages_of("t", each, start=each * i))


def test_retention_by_count_keeps_at_least_that_many(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path / "log") as log:
        log.create_topics([TopicSpec("t", 1, retention_records=95)])
        fill(log, 130)
        begin = log.begin_offsets("t")[0]
        assert begin >= 10 * 64 - 95 - 10  # by the upkeep after 64 appends at the latest
        found = poll_all(log)
        assert found == [b"value-%d" % i for i in range(begin, 1300)]
        assert len(found) >= 95
        with pytest.raises(OffsetOutOfRange, match=str(begin)):
            log.poll({TopicPartition("t", 0): begin - 1}, 1, 0)
    with EmbeddedLog(tmp_path / "log") as log:
        assert log.begin_offsets("t") == [begin]
        assert log.end_offsets("t") == [1300]


def test_retention_by_bytes(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path / "log") as log:
        log.create_topics([TopicSpec("t", 1, retention_bytes=20_000)])
        for i in range(128):
            log.append([Message("t", b"k", bytes(1000), i)])
        kept = len(poll_all(log))
        assert 18 <= kept <= 22


def test_retention_by_age_counts_from_the_append(tmp_path: Path) -> None:
    clock = Clock()
    with EmbeddedLog(tmp_path / "log", clock_ms=clock) as log:
        log.create_topics([TopicSpec("t", 1, retention_ms=100_000)])
        log.append([Message("t", b"k", b"old", 0)])  # the message's own time is long ago: it does not count
        clock.now += 99_000
        log.append([Message("t", b"k", b"young", 0)])
        assert poll_all(log) == [b"old", b"young"]
        clock.now += 61_000
        assert poll_all(log) == [b"young"]
        clock.now += 1_000_000
        assert poll_all(log) == []
        assert log.begin_offsets("t") == log.end_offsets("t") == [2]
        log.append([Message("t", b"k", b"new", 0)])
        assert poll_all(log) == [b"new"]


# Compaction


def test_compaction_keeps_the_newest_of_each_key(tmp_path: Path) -> None:
    clock = Clock()
    with EmbeddedLog(tmp_path / "log", clock_ms=clock) as log:
        log.create_topics([TopicSpec("t", 1, cleanup="compact")])
        log.append([Message("t", b"once", b"first", 0, (("h", b"1"),))])
        log.append([Message("t", b"gone", b"x", 0), Message("t", b"gone", None, 0)])
        for i in range(1000):
            log.append([Message("t", b"user-%d" % (j % 50), b"%d-%d" % (i, j), 0) for j in range(10)])
        end = log.end_offsets("t")[0]
        assert end == 10_003
        tp = TopicPartition("t", 0)
        batches = log.poll({tp: 0}, 100_000, 0)
        assert log.begin_offsets("t") == [0]
        assert sum(map(len, batches)) < 5000
        assert batches[-1].next_offset == end
        offsets = [o for b in batches for o in b.offsets]
        assert offsets == sorted(set(offsets))
        newest = {k: v for b in batches for k, v in zip(b.keys, b.values, strict=True)}
        expected: dict[bytes | None, bytes | None] = {b"once": b"first", b"gone": None}
        for i in range(1000):
            expected |= {b"user-%d" % (j % 50): b"%d-%d" % (i, j) for j in range(10)}
        assert newest == expected
        assert next(h for b in batches for k, h in zip(b.keys, b.headers, strict=True) if k == b"once") == (
            ("h", b"1"),
        )
        # Any position inside is a good one to read from.
        for start in range(0, end, 997):
            part = log.poll({tp: start}, 5, 0)
            assert [o for b in part for o in b.offsets] == [o for o in offsets if o >= start][:5]


def test_compaction_forgets_tombstones_after_a_day(tmp_path: Path) -> None:
    clock = Clock()
    with EmbeddedLog(tmp_path / "log", clock_ms=clock) as log:
        log.create_topics([TopicSpec("t", 1, cleanup="compact")])
        log.append([Message("t", b"gone", b"secret", 0)])
        log.append([Message("t", b"gone", None, 0)])
        clock.now += 25 * 3600 * 1000
        for i in range(400):
            log.append([Message("t", b"u%d" % (j % 20), b"%d" % i, 0) for j in range(20)])
        keys = [k for b in log.poll({TopicPartition("t", 0): 0}, 100_000, 0) for k in b.keys]
        assert b"gone" not in keys
        assert len(set(keys)) == 20


def test_compaction_survives_a_reopen_in_the_middle(tmp_path: Path) -> None:
    expected: dict[bytes | None, bytes | None] = {}
    for round_ in range(8):
        with EmbeddedLog(tmp_path / "log") as log:
            log.create_topics([TopicSpec("t", 1, cleanup="compact")])
            for i in range(70):
                sent = [Message("t", b"k%d" % ((i * 7 + j) % 33), b"%d-%d-%d" % (round_, i, j), 0) for j in range(40)]
                log.append(sent)
                expected |= {m.key: m.value for m in sent}
            batches = log.poll({TopicPartition("t", 0): 0}, 100_000, 0)
            assert {k: v for b in batches for k, v in zip(b.keys, b.values, strict=True)} == expected
    assert sum(map(len, batches)) < 12_000


# Other processes


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


class FullDatabase:
    """A RocksDB whose disk is full; what is written reaches the disk or does not."""

    def __init__(self, db: Any, *, writes: bool) -> None:
        self._db, self._writes = db, writes

    def write(self, batch: Any, options: Any = None) -> None:
        if self._writes:
            self._db.write(batch, options)
        raise Exception("IO error: No space left on device: While appending to file: db/000004.log")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


def fill_disk(log: EmbeddedLog, *, writes: bool = False) -> None:
    store: Any = log._store
    store._db = FullDatabase(store._db, writes=writes)


def wait_until_it_goes_on(do: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + ANSWER_S
    while time.monotonic() < deadline:
        try:
            return do()
        except LogUnavailable as exc:
            assert "\n" not in str(exc)
            time.sleep(0.01)
    raise AssertionError("the log does not go on by itself")


@pytest.mark.parametrize("written", [False, True])
def test_an_append_on_a_full_disk_is_made_again_once_there_is_room(tmp_path: Path, written: bool) -> None:
    with EmbeddedLog(tmp_path / "log") as log:
        log.create_topics([EVENTS])
        append_some(log)
        fill_disk(log, writes=written)  # a failed write may have taken effect
        with pytest.raises(LogUnavailable, match="free some space"):
            log.append(messages_of("events", 10, start=10), idempotency_key=b"k")
        assert take_ten(log)[:10] == wanted(10)  # what is there can be read
        again = wait_until_it_goes_on(lambda: log.append(messages_of("events", 10, start=10), idempotency_key=b"k"))
        assert again is not written
        assert take_twenty(log) == wanted(20)
    with EmbeddedLog(tmp_path / "log") as log:
        assert take_twenty(log) == wanted(20)


@pytest.mark.parametrize("written", [False, True])
def test_the_outcome_of_a_commit_on_a_full_disk_is_unknown_until_the_next_claim(tmp_path: Path, written: bool) -> None:
    tp = TopicPartition("events", 0)
    with EmbeddedLog(tmp_path / "log") as log:
        log.create_topics([EVENTS])
        log.claim("w")
        log.commit(messages_of("events", 1), {tp: 1})
        fill_disk(log, writes=written)
        with pytest.raises(CommitOutcomeUnknown, match="No space left"):
            log.commit(messages_of("events", 1, start=1), {tp: 2})
        wait_until_it_goes_on(lambda: log.claim("w"))
        assert log.committed("w") == {tp: 2 if written else 1}
        assert sum(log.end_offsets("events")) == 1 + written
        log.commit(messages_of("events", 1, start=2), {tp: 3})


def test_a_spool_taken_in_on_a_full_disk_is_taken_in_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with EmbeddedLog(path) as log:
        log.create_topics([EVENTS])
        append_some(log)
        SpoolWriter(path).put([AppendRequest(messages_of("events", 10, start=10))])
        fill_disk(log, writes=True)
        assert sum(log.end_offsets("events")) == 10  # a look at the spool is no error of the reader
        wait_until_it_goes_on(log.drain)
        assert sum(log.end_offsets("events")) == 20
    assert list((path / "spool").iterdir()) == []


def test_a_log_that_cannot_be_closed_is_one_line_and_leaves_the_lock(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = EmbeddedLog(tmp_path / "log")
    log.create_topics([EVENTS])
    store: Any = log._store
    db = store._db

    class Unclosable:
        def close(self) -> None:
            db.close()
            raise Exception("IO error: Writer has previous error.; IO error: Writer has previous error.")

    store._db = Unclosable()
    log.close()
    assert caplog.text.count("\n") == 1 and "nothing committed is lost" in caplog.text
    with EmbeddedLog(tmp_path / "log") as log:
        log.check_topics([EVENTS])


def test_a_failed_append_to_the_spool_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    EmbeddedLog(path).close()
    writer = SpoolWriter(path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for _ in range(3):
            with pytest.raises(LogUnavailable, match="free some space"):
                writer.put([AppendRequest(messages_of("events", 10))])
    assert list((path / "spool").iterdir()) == [] and writer.waiting_bytes() == 0
    writer.put([AppendRequest(messages_of("events", 10))])
    assert writer.waiting_bytes() > 0


def test_the_folder_of_a_killed_reader_is_removed_by_the_next_one(
    tmp_path: Path, other: Callable[[str], Other], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # of the other processes
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    EmbeddedLog(tmp_path / "log").close()
    killed, alive = other("reader"), other("reader")
    folders = set(tmp_path.glob("intentstream-reader-*"))
    assert len(folders) == 2
    killed.kill()
    for folder in folders:
        os.utime(folder, (0, 0))
    EmbeddedLog(tmp_path / "log", "reader").close()
    assert len(set(tmp_path.glob("intentstream-reader-*"))) == 1
    alive.close()
    assert not set(tmp_path.glob("intentstream-reader-*"))


def test_what_a_producer_left_unfinished_is_removed_at_the_next_start(tmp_path: Path) -> None:
    spool = tmp_path / "log" / "spool"
    EmbeddedLog(tmp_path / "log").close()
    for mode in ("owner", "producer"):
        old, young = spool / ".0001-dead", spool / ".0002-writes-now"
        for file in (old, young):
            file.write_bytes(b"half")
        os.utime(old, (0, 0))
        open_log(str(tmp_path / "log"), mode=mode).close()
        assert [path.name for path in spool.iterdir()] == [young.name]
        assert SpoolWriter(tmp_path / "log").waiting_bytes() == 0


# A damaged disk


def log_of_three_files(path: Path) -> list[Path]:
    """A log whose first file holds records that retention has deleted, all or nearly all."""
    for start in range(0, 12_000, 4_000):
        with EmbeddedLog(path) as log:
            log.create_topics([TopicSpec("t", 1, retention_records=3_000)])
            for i in range(start, start + 4_000, 50):
                log.append([Message("t", b"k", os.urandom(100) + b"%d" % j, 0) for j in range(i, i + 50)])
    with EmbeddedLog(path) as log:
        assert log.begin_offsets("t")[0] > 8_000
    return sorted(path.glob("db/*.sst"))


def test_a_flipped_bit_is_found_wherever_it_is_also_in_what_no_reader_reaches(tmp_path: Path) -> None:
    files = log_of_three_files(tmp_path / "log")
    assert len(files) >= 3
    before = {path: path.read_bytes() for path in files}
    with EmbeddedLog(tmp_path / "log", "reader") as log:
        assert log.verify_files() == len(files)
        tp = TopicPartition("t", 0)
        for path in files:
            for part in (0.1, 0.6, 0.999):
                flip(path, int(part * path.stat().st_size))
                with pytest.raises(LogDamaged, match=rf"1 of {len(files)} files are damaged: db/{path.name}"):
                    log.verify_files()
                path.write_bytes(before[path])
        flip(files[0], files[0].stat().st_size // 3)
        assert len(log.poll({tp: log.begin_offsets("t")[0]}, 100, 0)[0]) == 100  # as if nothing was wrong
        files[0].write_bytes(before[files[0]])
        assert log.verify_files() == len(files)
    assert {path: path.read_bytes() for path in sorted((tmp_path / "log").glob("db/*.sst"))} == before


def test_records_that_a_damaged_block_hides_are_an_error_and_never_passed_over(tmp_path: Path) -> None:
    files = log_of_three_files(tmp_path / "log")
    tp = TopicPartition("t", 0)
    with EmbeddedLog(tmp_path / "log") as log:
        begin, end = log.begin_offsets("t")[0], log.end_offsets("t")[0]
    flip(files[2], files[2].stat().st_size // 2)
    with EmbeddedLog(tmp_path / "log", "reader") as log:
        with pytest.raises(LogDamaged, match="t\\[0\\]"):
            log.read(OffsetRange("t", 0, begin, end))
        with pytest.raises(LogDamaged, match="t\\[0\\]"):
            log.poll({tp: begin}, 100_000, 0)


def test_an_entry_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path / "log") as log:
        log.create_topics([TopicSpec("t", 1)])
        fill(log, 5)
        store: Any = log._store
        del store._db[entry_key(1, 0, 20)]
        with pytest.raises(LogDamaged, match="intentstream verify"):
            log.poll({TopicPartition("t", 0): 0}, 100, 0)
        with pytest.raises(LogDamaged, match="intentstream verify"):
            log.read(OffsetRange("t", 0, 0, 50))
        assert len(log.read(OffsetRange("t", 0, 30, 50))) == 20


# Folders


def test_a_newer_format_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "log"
    EmbeddedLog(path).close()
    (path / "format.json").write_text(json.dumps({"kind": "intentstream-log", "format": 99}))
    for mode in ("owner", "reader", "producer"):
        with pytest.raises(LogError, match="format 99.*update intentstream"):
            open_log(str(path), mode=mode)


def test_another_folder_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(LogError, match="not empty and not a log"):
        EmbeddedLog(tmp_path)
    assert os.listdir(tmp_path) == ["letter.txt"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("")
    with pytest.raises(LogError, match="give a folder"):
        EmbeddedLog(tmp_path / "log")


def test_a_reader_of_no_log(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="topics --create"):
        EmbeddedLog(tmp_path / "none", "reader")
    assert not (tmp_path / "none").exists()


def test_a_folder_that_cannot_be_written() -> None:
    with pytest.raises(LogError, match="cannot open it for writing: ") as caught:
        EmbeddedLog(Path("/proc/self/log"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "text"),
    [("file://host/x", "three slashes"), ("amqp://x", "unknown scheme"), ("", "no folder"), ("kafka://", "host:port")],
)
def test_urls_that_are_wrong(url: str, text: str) -> None:
    with pytest.raises(LogError, match=text):
        open_log(url)
