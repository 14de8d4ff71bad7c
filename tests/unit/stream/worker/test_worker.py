"""The worker over the real embedded log: recovery, lost answers, truncated input, policies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from intentstream.config import Config
from state.errors import StateInUse
from stream.errors import JournalError
from stream.log import open_log
from stream.log.base import (
    EventLog,
    LogUnavailable,
    Message,
    OffsetRange,
    RecordBatch,
    TopicPartition,
)
from stream.schema import topics
from stream.schema.messages import JournalEntry, StreamMetrics
from stream.worker.status import worker_health
from stream.worker.verify import verify
from stream.worker.worker import Worker
from tests.unit.stream.streams import START_MS, as_messages, events, small_config
from tests.unit.stream.worker.faulty import Flaky


def open_filled(tmp_path: Path, records: int = 300, **engine: Any) -> tuple[Config, EventLog]:
    config = small_config(url=f"file://{tmp_path / 'log'}", **engine)
    log = open_log(config.log.url)
    log.create_topics(topics.topic_specs(config.log.partitions))
    log.append(as_messages(events(records)))
    return config, log


def drain(worker: Worker, log: EventLog, steps: int = 10**6) -> None:
    ends = log.end_offsets(topics.EVENTS)
    while steps and any(worker.engine.positions[p] < end for p, end in enumerate(ends)):
        worker.turn()
        steps -= 1


def worked_off(config: Config, log: EventLog, state: Path) -> None:
    """A worker takes what waits, and stops with a checkpoint."""
    worker = Worker(config, log, state)
    worker.recover()
    drain(worker, log)
    worker.checkpoint()
    worker.close()


def journal(log: EventLog) -> list[JournalEntry]:
    end = log.end_offsets(topics.JOURNAL)[0]
    values = log.read(OffsetRange(topics.JOURNAL, 0, 0, end)).values
    return [msgspec.json.decode(value, type=JournalEntry) for value in values if value]


def assert_equal_to_a_rebuild(config: Config, log: EventLog, tmp_path: Path) -> None:
    found = verify(config, log, tmp_path / "state", tmp_path / "scratch")
    assert found.difference == ""
    assert found.messages > 0


def test_a_worker_that_vanished_is_rebuilt_from_checkpoint_and_journal(tmp_path: Path) -> None:
    config, log = open_filled(tmp_path)
    with log:
        first = Worker(config, log, tmp_path / "state")
        first.recover()
        drain(first, log, steps=5)
        digest = first.engine.digest()
        first.close()  # no checkpoint since step 3
        second = Worker(config, log, tmp_path / "state")
        assert second.recover() == 2
        assert second.engine.digest() == digest
        drain(second, log)
        second.checkpoint()
        second.close()
        assert_equal_to_a_rebuild(config, log, tmp_path)
        assert [entry.step for entry in journal(log)] == list(range(1, second.engine.step_number + 1))
        assert log.committed("worker-0") == {
            TopicPartition(topics.EVENTS, p): end for p, end in enumerate(log.end_offsets(topics.EVENTS))
        }


def test_a_checkpoint_is_due_when_a_restart_would_have_much_to_redo(tmp_path: Path) -> None:
    config, log = open_filled(tmp_path, max_step_records=16, checkpoint_every_steps=10**6, checkpoint_redo_s=7.0)
    ticks = count()  # a second passes whenever the clock is looked at
    with log:
        worker = Worker(config, log, tmp_path / "state", clock=lambda: float(next(ticks)))
        worker.recover()
        while log.committed("worker-0") != {
            TopicPartition(topics.EVENTS, p): end for p, end in enumerate(log.end_offsets(topics.EVENTS))
        }:
            worker.turn()
            worker.checkpoints.wait()
        checkpoint = [entry.step for entry in journal(log) if entry.checkpoint]
        assert 1 < len(checkpoint) < worker.engine.step_number / 2
        last = worker.engine.step_number
        worker.close()
        again = Worker(config, log, tmp_path / "state", clock=lambda: float(next(ticks)))
        assert again.recover() == last - checkpoint[-1]  # what was redone counts towards the next checkpoint
        assert again.checkpoints.redo_s >= last - checkpoint[-1]
        again.close()


class Marked:
    """Every partition ends with the mark of a transaction, which is no record but has an offset, as on Kafka."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.asked: Mapping[TopicPartition, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def end_offsets(self, topic: str) -> list[int]:
        return [end + (topic == topics.EVENTS) for end in self._log.end_offsets(topic)]

    def poll(self, positions: Mapping[TopicPartition, int], most: int, wait_ms: int) -> list[RecordBatch]:
        self.asked, ends = positions, self._log.end_offsets(topics.EVENTS)
        records = self._log.poll({tp: min(at, ends[tp.partition]) for tp, at in positions.items()}, most, 0)
        marks = [tp for tp, at in positions.items() if at == ends[tp.partition]]
        return records or [RecordBatch(tp.topic, tp.partition, [], [], [], [], [], positions[tp] + 1) for tp in marks]


class Told:
    """A log that notes what is asked of it."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        def noted(*arguments: Any, **settings: Any) -> Any:
            if name != "partition_count":  # asked before the poll, every few seconds
                self.calls.append((name, arguments))
            return getattr(self._log, name)(*arguments, **settings)

        return noted


def test_nothing_is_asked_of_the_log_between_records_and_their_answer(tmp_path: Path) -> None:
    """But what the commit will need is said before the step is made."""
    now_s = START_MS / 1000  # a second passes with every step: what is due is always due
    config, log = open_filled(tmp_path, checkpoint_every_steps=10**6, max_step_records=16, metrics_every_s=0.001)
    with log:
        told: Any = Told(log)
        worker = Worker(config, told, tmp_path / "state", clock=lambda: now_s)
        worker.recover()
        lag = 0.0
        for _ in range(3):
            now_s += 1
            told.calls.clear()
            assert worker.turn()
            (_, _), (_, (positions, partitions)), (_, (messages, committed)), *_ = told.calls
            assert [name for name, _ in told.calls] == ["poll", "prepare", "commit", "end_offsets"]
            assert positions == committed
            assert {TopicPartition(topics.JOURNAL, 0), TopicPartition(topics.RECOMMENDATIONS, 0)} <= set(partitions)
            assert {m.topic for m in messages} >= {topics.JOURNAL, topics.RECOMMENDATIONS, topics.METRICS}
            lag, before = worker.metrics().gauges["lag"], lag
            assert lag > 0 and before in (0, lag + 16)
        worker.close()


def test_an_idle_worker_waits_behind_the_marks_of_transactions(tmp_path: Path) -> None:
    config, log = open_filled(tmp_path, checkpoint_every_steps=10**6)
    with log:
        ends = dict(enumerate(log.end_offsets(topics.EVENTS)))
        marked: Any = Marked(log)
        worker = Worker(config, marked, tmp_path / "state")
        worker.recover()
        while worker.turn():
            worker.input._ends_due = 0.0
        assert (worker.engine.positions, sum(worker.status.lag.values())) == (ends, 2)  # not yet known to be marks
        worker.input._ends_due = 0.0
        assert sum(worker._lag().values()) == 0
        assert not worker.turn()
        assert marked.asked == {TopicPartition(topics.EVENTS, p): end + 1 for p, end in ends.items()}
        worker.close()


@pytest.mark.parametrize("plan", [["before"], ["after"], ["well", "after", "before", "before"]])
def test_a_lost_answer_is_settled_by_the_journal(tmp_path: Path, plan: list[str]) -> None:
    config, log = open_filled(tmp_path)
    with log:
        worked_off(config, Flaky(log, plan), tmp_path / "state")
        assert_equal_to_a_rebuild(config, log, tmp_path)


@pytest.mark.parametrize("checkpoint_every_steps", [1, 2, 100])
def test_a_commit_that_was_answered_and_lost_is_made_anew(checkpoint_every_steps: int, tmp_path: Path) -> None:
    config, log = open_filled(tmp_path, checkpoint_every_steps=checkpoint_every_steps)
    with log:
        worker = Worker(config, Flaky(log, ["well", "lost", "before"]), tmp_path / "state")
        worker.recover()
        with pytest.raises(
            JournalError, match=r"step 2 was answered and is not in the journal.*start this worker again"
        ):
            drain(worker, log)
        worker.close()
        again = Worker(config, log, tmp_path / "state")
        again.recover()
        assert again.engine.step_number == 1
        drain(again, log)
        again.checkpoint()
        again.close()
        assert [entry.step for entry in journal(log)] == list(range(1, again.engine.step_number + 1))
        assert_equal_to_a_rebuild(config, log, tmp_path)


@pytest.mark.parametrize("checkpoint_every_steps", [1, 2, 3])
def test_a_lost_answer_right_after_a_checkpoint_is_no_loss(checkpoint_every_steps: int, tmp_path: Path) -> None:
    config, log = open_filled(tmp_path, checkpoint_every_steps=checkpoint_every_steps)
    with log:
        worked_off(config, Flaky(log, ["well", "well", "before", "away"]), tmp_path / "state")
        log.append(as_messages(events(40, seed=1)))
        worked_off(config, Flaky(log, ["before"]), tmp_path / "state")
        assert_equal_to_a_rebuild(config, log, tmp_path)


def test_a_state_folder_of_another_log_is_refused(tmp_path: Path) -> None:
    config, log = open_filled(tmp_path, checkpoint_every_steps=2)
    with log:
        worked_off(config, log, tmp_path / "state")
    other, log = open_filled(tmp_path / "other", checkpoint_every_steps=2)
    with log:
        worker = Worker(other, log, tmp_path / "elsewhere")
        worker.recover()
        drain(worker, log, steps=3)
        worker.close()
        mistaken = Worker(other, log, tmp_path / "state")
        with pytest.raises(JournalError, match=r"newest step is 3, the checkpoint in .* belongs to another log"):
            mistaken.recover()
        mistaken.close()


def test_the_figures_of_a_silent_stream_are_not_those_of_its_last_events(tmp_path: Path) -> None:
    config, log = open_filled(tmp_path)
    now = [1_000_000.0]

    def clock() -> float:
        now[0] += 0.01
        return now[0]

    with log:
        worker = Worker(config, log, tmp_path / "state", clock=clock)
        worker.recover()
        drain(worker, log)
        gauges = worker.metrics().gauges
        assert gauges["events_per_second"] > 0
        assert "freshness_p50_ms" in gauges
        now[0] += 3600
        gauges = worker.metrics().gauges
        assert gauges["events_per_second"] == 0
        assert "freshness_p50_ms" not in gauges
        worker.close()


def test_recovery_that_makes_other_messages_says_so(tmp_path: Path) -> None:
    config, log = open_filled(tmp_path, on_replay_mismatch="fail", checkpoint_every_steps=100)
    with log:
        worker = Worker(config, log, tmp_path / "state")
        worker.recover()
        drain(worker, log, steps=3)
        worker.close()
        changed = msgspec.structs.replace(config, learner=msgspec.structs.replace(config.learner, learning_rate=0.5))
        other = Worker(changed, log, tmp_path / "state")
        with pytest.raises(JournalError, match=r"step \d: recovery made .* checksum .* the journal has"):
            other.recover()
        other.close()


def test_recovery_by_other_code_warns_once_and_counts_the_steps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, log = open_filled(tmp_path, checkpoint_every_steps=100)
    with log:
        worker = Worker(config, log, tmp_path / "state")
        worker.recover()
        drain(worker, log, steps=4)
        worker.close()
        changed = msgspec.structs.replace(config, learner=msgspec.structs.replace(config.learner, learning_rate=0.5))
        other = Worker(changed, log, tmp_path / "state")
        other.recover()
        other.close()
    assert caplog.text.count("the journal has") == 1
    assert re.search(r"recovered: [2-4] of 4 steps made other messages than were published", caplog.text)


@pytest.mark.parametrize(
    "change",
    [
        {"step": 0},
        {"learn_steps": -1},
        {"ranges": [(-1, 0, 5)]},
        {"ranges": [(10**9, 0, 5)]},
        {"ranges": [(0, 5, 3)]},
        {"ranges": [(0, -1, 3)]},
        {"ranges": [(0, 0, 3)], "records": 4},
        {"records": -2},
        {"messages": -1},
        {"checksum": -1},
        {"checksum": 1 << 32},
    ],
)
def test_a_journal_entry_of_no_step_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    config, log = open_filled(tmp_path)
    with log:
        log.claim("worker-0")
        fields: dict[str, Any] = {"worker": "worker-0", "step": 1, "ranges": [], "learn_steps": 0, **change}
        log.commit([Message(topics.JOURNAL, b"worker-0", msgspec.json.encode(JournalEntry(**fields)), 0)], {})
        worker = Worker(config, log, tmp_path / "state")
        with pytest.raises(JournalError, match="no worker of ours wrote this entry"):
            worker.recover()
        worker.close()
    assert sorted(path.name for path in (tmp_path / "state").rglob("p*") if path.name[1:].isdigit()) != ["p1000000000"]


def test_a_journal_with_a_hole_is_refused(tmp_path: Path) -> None:
    config, log = open_filled(tmp_path, checkpoint_every_steps=100)
    with log:
        log.claim("worker-0")
        for step in (1, 3):
            entry = JournalEntry(worker="worker-0", step=step, ranges=[], learn_steps=0)
            log.commit([Message(topics.JOURNAL, b"worker-0", msgspec.json.encode(entry), 0)], {})
        worker = Worker(config, log, tmp_path / "state")
        with pytest.raises(JournalError, match="step 3 .* expected step"):
            worker.recover()
        worker.close()


def test_entries_and_figures_of_another_version_are_refused_in_one_line(tmp_path: Path) -> None:
    config, log = open_filled(tmp_path)
    with log:
        log.claim("worker-0")
        entry = JournalEntry(worker="worker-0", step=1, ranges=[], learn_steps=0)
        later = msgspec.json.encode(entry).replace(b'"schema":1', b'"schema":99')
        log.commit([Message(topics.JOURNAL, b"worker-0", later, 0)], {})
        worker = Worker(config, log, tmp_path / "state")
        with pytest.raises(
            JournalError, match=r"^intentstream-journal\[0\] offset 0: not a journal entry of this version .*99"
        ):
            worker.recover()
        worker.close()
    config, log = open_filled(tmp_path / "figures")
    with log:
        log.claim("worker-0")
        log.commit([Message(topics.METRICS, b"worker-0", b'{"schema":99}', 0)], {})
        found = worker_health(config, log, tmp_path / "none", now_ms=0, max_lag=10**9)
        assert found.metrics is None
        assert any("stream-metrics are of another version" in problem for problem in found.problems)


def test_two_workers_on_one_state_folder_are_refused(tmp_path: Path) -> None:
    config, log = open_filled(tmp_path)
    with log:
        worker = Worker(config, log, tmp_path / "state")
        with pytest.raises(StateInUse, match="another process is using it"):
            Worker(config, log, tmp_path / "state")
        worker.close()


def test_a_log_that_is_away_for_a_moment_is_polled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, log = open_filled(tmp_path)
    waits: list[float] = []
    monkeypatch.setattr("stream.worker.event_input.time.sleep", waits.append)

    class Away(Flaky):
        def poll(self, *args: Any) -> Any:
            if self._plan:
                self._plan.pop()
                raise LogUnavailable("poll: no broker answers")
            return self._log.poll(*args)

    with log:
        worker = Worker(config, Away(log, ["x", "x"]), tmp_path / "state")
        worker.recover()
        drain(worker, log)
        worker.close()
    assert len(waits) == 2
    assert worker.engine.counters["events"] > 0


def test_run_stops_in_order_with_a_checkpoint_and_says_so_in_the_metrics(tmp_path: Path) -> None:
    config, log = open_filled(tmp_path)
    with log:
        ends = log.end_offsets(topics.EVENTS)
        worker = Worker(config, log, tmp_path / "state")
        worker.run(lambda: all(worker.engine.positions[p] == end for p, end in enumerate(ends)))
        worker.close()
        step = worker.engine.step_number
        assert (tmp_path / "state" / "checkpoints").is_dir()
        again = Worker(config, log, tmp_path / "state")
        assert again.recover() == 0
        assert again.engine.step_number == step
        again.close()
        end = log.end_offsets(topics.METRICS)[0]
        values = log.read(OffsetRange(topics.METRICS, 0, 0, end)).values
        reports = [msgspec.json.decode(value, type=StreamMetrics) for value in values if value]
        assert [report.step for report in reports if report.state == "stopped"] == [step]
        assert reports[0].state == reports[-1].state == "recovering"  # each start says so
        assert reports[-2].counters == worker.engine.counters


def test_under_a_backlog_less_is_learned_by_rule_and_freshness_recovers(tmp_path: Path) -> None:
    now_s = START_MS / 1000  # a second passes with every step
    engine = {"max_step_records": 16, "step_records": 16, "learn_steps": 8, "learn_floor": 2, "backlog_records": 50}
    config, log = open_filled(tmp_path, metrics_every_s=0.001, checkpoint_every_steps=10**6, **engine)
    with log:
        worker = Worker(config, log, tmp_path / "state", clock=lambda: now_s)
        worker.recover()
        end = log.end_offsets(topics.EVENTS)
        while [worker.engine.positions[p] for p in range(2)] != end:
            now_s += 1
            worker.turn()
        steps = worker.engine.step_number
        assert worker.metrics().gauges["freshness_p50_ms"] == 1000 * (1 + steps // 2)
        for seed in range(steps + 1):
            now_s += 1
            (message,) = as_messages(events(1, seed))
            log.append([replace(message, timestamp_ms=int(now_s * 1000))])
            worker.turn()
        assert worker.metrics().gauges["freshness_p50_ms"] == 0
        worker.close()
        reports: dict[int, StreamMetrics] = {}
        for value in log.read(OffsetRange(topics.METRICS, 0, 0, log.end_offsets(topics.METRICS)[0])).values:
            report = msgspec.json.decode(value or b"", type=StreamMetrics)
            reports.setdefault(report.step, report)
        waiting, learned = 300, 0
        for entry in journal(log)[:steps]:
            taken = sum(stop - start for _, start, stop in entry.ranges)
            waiting -= taken
            planned = -(-taken * 8 // 16)
            assert entry.learn_steps == (planned if waiting <= 50 else max(2, planned * 50 // waiting))
            assert reports[entry.step].gauges["lag"] == waiting
            assert reports[entry.step].counters["learn_steps"] == learned
            learned += entry.learn_steps
        assert waiting == 0
        assert {entry.learn_steps for entry in journal(log)[:3]} == {2}  # the floor


def test_partitions_added_under_a_running_worker_are_read_and_nothing_learned_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.worker.event_input._PARTITIONS_EVERY_S", 0.0)
    config, log = open_filled(tmp_path, records=150, checkpoint_every_steps=10**6)
    with log:
        worker = Worker(config, log, tmp_path / "state")
        worker.recover()
        drain(worker, log)
        learned = worker.engine.counters["events"]
        known = {name: worker.engine.recommend(name, 5).history for name in (b"u%d" % number for number in range(40))}
        log.add_partitions(topics.EVENTS, 5)
        assert worker.turn()  # takes them over, without a record
        assert len(worker.engine.positions) == 5
        assert {name: worker.engine.recommend(name, 5).history for name in known} == known
        log.append(as_messages(events(150, seed=2)))
        drain(worker, log)
        assert all(worker.engine.positions[p] == end for p, end in enumerate(log.end_offsets(topics.EVENTS)))
        assert any(log.end_offsets(topics.EVENTS)[2:])
        assert worker.engine.counters["events"] > learned
        assert worker.engine.counters["misplaced"] == 0
        digest = worker.engine.digest()
        worker.close()  # no checkpoint: the journal alone says at which step the partitions came
        again = Worker(config, log, tmp_path / "state")
        again.recover()
        assert again.engine.digest() == digest
        again.checkpoint()
        again.close()
        for partitions in (2, 5):  # either number in the configuration goes on from the checkpoint
            other = msgspec.structs.replace(config, log=msgspec.structs.replace(config.log, partitions=partitions))
            third = Worker(other, log, tmp_path / "state")
            assert third.recover() == 0 if partitions == 2 else True
            assert third.engine.digest() == digest
            third.close()
        assert_equal_to_a_rebuild(config, log, tmp_path)
