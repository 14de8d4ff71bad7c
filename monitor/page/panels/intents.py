"""The intents: a map of their centers, and their shares over time."""

from __future__ import annotations

from typing import Final

from nicegui import ui

from monitor.page import presenters
from monitor.page.charts.centers import centers_chart
from monitor.page.charts.shares import shares_chart
from monitor.page.charts.timeline import WINDOWS
from monitor.page.layout import PageLayout
from monitor.page.widgets import Chart, Table, Text, as_json, box
from stream.schema.topics import INTENT_CATALOG, METRICS

_ROWS: Final = 24


class IntentMapPanel:
    """The map of the intents' centers, and the same as a table."""

    def __init__(self, layout: PageLayout) -> None:
        self._layout = layout
        with box("section", "panel", aria_labelledby="h-map"):
            Text("h2", "Map of intents", id="h-map")
            Text("p", "Each disc is an intent's center, its size the share of users, the line its recent path.", "sub")
            self._centers = Chart("square", on_click=lambda e: ui.navigate.to(f"/intent/{int(e.name)}"))
            with box("details"):
                Text("summary", "As a table")
                self._table = Table(
                    "Intents, largest first", ["Intent", "Users", "Speed", "Top items"], "No intents yet."
                )

    def update(self) -> None:
        """Show the newest catalog."""
        cache, theme, service = self._layout.cache, self._layout.theme, self._layout.service
        count = len(service.view.catalog.by_id)
        table_holds = "the same is" if count <= _ROWS else f"the {_ROWS} largest are"
        self._centers.show(
            cache.get(("centers", theme), (INTENT_CATALOG,), lambda: as_json(centers_chart(service.view, theme))),
            f"Map of {count} intents; {table_holds} in the table below.",
            presenters.no_intents(service.view),
        )
        rows = cache.get(
            ("intents", theme), (INTENT_CATALOG,), lambda: as_json(presenters.intent_rows(service, theme, _ROWS))
        )
        self._table.show(rows)


class SharesPanel:
    """The shares of the largest intents over time."""

    def __init__(self, layout: PageLayout) -> None:
        self._layout = layout
        with box("section", "panel", aria_labelledby="h-shares"):
            Text("h2", "Share of users by intent", id="h-shares")
            Text("p", "Recently active users, the largest intents. The time is the worker's clock, UTC.", "sub")
            self._chart = Chart("square")

    def update(self) -> None:
        """Show the newest shares."""
        layout, view = self._layout, self._layout.service.view
        theme, worker, window_ms = layout.theme, layout.worker, WINDOWS[layout.window]
        options, description = layout.cache.get(
            ("shares", theme, worker, window_ms),
            (METRICS, INTENT_CATALOG),
            lambda: (as_json(shares_chart(view, worker, window_ms, theme)), presenters.describe_shares(view)),
        )
        self._chart.show(options, description, presenters.no_intents(view))
