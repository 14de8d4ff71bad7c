"""How worker and monitor are doing, judged by the workers' newest reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from monitor.config import MonitorConfig
from monitor.view.reader import Reader
from monitor.view.view import View
from stream.schema.messages import StreamMetrics

_FORGOTTEN_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Health:
    """How the worker is doing, for people and for load balancers; `problems` is empty when all is well."""

    state: str  # none, recovering, running, stopped, gone
    report: StreamMetrics | None
    age_s: float
    problems: list[str]


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
        # A worker that was shut down is no problem while another one runs.
        first = max(reports, key=lambda one: (not self.is_gone(one) and one.state != "stopped", one.ts))
        gone = self.is_gone(first)
        if first.state == "stopped":
            problems.append(f"{first.worker} was shut down")
        lag, most = self.lag(), self._config.ready_max_lag
        if first.state == "running" and not gone and lag > most:
            problems.append(f"{lag:,} records wait for the worker, more than {most:,}")
        return Health("gone" if gone else first.state, first, self.age_s(first), problems)

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
        if self.is_gone(report):
            return [f"the newest report of {report.worker} is {self.age_s(report):,.0f} s old: it has ended or hangs"]
        if report.state == "recovering":
            return [f"{report.worker} is recovering"]
        return []

    def reports(self) -> list[StreamMetrics]:
        """The newest report of each worker; those older than a day only when no worker has a newer one."""
        newest = self._view.reports.newest()
        found = sorted(self._view.reports.workers.items())
        return [one for _, one in found if one is newest or self.age_s(one) <= _FORGOTTEN_S]

    def lag(self) -> int:
        """Records that wait for the workers that report; when none does, as the last one said."""
        reports = self.reports()
        fresh = [one for one in reports if self.age_s(one) <= self._config.stale_after_s]
        counted = fresh or sorted(reports, key=lambda one: one.ts)[-1:]
        return int(sum(one.gauges.get("lag", float(sum(one.lag.values()))) for one in counted))

    def age_s(self, report: StreamMetrics) -> float:
        """Seconds since the report was made."""
        return max(0.0, (self._clock_ms() - report.ts) / 1000)

    def is_gone(self, report: StreamMetrics) -> bool:
        """Whether the worker has stopped reporting without saying that it stops."""
        return report.state != "stopped" and self.age_s(report) > self._config.stale_after_s
