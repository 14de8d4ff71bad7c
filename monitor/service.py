"""The parts of a running monitor, put together; everything that HTTP and the page ask for."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI

from monitor.appending import Appender, Idempotency
from monitor.config import MonitorConfig
from monitor.http.connections import Connections
from monitor.http.sse import Hub
from monitor.metrics import Telemetry
from monitor.view.reader import Reader
from monitor.view.view import View, wall_clock_ms
from stream.log.base import EventLog
from stream.schema.decoder import Decoder
from stream.schema.events import ActionsConfig
from stream.schema.messages import StreamMetrics

_GIVEN_UP_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Health:
    """How the worker stands, for people and for load balancers; `problems` is empty when all is well."""

    state: str  # none, recovering, running, stopped, gone
    report: StreamMetrics | None
    age_s: float
    problems: list[str]


class Service:
    """View, reader, appender and streams of one monitor.

    Parameters
    ----------
    log
        A log handle that nobody else uses; the reader's thread does.
    producer
        A second handle, for appending; None: this monitor takes no events.
    actions
        The worker's action names, by which events are judged that come in over HTTP, and those that histories show.
    clock_ms
        Wall clock, epoch milliseconds.
    """

    def __init__(
        self,
        log: EventLog,
        config: MonitorConfig,
        view_path: Path,
        producer: EventLog | None,
        *,
        actions: ActionsConfig | None = None,
        clock_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self.config = config
        self.clock_ms = clock_ms
        self.view = View(
            view_path,
            history_len=config.history_len,
            history_days=config.history_days,
            series_points=config.series_points,
            actions=actions,
        )
        self.hub = Hub(config.max_streams)
        self.reader = Reader(
            log,
            self.view,
            interval_s=config.poll_interval_s,
            max_records=config.poll_max_records,
            on_batches=self.hub.publish,
        )
        self.appender = Appender(producer) if producer is not None else None
        self.decoder = Decoder(actions or ActionsConfig())
        self.idempotency = Idempotency(
            config.idempotency_keys,
            int(config.idempotency_ttl_s * 1000),
            put=self.view.keep,
            delete=self.view.drop,
            saved=self.view.kept(b"i"),
        )
        self.telemetry = Telemetry(self)
        self.connections = Connections(config.max_connections)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Start the threads, and end them in order; the log handles belong to the caller."""
        self.reader.start()
        if self.appender is not None:
            self.appender.start()
        try:
            yield
        finally:
            self.hub.close_all()
            if self.appender is not None:
                self.appender.stop()
            self.reader.stop()
            self.view.close()

    def health(self) -> Health:
        """What is wrong now, if anything."""
        config, reading, reports = self.config, self.reader.reading, self.reports()
        problems = []
        if not self.reader.alive:
            problems.append("the monitor does not read the topics")
        elif reading.problem:
            problems.append(reading.problem)
        elif not reading.caught_up or reading.waiting > config.ready_max_lag:
            problems.append(f"the monitor is {reading.waiting:,} records behind the topics")
        if not reports:
            problems.append("no worker has reported on this log yet")
            return Health("none", None, 0.0, problems)
        for report in reports:
            if self._gone(report):
                problems.append(
                    f"the newest report of {report.worker} is {self._age_s(report):,.0f} s old: it is gone or hangs"
                )
            elif report.state == "recovering":
                problems.append(f"{report.worker} is recovering")
        # One that was stopped in order is no problem while another one runs.
        first = max(reports, key=lambda one: (not self._gone(one) and one.state != "stopped", one.ts))
        if first.state == "stopped":
            problems.append(f"{first.worker} was stopped in order")
        lag = self.lag()
        if first.state == "running" and not self._gone(first) and lag > config.ready_max_lag:
            problems.append(f"{lag:,} records wait for the worker, more than {config.ready_max_lag:,}")
        return Health("gone" if self._gone(first) else first.state, first, self._age_s(first), problems)

    def reports(self) -> list[StreamMetrics]:
        """The newest report of each worker; one that has sent none for a day was given up, unless nobody sent any."""
        newest = self.view.report()
        found = sorted(self.view.workers.items())
        return [one for _, one in found if one is newest or self._age_s(one) <= _GIVEN_UP_S]

    def lag(self) -> int:
        """Records that wait for the workers that report; when none does, as the last one said."""
        reports = self.reports()
        fresh = [one for one in reports if self._age_s(one) <= self.config.stale_after_s]
        counted = fresh or sorted(reports, key=lambda one: one.ts)[-1:]
        return int(sum(one.gauges.get("lag", float(sum(one.lag.values()))) for one in counted))

    def _age_s(self, report: StreamMetrics) -> float:
        return max(0.0, (self.clock_ms() - report.ts) / 1000)

    def _gone(self, report: StreamMetrics) -> bool:
        return report.state != "stopped" and self._age_s(report) > self.config.stale_after_s
