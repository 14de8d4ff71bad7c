from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from monitor.config import MonitorConfig
from monitor.service import Service
from monitor.view.records import decode_report
from monitor.view.reports import MAX_WORKERS
from monitor.view.view import View
from stream.log import EventLog, Message, open_log
from stream.schema import topics
from tests.unit.monitor.conftest import NOW_MS
from tests.unit.monitor.feed import Feed, encode

DAY_MS = 86_400_000
MakeService = Callable[..., Service]


def report(
    worker: str, ago_s: float = 0, state: str = "running", lag: float = 0, misplaced: int = 0, **gauges: float
) -> Message:
    """What a worker said so long before now."""
    value = Feed(start_ms=NOW_MS).metrics(lag=lag, **gauges).value
    assert value is not None
    ts = NOW_MS - int(ago_s * 1000)
    said = decode_report(value)
    said.counters["misplaced"] = misplaced
    said = msgspec.structs.replace(said, worker=worker, ts=ts, state=state)
    return Message(topics.METRICS, worker.encode(), encode(said), ts)


@pytest.fixture
def make_service(tmp_path: Path, log: EventLog) -> Iterator[MakeService]:
    """A service that has read everything, with its clock at NOW_MS."""
    with ExitStack() as stack:

        def make(*messages: Message) -> Service:
            log.append(messages)
            reader = stack.enter_context(open_log(f"file://{tmp_path}/log", mode="reader"))
            config = MonitorConfig(stale_after_s=30, ready_max_lag=100, poll_interval_s=0.01)
            service = Service(reader, config, tmp_path / "view", None, clock_ms=lambda: NOW_MS)
            stack.callback(service.view.close)
            stack.callback(service.reader.stop)
            service.reader.start()
            end = time.monotonic() + 10
            while not service.reader.reading.caught_up or service.reader.reading.waiting:
                assert time.monotonic() < end, "the reader did not get there"
                time.sleep(0.01)
            return service

        yield make


def test_one_of_two_workers_that_is_gone_is_named(make_service: MakeService) -> None:
    service = make_service(report("a", ago_s=2, lag=3), report("b", ago_s=600, lag=5000))
    health = service.health.check()
    assert health.state == "running" and health.report is not None and health.report.worker == "a"
    assert health.problems == ["b has not reported since 2025-12-31 23:50:00 UTC (600 s): it has ended or hangs"]
    assert service.health.lag() == 3  # what a worker said ten minutes ago is no lag of now


def test_a_worker_that_was_given_up_is_forgotten_after_a_day(make_service: MakeService) -> None:
    service = make_service(report("a"), report("b", ago_s=86_401, lag=5000))
    assert service.health.check().problems == []
    text = service.telemetry.exposition().decode()
    assert 'worker="a"' in text and 'worker="b"' not in text


def test_a_worker_that_is_gone_and_was_the_only_one_is_never_forgotten(make_service: MakeService) -> None:
    service = make_service(report("a", ago_s=200_000, lag=7))
    health = service.health.check()
    assert (
        health.state == "gone"
        and "a has not reported since" in health.problems[0]
        and "(200,000 s)" in health.problems[0]
    )
    assert 'intentstream_worker_up{worker="a"} 0.0' in service.telemetry.exposition().decode()
    assert service.health.lag() == 7


def test_a_worker_that_was_stopped_in_order_is_a_problem_when_no_other_one_runs(make_service: MakeService) -> None:
    service = make_service(report("a", ago_s=2), report("b", ago_s=1, state="stopped"))
    assert service.health.check().state == "running" and service.health.check().problems == []
    service.view.reports.workers = {name: one for name, one in service.view.reports.workers.items() if name != "a"}
    assert service.health.check().state == "stopped" and service.health.check().problems == ["b was shut down"]


def test_a_new_worker_takes_the_place_of_one_that_was_given_up(log: EventLog, make_service: MakeService) -> None:
    first = [report(f"w{n}", ago_s=100_000 + n) for n in range(MAX_WORKERS)]
    service = make_service(*first, report("new"))
    assert len(service.view.reports.workers) == MAX_WORKERS
    assert "new" in service.view.reports.workers and f"w{MAX_WORKERS - 1}" not in service.view.reports.workers
    path = service.reader._view._db.path
    service.reader.stop()
    service.view.close()
    again = View(path)
    assert set(again.reports.workers) == set(service.view.reports.workers)
    again.close()


def every(seconds: float, newest_ago_s: float, count: int = 10) -> list[Message]:
    return [report("a", ago_s=newest_ago_s + seconds * n) for n in reversed(range(count))]


def test_a_worker_that_missed_three_reports_is_gone_and_since_when(make_service: MakeService) -> None:
    assert MonitorConfig().stale_after_s == 15  # three reports of a worker with the default cadence
    health = make_service(*every(5, newest_ago_s=31)).health.check()
    assert health.state == "gone"
    assert health.problems == ["a has not reported since 2025-12-31 23:59:29 UTC (31 s): it has ended or hangs"]


@pytest.mark.parametrize("newest_ago_s", [50, 61])
def test_a_worker_that_reports_seldom_is_waited_for(make_service: MakeService, newest_ago_s: float) -> None:
    state = make_service(*every(20, newest_ago_s)).health.check().state
    assert state == ("running" if newest_ago_s < 60 else "gone")


@pytest.mark.parametrize(
    ("failing", "problems"),
    [
        ([0, 1], ["the last checkpoint of a failed: a restart repeats more and more steps"]),
        ([1, 2], ["the last 2 checkpoints of a failed: a restart repeats more and more steps"]),
        ([2, 0], []),
    ],
)
def test_checkpoints_that_fail_are_a_problem_until_one_succeeds(
    make_service: MakeService, failing: list[int], problems: list[str]
) -> None:
    reports = [report("a", ago_s=5 * n, checkpoints_failing=one) for n, one in enumerate(reversed(failing))]
    assert make_service(*reversed(reports)).health.check().problems == problems


def test_a_worker_that_ended_with_an_error_is_no_stopped_one(make_service: MakeService) -> None:
    health = make_service(report("a", ago_s=2, state="stopped", failed=1)).health.check()
    assert health.state == "failed" and health.problems == ["a ended with an error, which is in its log"]


@pytest.mark.parametrize(
    ("ago_s", "misplaced", "known"), [(60, (7, 9), True), (601, (7, 9), False), (60, (9, 9), False)]
)
def test_repartitioning_is_named_while_misplaced_events_come_and_is_no_problem(
    make_service: MakeService, ago_s: float, misplaced: tuple[int, int], known: bool
) -> None:
    earlier, later = misplaced
    service = make_service(
        report("a", ago_s=ago_s + 700, misplaced=earlier),
        report("a", ago_s=ago_s, misplaced=later),
        report("a", ago_s=1, misplaced=later),
    )
    health = service.health.check()
    assert health.problems == []
    assert health.notes == (
        ["a repartitions by user: 9 events were in another partition than their user's"] if known else []
    )


def test_a_report_from_the_future_does_not_keep_its_worker_alive(make_service: MakeService) -> None:
    service = make_service(report("a", ago_s=-86_400 * 365), report("b", ago_s=2))
    assert service.health.check().report is not None
    assert service.view.reports.workers["a"].ts == NOW_MS
    path = service.view._db.path
    service.reader.stop()
    service.view.close()
    again = View(path)
    assert again.reports.workers["a"].ts == NOW_MS  # also after a restart
    again.close()
