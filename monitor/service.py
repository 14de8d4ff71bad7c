"""The parts of a running monitor, put together for the API and the page."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
from fastapi import FastAPI

from monitor.appending import Appender
from monitor.config import MonitorConfig
from monitor.health import HealthCheck
from monitor.http.connections import Connections
from monitor.http.sse import Hub
from monitor.idempotency import RecentKeys
from monitor.lists import ListsOnRequest
from monitor.metrics import Telemetry
from monitor.view.reader import Reader
from monitor.view.view import View, wall_clock_ms
from stream.log.base import EventLog
from stream.mapping.config import EventsConfig
from stream.mapping.decoder import make_decoder
from stream.schema.events import ActionsConfig
from stream.schema.ranked_items import Ranker


class Service:
    """View, reader, appender and streams of one monitor.

    Parameters
    ----------
    log
        A log handle for the reader's thread alone.
    producer
        A second handle, for appending; None: this monitor accepts no events.
    actions
        The worker's actions: events that come in over HTTP are checked against them, and histories show no other ones.
    events
        The topic of the events, and the shape of its records and of those that come in over HTTP.
    ranker
        Makes lists on request; None: those that were published alone.
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
        events: EventsConfig | None = None,
        ranker: Ranker | None = None,
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
            events=events,
            clock_ms=clock_ms,
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
        self.lists = ListsOnRequest(ranker)
        self.actions = actions or ActionsConfig()
        self.events = events or EventsConfig()
        # Events over HTTP are JSON of the topic's shape, also where its records have another format.
        self.decoder = make_decoder(msgspec.structs.replace(self.events, format="json"), self.actions)
        self.recent_keys = RecentKeys(now_ms=clock_ms())
        self.health = HealthCheck(self.view, self.reader, config, clock_ms)
        self.telemetry = Telemetry(self.view, self.reader, self.health, clock_ms, streams=lambda: len(self.hub))
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
            self.lists.close()
            self.reader.stop()
            self.view.close()
