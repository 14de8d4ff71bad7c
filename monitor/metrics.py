"""Prometheus: the worker's figures from its reports, and the monitor's own.

Names follow the conventions: base units (seconds), `_total` for counters. Every label's values are bounded: workers,
partitions, topics, routes and reasons are few, users and intents are never a label.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from monitor.health import HealthCheck
from monitor.view.reader import Reader
from monitor.view.view import View

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Figure(NamedTuple):
    """A figure of a report as a metric."""

    name: str
    help: str
    scale: float = 1.0


COUNTERS: Final[dict[str, Figure]] = {
    "events": Figure("intentstream_events", "Events accepted into histories."),
    "users": Figure("intentstream_users", "Users seen for the first time."),
    "dead_letters": Figure("intentstream_dead_letters", "Records refused."),
    "duplicates": Figure("intentstream_duplicates", "Events dropped because the history holds them already."),
    "late": Figure("intentstream_late_events", "Events older than the newest event of the same user."),
    "misplaced": Figure(
        "intentstream_misplaced_events", "Events in another partition than their user's, which the worker repartitions."
    ),
    "unknown_fields": Figure("intentstream_unknown_fields", "Fields of events outside the schema."),
    "values_dropped": Figure("intentstream_values_dropped", "Events whose value is no finite number."),
    "truncated": Figure("intentstream_truncated_records", "Input records lost to retention before they were read."),
    "recommendations": Figure("intentstream_recommendations", "Lists published."),
    "shifts": Figure("intentstream_intent_shifts", "Intent shifts published."),
    "model_shifts": Figure("intentstream_model_shifts", "Intent shifts that the model caused, not the user."),
    "alerts": Figure("intentstream_drift_alerts", "Drift alerts published."),
    "erased": Figure("intentstream_erased_users", "Users forgotten on request."),
    "items_admitted": Figure("intentstream_items_admitted", "Items seen for the first time."),
    "learn_steps": Figure("intentstream_learn_steps", "Optimizer steps made."),
    "learn_refused": Figure(
        "intentstream_learn_steps_refused", "Optimizer steps refused: loss or gradient not finite, or exploded."
    ),
    "examples": Figure("intentstream_examples", "Examples learned from."),
}
STATES: Final = ("recovering", "running", "stopped")
GAUGES: Final[dict[str, Figure]] = {
    "events_per_second": Figure("intentstream_events_per_second", "Recent pace of the worker."),
    "freshness_p50_ms": Figure(
        "intentstream_freshness_p50_seconds", "From an event's arrival to its list, median.", 1e-3
    ),
    "freshness_p99_ms": Figure(
        "intentstream_freshness_p99_seconds", "From an event's arrival to its list, 99 %.", 1e-3
    ),
    "step_ms": Figure("intentstream_step_seconds", "Running mean of a whole step.", 1e-3),
    "engine_ms": Figure("intentstream_step_engine_seconds", "Running mean of a step's engine part.", 1e-3),
    "commit_ms": Figure("intentstream_step_commit_seconds", "Running mean of a step's commit.", 1e-3),
    "learn_ms": Figure("intentstream_step_learn_seconds", "Running mean of a step's learning.", 1e-3),
    "checkpoint_hold_ms": Figure(
        "intentstream_checkpoint_hold_seconds", "How long the newest checkpoint paused the stream.", 1e-3
    ),
    "items": Figure("intentstream_items", "Items in the vocabulary."),
    "intents_active": Figure("intentstream_intents_active", "Intents with users."),
    "intents_effective": Figure(
        "intentstream_intents_effective", "Effective number of intents (exponential of entropy)."
    ),
    "loss": Figure("intentstream_loss", "Loss of the newest learning step."),
}
QUALITY: Final = {
    "served": "Items taken against the lists published before; newest 10,000 scored events.",
    "prequential": "Test, then train: all items ranked; newest 10,000 scored events.",
}


class Telemetry(Collector):
    """The registry behind `/metrics`; a monitor has its own, so that two in one process do not meet."""

    def __init__(
        self,
        view: View,
        reader: Reader,
        health: HealthCheck,
        clock_ms: Callable[[], int],
        streams: Callable[[], int],
    ) -> None:
        self._view = view
        self._reader = reader
        self._health = health
        self._clock_ms = clock_ms
        self._streams = streams
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        ProcessCollector(
            registry=self.registry
        )  # memory and CPU of this process, which under `run` is the worker's too
        self._requests = Counter(
            "intentstream_http_requests", "Requests answered.", ("route", "method", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "intentstream_http_request_duration_seconds",
            "Time to answer a request.",
            ("route",),
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
            registry=self.registry,
        )
        self._appended = Counter(
            "intentstream_http_events", "Events that came in over HTTP.", ("fate",), registry=self.registry
        )

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one request; `route` is a template or 'other', never a path."""
        self._requests.labels(route, method if method in _METHODS else "other", f"{status // 100}xx").inc()
        if not route.startswith("/stream"):
            self._seconds.labels(route).observe(seconds)

    def appended(self, good: int, refused: int) -> None:
        """Count events that came in over HTTP."""
        self._appended.labels("appended").inc(good)
        self._appended.labels("refused").inc(refused)

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)

    def describe(self) -> list[Metric]:
        """Names are not claimed ahead: the registry is our own."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All figures of the newest reports and of the view."""
        build = GaugeMetricFamily("intentstream_build_info", "1; the version is the label.", labels=["version"])
        build.add_metric([version("intentstream")], 1.0)
        yield build
        yield from self._worker_metrics()
        yield from self._view_metrics()

    def _worker_metrics(self) -> Iterator[Metric]:
        reports = [(one.worker, one) for one in self._health.reports()]
        now_ms = self._clock_ms()
        up = GaugeMetricFamily("intentstream_worker_up", "1: running and reporting, 0: not.", labels=["worker"])
        age = GaugeMetricFamily(
            "intentstream_report_age_seconds", "Age of the worker's newest report.", labels=["worker"]
        )
        steps = CounterMetricFamily("intentstream_steps", "Engine steps made.", labels=["worker"])
        lag = GaugeMetricFamily("intentstream_input_lag_records", "Records waiting.", labels=["worker", "partition"])
        event_time = GaugeMetricFamily(
            "intentstream_event_timestamp_seconds",
            "Median time of the newest 512 events, each user once; Unix time.",
            labels=["worker"],
        )
        state = GaugeMetricFamily(
            "intentstream_worker_state", "1 for the state last reported.", labels=["worker", "state"]
        )
        checkpoints = CounterMetricFamily(
            "intentstream_checkpoints_failed", "Checkpoints that failed since the worker started.", labels=["worker"]
        )
        for worker, report in reports:
            seconds = max(0.0, (now_ms - report.ts) / 1000)
            alive = self._health.state(report) == "running"
            up.add_metric([worker], float(alive))
            age.add_metric([worker], seconds)
            steps.add_metric([worker], report.step)
            event_time.add_metric([worker], report.event_ts / 1000)
            for partition, waiting in sorted(report.lag.items())[:1024]:
                lag.add_metric([worker, partition], waiting)
            for one in STATES:
                state.add_metric([worker, one], float(report.state == one))
            checkpoints.add_metric([worker], report.gauges.get("checkpoints_failed", 0.0))
        yield from (up, age, steps, lag, event_time, state, checkpoints)
        for key, figure in COUNTERS.items():
            counter = CounterMetricFamily(figure.name, figure.help, labels=["worker"])
            for worker, report in reports:
                if key in report.counters:
                    counter.add_metric([worker], report.counters[key])
            yield counter
        for key, figure in GAUGES.items():
            gauge = GaugeMetricFamily(figure.name, figure.help, labels=["worker"])
            for worker, report in reports:
                if key in report.gauges:
                    gauge.add_metric([worker], report.gauges[key] * figure.scale)
            yield gauge
        for kind, text in QUALITY.items():
            quality = GaugeMetricFamily(f"intentstream_{kind}_accuracy_ratio", text, labels=["worker", "measure"])
            for worker, report in reports:
                for measure in ("hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20"):
                    if f"{kind}_{measure}" in report.gauges:
                        quality.add_metric([worker, measure], report.gauges[f"{kind}_{measure}"])
            yield quality

    def _view_metrics(self) -> Iterator[Metric]:
        view, reading = self._view, self._reader.reading
        lag = GaugeMetricFamily(
            "intentstream_monitor_lag_records", "Records the monitor has not read.", labels=["topic"]
        )
        for topic, waiting in sorted(reading.lag.items()):
            lag.add_metric([topic], waiting)
        read = CounterMetricFamily("intentstream_monitor_records", "Records the monitor has read.", labels=["topic"])
        for topic, count in sorted(view.totals.items()):
            read.add_metric([topic], count)
        reasons = CounterMetricFamily(
            "intentstream_dead_letters_by_reason", "Dead letters in the topic.", labels=["reason"]
        )
        for reason, count in sorted(view.reasons.items()):
            reasons.add_metric([reason], count)
        episodes = view.episodes()
        open_now = GaugeMetricFamily("intentstream_drift_episodes_open", "Drift episodes that are open.")
        open_now.add_metric([], sum(episode.closed is None for episode in episodes))
        intents = GaugeMetricFamily("intentstream_intents", "Intents in the catalog.")
        intents.add_metric([], len(view.catalog.by_id))
        share = GaugeMetricFamily("intentstream_largest_intent_ratio", "Share of users in the largest intent.")
        share.add_metric([], max((one.share for one in view.catalog.intents()), default=0.0))
        streams = GaugeMetricFamily("intentstream_http_streams", "Open server-sent event streams.")
        streams.add_metric([], self._streams())
        spent = CounterMetricFamily(
            "intentstream_http_cpu_seconds", "Processor time of the thread that serves the page and the API."
        )
        spent.add_metric([], time.thread_time())  # that thread runs this function
        yield from (lag, read, reasons, open_now, intents, share, streams, spent)
