"""The worker when its disk fails, its checkpoints are lost or damaged, or a record is too large to be passed on."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import fsspec
import msgspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import learner.online.learner
import state.checkpoint_location
import state.files
from intentstream.config import Config
from state.checkpoints import PendingCheckpoint
from state.errors import StateError, StateInUse, StorageFull
from state.store import UserStore
from stream.engine.message_builders import LETTER_BYTES
from stream.log import EventLog, open_log
from stream.log.base import CommitOutcomeUnknown, LogUnavailable, Message, OffsetRange, TopicSpec, WriterFenced
from stream.log.partitioner import partition_of
from stream.schema import topics
from stream.schema.messages import StreamMetrics
from stream.worker.dead_letters import read_dead_letters
from stream.worker.status import worker_health
from stream.worker.worker import Worker
from tests.unit.stream.streams import as_messages, events, small_config
from tests.unit.stream.worker.faulty import Flaky
from tests.unit.stream.worker.test_worker import assert_equal_to_a_rebuild, drain, journal, open_filled


def started(config: Config, log: EventLog, folder: Path) -> Worker:
    worker = Worker(config, log, folder)
    worker.recover()
    return worker


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_disk_costs_a_checkpoint_not_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    config, log = open_filled(tmp_path, checkpoint_every_steps=2)

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number), "disk")

    with log:
        worker = started(config, log, tmp_path / "state")
        with monkeypatch.context() as broken:
            broken.setattr(state.files.os, "rename", fail)  # type: ignore[attr-defined]
            drain(worker, log, steps=3)
            worker.checkpoints.wait()
        assert worker.checkpoints.failed == 1
        assert worker.metrics().gauges["checkpoints_failed"] == 1.0
        assert os.strerror(number) in caplog.text
        assert not list((tmp_path / "state" / "checkpoints").glob("0*"))
        drain(worker, log)
        worker.checkpoint()
        worker.close()
        assert worker.checkpoints.failed == 1
        assert_equal_to_a_rebuild(config, log, tmp_path)


def test_any_error_while_a_checkpoint_is_written_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, log = open_filled(tmp_path, checkpoint_every_steps=2)

    def fail(*_: object) -> None:
        raise RuntimeError("torch: a writer failed")

    with log:
        worker = started(config, log, tmp_path / "state")
        with monkeypatch.context() as broken:
            broken.setattr(learner.online.learner.torch, "save", fail)  # type: ignore[attr-defined]
            drain(worker, log, steps=2)
            worker.checkpoints.wait()
        assert worker.checkpoints.failed == 1
        assert not list((tmp_path / "state" / "checkpoints").iterdir())
        worker.checkpoint()
        worker.close()
        assert_equal_to_a_rebuild(config, log, tmp_path)


def test_a_checkpoint_that_cannot_begin_is_not_tried_in_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, log = open_filled(tmp_path, max_step_records=16, checkpoint_every_steps=10**6, checkpoint_redo_s=7.0)
    ticks = count()  # a second passes whenever the clock is looked at

    def fail(*_: object) -> None:
        raise StateError("no checkpoint can begin")

    with log:
        worker = Worker(config, log, tmp_path / "state", clock=lambda: float(next(ticks)))
        worker.recover()
        monkeypatch.setattr(worker.engine, "begin_checkpoint", fail)
        drain(worker, log)
        assert 1 <= worker.checkpoints.failed < worker.engine.step_number / 2
        worker.close()


def test_a_state_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    config, log = open_filled(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with log, pytest.raises(StateInUse, match="cannot be written .* choose another with --state"):
        Worker(config, log, tmp_path / "file" / "state")


def _lose_disk(folder: Path) -> None:
    shutil.rmtree(folder)


def _spoil_newest(folder: Path) -> None:
    newest = max((folder / "checkpoints").iterdir())
    victim = next(path for path in sorted((newest / "learner").rglob("*")) if path.is_file() and path.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)


def _lose_checkpoints(folder: Path) -> None:
    shutil.rmtree(folder / "checkpoints")


@pytest.mark.parametrize(
    ("harm", "shared", "redone"),
    [(_lose_disk, True, 1), (_spoil_newest, False, 3), (_lose_checkpoints, False, 5)],
    ids=[
        "the disk is gone, checkpoints at the shared location",
        "the newest checkpoint is corrupt",
        "all checkpoints are gone",
    ],
)
def test_the_same_bits_from_what_is_left(
    tmp_path: Path, harm: Callable[[Path], None], shared: bool, redone: int
) -> None:
    config, log = open_filled(tmp_path, checkpoint_every_steps=2)
    if shared:
        location = f"file://{tmp_path / 'shared'}"
        config = msgspec.structs.replace(
            config, state=msgspec.structs.replace(config.state, checkpoint_location=location)
        )
    with log:
        worker = started(config, log, tmp_path / "state")
        for _ in range(5):  # checkpoints after steps 2 and 4, each finished before the next is due
            worker.turn()
            worker.checkpoints.wait()
        digest = worker.engine.digest()
        worker.close()
        harm(tmp_path / "state")
        again = Worker(config, log, tmp_path / "state")
        assert again.recover() == redone
        assert again.engine.digest() == digest
        drain(again, log)
        again.checkpoint()
        again.close()
        assert_equal_to_a_rebuild(config, log, tmp_path)


class Hanging(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no annotations
    """A share whose server is gone: nothing comes back until `back` is set."""

    protocol = "hanging"
    back = threading.Event()

    def ls(self, path: str, detail: bool = True, **settings: Any) -> Any:
        self.back.wait()
        return super().ls(path, detail, **settings)


def test_a_checkpoint_location_that_hangs_holds_up_neither_the_loop_nor_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fsspec.register_implementation("hanging", Hanging, clobber=True)
    config, log = open_filled(tmp_path, checkpoint_every_steps=2)
    Hanging.back.set()
    config = msgspec.structs.replace(
        config, state=msgspec.structs.replace(config.state, checkpoint_location="hanging://checkpoints")
    )
    try:
        with log:
            worker = started(config, log, tmp_path / "state")
            Hanging.back.clear()
            monkeypatch.setattr(state.checkpoint_location, "_PATIENCE_S", 0.01)
            drain(worker, log)
            worker.checkpoint()
            worker.close()
            assert worker.checkpoints.failed == 0
            assert "no answer within" in caplog.text and "has not come back" in caplog.text
            assert sum(thread.name == "checkpoint-location" for thread in threading.enumerate()) == 1
            with pytest.raises(StateError, match="listing the checkpoints in hanging://checkpoints failed: no answer"):
                Worker(config, log, tmp_path / "elsewhere")
            assert_equal_to_a_rebuild(config, log, tmp_path)
    finally:
        Hanging.back.set()


def test_a_record_larger_than_a_dead_letter_does_not_hold_the_stream_up(tmp_path: Path) -> None:
    config = small_config(url=f"file://{tmp_path / 'log'}")
    wide = 2 * 1024 * 1024
    with open_log(config.log.url) as log:
        log.create_topics([TopicSpec(topics.EVENTS, 2, max_message_bytes=4 * wide)])  # an operator raised it
        log.create_topics(topics.topic_specs(2))
        log.append([Message(topics.EVENTS, b"u1", b"x" * wide, 0), Message(topics.EVENTS, b"k" * wide, b"{}", 0)])
        log.append(as_messages(events(50)))
        worker = started(config, log, tmp_path / "state")
        drain(worker, log)
        worker.checkpoint()
        worker.close()
        large = [letter for letter in read_dead_letters(log) if letter.truncated]
        assert [letter.reason for letter in large] != []
        assert len(large) == 2
        assert all(letter.size <= LETTER_BYTES for letter in large)
        assert_equal_to_a_rebuild(config, log, tmp_path)


def test_a_worker_whose_place_was_taken_while_its_answer_was_lost_stops(tmp_path: Path) -> None:
    config, log = open_filled(tmp_path)

    class TakenOver(Flaky):
        """Before the commit another process does two steps as this worker; the answer is lost."""

        claims = 0

        def claim(self, worker_id: str) -> None:
            self.claims += 1
            self._log.claim(worker_id)

        def commit(self, messages: Any, positions: Any) -> None:
            if self._plan:
                self._plan.pop()
                other = started(config, self._log, tmp_path / "other")
                self._log.append(as_messages(events(10, seed=9)))
                drain(other, self._log)
                other.close()
                raise CommitOutcomeUnknown("commit: the answer was lost")
            super().commit(messages, positions)

    with log:
        taken = TakenOver(log, ["x"])
        worker = started(config, taken, tmp_path / "state")
        with pytest.raises(WriterFenced, match=r"step \d+ in the journal is not from this process"):
            worker.turn()
        assert taken.claims == 1  # at the start: another one would fence the process that goes on
        worker.close()
        assert [entry.step for entry in journal(log)] == list(range(1, len(journal(log)) + 1))


class Deaf:
    """A log that does not say where a topic ends while it is away."""

    def __init__(self, log: EventLog) -> None:
        self._log, self.away = log, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def end_offsets(self, topic: str) -> list[int]:
        if self.away:
            raise LogUnavailable(f"cannot ask for the end of {topic}: no broker answers")
        return self._log.end_offsets(topic)


def test_figures_that_cannot_be_had_do_not_stop_the_worker(tmp_path: Path) -> None:
    config, log = open_filled(tmp_path, checkpoint_every_steps=2)
    deaf: Any = Deaf(log)
    with log:
        worker = started(config, deaf, tmp_path / "state")
        worker.turn()
        deaf.away = True
        for _ in range(3):
            worker.input._ends_due = 0.0
            assert worker.turn()
        worker.checkpoint()
        deaf.away = False
        worker.close()
        again = Worker(config, log, tmp_path / "state")
        assert again.recover() == 0
        drain(again, log)
        again.checkpoint()
        again.close()
        assert_equal_to_a_rebuild(config, log, tmp_path)


def reports(log: EventLog) -> list[StreamMetrics]:
    end = log.end_offsets(topics.METRICS)[0]
    values = log.read(OffsetRange(topics.METRICS, 0, 0, end)).values
    return [msgspec.json.decode(value, type=StreamMetrics) for value in values if value]


def test_a_full_state_disk_costs_checkpoints_and_not_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config, log = open_filled(tmp_path, checkpoint_every_steps=2)
    write = UserStore._write

    def full(*_: object) -> None:
        raise StorageFull("writing users: No space left on device")

    with log:
        worker = started(config, log, tmp_path / "state")
        monkeypatch.setattr(UserStore, "_write", full)
        drain(worker, log, steps=4)
        worker.checkpoints.wait()
        assert worker.metrics().gauges["checkpoints_failing"] >= 1
        assert caplog.text.count("going on in memory for a while") == 1
        assert not list((tmp_path / "state" / "checkpoints").glob("0*"))
        monkeypatch.setattr(UserStore, "_write", write)
        drain(worker, log)
        worker.checkpoint()
        assert worker.metrics().gauges["checkpoints_failing"] == 0
        worker.close()
        assert_equal_to_a_rebuild(config, log, tmp_path)


def test_a_worker_that_ends_with_an_error_says_so_in_its_last_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, log = open_filled(tmp_path)

    def fail(*_: object) -> None:
        raise StorageFull("writing users: No space left on device")

    with log:
        worker = Worker(config, log, tmp_path / "state")
        monkeypatch.setattr(worker.engine, "step", fail)
        with pytest.raises(StorageFull):
            worker.run(lambda: False)
        worker.close()
        last = reports(log)[-1]
        assert (last.state, last.gauges["failed"]) == ("stopped", 1.0)
        found = worker_health(config, log, tmp_path / "state", now_ms=last.ts, max_lag=10**9)
        assert any("ended with an error" in problem for problem in found.problems)


class FullLog:
    """A log on a disk that is full: nothing can be appended, committed or claimed, until there is room."""

    def __init__(self, log: EventLog) -> None:
        self._log, self.refused, self.room_after = log, 0, 0

    def __getattr__(self, name: str) -> Any:
        if name in ("append", "commit", "claim") and self.refused < self.room_after:

            def refuse(*_: object) -> None:
                self.refused += 1
                raise LogUnavailable("log: No space left on device")

            return refuse
        return getattr(self._log, name)


def test_a_full_log_disk_is_waited_for_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("stream.worker.commit.time.sleep", lambda _: None)
    config, log = open_filled(tmp_path)
    full: Any = FullLog(log)
    with log:
        worker = started(config, full, tmp_path / "state")
        full.room_after = 50
        drain(worker, log)
        worker.checkpoint()
        worker.close()
        assert full.refused == 50
        assert caplog.text.count("No space left on device") <= 3
        assert_equal_to_a_rebuild(config, log, tmp_path)


def test_a_checkpoint_due_while_one_is_written_waits_for_it_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config, log = open_filled(tmp_path, max_step_records=16, checkpoint_every_steps=2)
    written = threading.Event()
    finish = PendingCheckpoint.finish

    def slow(self: PendingCheckpoint) -> Path:
        written.wait()
        return finish(self)

    monkeypatch.setattr(PendingCheckpoint, "finish", slow)
    with log, caplog.at_level("INFO"):
        worker = started(config, log, tmp_path / "state")
        drain(worker, log, steps=5)  # due after 2 and 4; the first is still being written
        written.set()
        worker.checkpoints.wait()
        worker.turn()
        worker.checkpoints.wait()
        worker.close()
        assert [entry.step for entry in journal(log) if entry.checkpoint] == [2, 6]
        assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []
        assert len(list((tmp_path / "state" / "checkpoints").glob("0*"))) == 2


def test_the_pace_of_steps_longer_than_its_window_is_not_zero(tmp_path: Path) -> None:
    config, log = open_filled(tmp_path, max_step_records=16, metrics_every_s=0.001)
    now_s = [1_000_000.0]

    def clock() -> float:
        now_s[0] += 6.0
        return now_s[0]

    with log:
        worker = Worker(config, log, tmp_path / "state", clock=clock)
        worker.recover()
        drain(worker, log, steps=4)
        rates = [report.gauges["events_per_second"] for report in reports(log) if report.step > 1]
        assert len(rates) >= 2 and min(rates) > 0
        now_s[0] += 10_000
        assert worker.metrics().gauges["events_per_second"] == 0
        worker.close()


def test_status_says_that_events_were_brought_to_their_users_partition(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    config, log = open_filled(tmp_path, records=50)
    with log:
        worker = started(config, log, tmp_path / "state")
        drain(worker, log)
        worker.publish_metrics()
        now_ms = reports(log)[-1].ts
        worker.checkpoint()
        found = worker_health(config, log, tmp_path / "state", now_ms=now_ms, max_lag=10**9)
        assert found.problems == [] and "repartitions" not in caplog.text
        messages = [replace(message, partition=0) for message in as_messages(events(30, seed=3))]
        log.append(messages)
        drain(worker, log)
        worker.publish_metrics()
        worker.close()
        misplaced = sum(partition_of(message.key, 2) != 0 for message in messages)
        found = worker_health(config, log, tmp_path / "state", now_ms=now_ms, max_lag=10**9)
        assert 0 < misplaced == found.repartitioned
        assert caplog.text.count("the worker repartitions by user") == 1
        assert found.problems == []
