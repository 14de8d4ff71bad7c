"""How worker and monitor are doing, judged by the workers' newest reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from monitor.config import MonitorConfig
from monitor.view.reader import Reader
from monitor.view.reports import misplaced_events
from monitor.view.view import View
from stream.schema.messages import StreamMetrics

_FORGOTTEN_S: Final = 86_400.0
_MISPLACED_MS: Final = 600_000  # that an increase of misplaced events is named for


@dataclass(frozen=True, slots=True)
class Health:
    """How the worker is doing, for people and for load balancers; `problems` is empty when all is well.

    `notes` say what the worker does of its own accord, and need nobody.
    """

    state: str  # none, recovering, running, stopped, failed, gone
    report: StreamMetrics | None
    age_s: float
    problems: list[str]
    notes: list[str] = field(default_factory=list)


class HealthCheck:
    """Health of the workers and of the monitor's own reader.

    Parameters
    ----------
    clock_ms
        Wall clock, epoch milliseconds.
    """

    def __init__(self, view: View, reader: Reader, config: MonitorConfig, clock_ms: Callable[[], int]) -> None:
        self._view = view
        self._reader = reader
        self._config = config
        self._clock_ms = clock_ms

    def check(self) -> Health:
        """What is wrong now, if anything."""
        reports = self.reports()
        problems = self._monitor_problems()
        if not reports:
            problems.append("no worker has reported on this log yet")
            return Health("none", None, 0.0, problems)
        for report in reports:
            problems += self._worker_problems(report)
        first = max(reports, key=lambda one: (self.state(one) in ("running", "recovering"), one.ts))
        state = self.state(first)
        if state == "stopped":  # one that was shut down is no problem while another one runs
            problems.append(f"{first.worker} was shut down")
        lag, most = self.lag(), self._config.ready_max_lag
        if state == "running" and lag > most:
            problems.append(f"{lag:,} records wait for the worker, more than {most:,}")
        notes = [note for report in reports for note in self._worker_notes(report)]
        return Health(state, first, self.age_s(first), problems, notes)

    def _monitor_problems(self) -> list[str]:
        reading = self._reader.reading
        if not self._reader.alive:
            return ["the monitor does not read the topics"]
        if reading.problem:
            return [reading.problem]
        if not reading.caught_up or reading.waiting > self._config.ready_max_lag:
            return [f"the monitor is {reading.waiting:,} records behind the topics"]
        return []

    def _worker_problems(self, report: StreamMetrics) -> list[str]:
        name, state = report.worker, self.state(report)
        if state == "gone":
            since = datetime.fromtimestamp(report.ts / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
            return [f"{name} has not reported since {since} UTC ({self.age_s(report):,.0f} s): it has ended or hangs"]
        if state == "failed":
            return [f"{name} ended with an error, which is in its log"]
        if state == "stopped":
            return []
        problems = [f"{name} is recovering"] if state == "recovering" else []
        failing = int(report.gauges.get("checkpoints_failing", 0))
        if failing:
            attempts = "checkpoint" if failing == 1 else f"{failing} checkpoints"
            problems.append(f"the last {attempts} of {name} failed: a restart repeats more and more steps")
        return problems

    def _worker_notes(self, report: StreamMetrics) -> list[str]:
        misplaced_ms = self._view.reports.misplaced_ms(report.worker)
        if misplaced_ms is None or self._clock_ms() - misplaced_ms > _MISPLACED_MS:
            return []
        return [
            f"{report.worker} repartitions by user: {misplaced_events(report):,} events were in another partition than "
            "their user's"
        ]

    def reports(self) -> list[StreamMetrics]:
        """The newest report of each worker; those older than a day only when no worker has a newer one."""
        newest = self._view.reports.newest()
        found = sorted(self._view.reports.workers.items())
        return [one for _, one in found if one is newest or self.age_s(one) <= _FORGOTTEN_S]

    def lag(self) -> int:
        """Records that wait for the workers that report; when none does, as the last one said."""
        reports = self.reports()
        fresh = [one for one in reports if self.state(one) in ("running", "recovering")]
        counted = fresh or sorted(reports, key=lambda one: one.ts)[-1:]
        return int(sum(one.gauges.get("lag", float(sum(one.lag.values()))) for one in counted))

    def age_s(self, report: StreamMetrics) -> float:
        """Seconds since the report was made."""
        return max(0.0, (self._clock_ms() - report.ts) / 1000)

    def state(self, report: StreamMetrics) -> str:
        """The state of the worker behind its newest report: recovering, running, stopped, failed, or gone.

        A worker is gone when it has missed three reports without saying that it ends.
        """
        if report.gauges.get("failed"):
            return "failed"
        patience_s = max(self._config.stale_after_s, 3 * self._view.reports.interval_ms(report.worker) / 1000)
        return "gone" if report.state != "stopped" and self.age_s(report) > patience_s else report.state
