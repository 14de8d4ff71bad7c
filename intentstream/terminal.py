"""The terminal view: what the worker is doing, drawn from its own status and messages."""

from __future__ import annotations

from collections import deque

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from intentstream.printing import readable
from stream.schema import topics
from stream.schema.messages import DriftAlert, IntentShift, Recommendations, StreamMetrics
from stream.worker.worker import Status

_SHOWN = 5
_recommendations = msgspec.json.Decoder(Recommendations).decode
_shift = msgspec.json.Decoder(IntentShift).decode
_alert = msgspec.json.Decoder(DriftAlert).decode


class LiveView:
    """Draws the newest figures, lists and shifts four times a second; `update` only keeps them."""

    def __init__(self, console: Console, title: str) -> None:
        self._title = title
        self._metrics: StreamMetrics | None = None
        self._state = "recovering"
        self._step = 0
        self._recommendations: deque[Recommendations] = deque(maxlen=_SHOWN)
        self._shifts: deque[IntentShift] = deque(maxlen=_SHOWN)
        self._alerts: deque[DriftAlert] = deque(maxlen=_SHOWN)
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self.render)

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def update(self, status: Status) -> None:
        """Take over what the worker's last turn brought."""
        self._state = status.state
        self._metrics = status.metrics or self._metrics
        if status.step == self._step:
            return
        self._step = status.step
        for message in status.last[-50:]:
            if message.value is None:
                continue
            if message.topic == topics.RECOMMENDATIONS:
                self._recommendations.append(_recommendations(message.value))
            elif message.topic == topics.INTENT_SHIFTS:
                self._shifts.append(_shift(message.value))
            elif message.topic == topics.DRIFT_ALERTS:
                self._alerts.append(_alert(message.value))

    def render(self) -> Panel:
        """The whole view."""
        parts = [self._figures(), self._lists(), self._moves()]
        title = Text.assemble(("intentstream", "bold"), " ", self._title)
        return Panel(Group(*parts), title=title, subtitle="Ctrl-C stops in order")

    def _figures(self) -> Table:
        table = Table.grid(expand=True, padding=(0, 2))
        for _ in range(4):
            table.add_column(ratio=1)
        metrics = self._metrics
        gauge = metrics.gauges.get if metrics else dict[str, float]().get
        count = metrics.counters.get if metrics else dict[str, int]().get

        def cell(name: str, value: str) -> Text:
            return Text.assemble((f"{name}  ", "dim"), (value, "bold"))

        def number(name: str, form: str) -> str:
            value = gauge(name)
            return "–" if value is None or value != value else format(value, form)

        table.add_row(
            cell("state", self._state),
            cell("events/s", number("events_per_second", ",.0f")),
            cell("lag", number("lag", ",.0f")),
            cell("event to list, p50", number("freshness_p50_ms", ",.0f") + " ms"),
        )
        table.add_row(
            cell("events", f"{count('events', 0):,}"),
            cell("users", f"{count('users', 0):,}"),
            cell("items", number("items", ",.0f")),
            cell("dead letters", f"{count('dead_letters', 0):,}"),
        )
        table.add_row(
            cell("served HR@10", number("served_hr@10", ".4f")),
            cell("served NDCG@10", number("served_ndcg@10", ".4f")),
            cell("intents in use", number("intents_effective", ".1f")),
            cell("learning steps", f"{count('learn_steps', 0):,}"),
        )
        return table

    def _lists(self) -> Table:
        table = Table(expand=True, title="newest recommendations", title_justify="left", box=None)
        table.add_column("user", ratio=2, no_wrap=True)
        table.add_column("intent", ratio=1, justify="right")
        table.add_column("items", ratio=8, no_wrap=True)
        table.add_column("by", ratio=2)
        for message in reversed(self._recommendations):
            intent = "–" if message.intent is None else str(message.intent)
            items = ", ".join(item.item for item in message.items[:8])
            table.add_row(readable(message.user), intent, readable(items), message.source)
        return table

    def _moves(self) -> Table:
        table = Table(expand=True, title="newest intent shifts and drift alerts", title_justify="left", box=None)
        table.add_column("what", ratio=2, no_wrap=True)
        table.add_column("how", ratio=9, no_wrap=True)
        for alert in reversed(self._alerts):
            table.add_row(
                Text(f"drift {alert.state}", "bold yellow"), Text(f"{', '.join(alert.signals)}; action {alert.action}")
            )
        for shift in reversed(self._shifts):
            origin = "–" if shift.from_intent is None else str(shift.from_intent)
            how = f"{origin} → {shift.to_intent}, confidence {shift.confidence:.2f}, {', '.join(shift.evidence[:3])}"
            table.add_row(readable(shift.user), readable(how))
        return table
