"""The worker when its disk fails, its checkpoints are lost or damaged, or a record is too large to be passed on."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable
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
from state import StateError, StateInUse
from stream.engine.message_builders import LETTER_BYTES
from stream.log import EventLog, open_log
from stream.log.base import CommitOutcomeUnknown, LogUnavailable, Message, TopicSpec, WriterFenced
from stream.schema import topics
from stream.worker.dead_letters import read_dead_letters
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
    config, log = open_filled(tmp_path, max_step_events=16, checkpoint_every_steps=10**6, checkpoint_redo_s=7.0)
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
