"""The page of one intent."""

from __future__ import annotations

from typing import Final

from nicegui import ui

from monitor.answers import IntentPage
from monitor.page import presenters
from monitor.page.charts.centers import centers_chart
from monitor.page.charts.labels import intent_name
from monitor.page.charts.shares import intent_share_chart
from monitor.page.layout import EVENT_TIME, PageLayout
from monitor.page.widgets import Cell, Chart, Table, Text, as_json, box
from monitor.queries import find_intent
from stream.schema.topics import INTENT_CATALOG, METRICS

_SHIFTS: Final = 15
_ITEMS: Final = 20


class IntentPanel:
    """One intent: size, position, items, and the users who joined or left."""

    def __init__(self, layout: PageLayout, intent: int) -> None:
        self._layout, self._service, self._intent = layout, layout.service, intent
        with layout.main, box("section", "panel", aria_labelledby="h-intent"):
            Text("p", f"Intent {intent}", "over-title")
            self._name = Text("h2", "", "who", id="h-intent")
            self._summary = Text("p", "", "sub")
            with box("div") as self._known:
                self._build_charts()
                self._build_tables()
        layout.every_second(self.update)

    def _build_charts(self) -> None:
        with box("div", "pair"):
            with box("div"):
                Text("h3", "Share of users (the worker's clock, UTC)")
                self._share = Chart("square")
            with box("div"):
                Text("h3", "Position on the map")
                self._place = Chart("square", on_click=lambda e: ui.navigate.to(f"/intent/{int(e.name)}"))

    def _build_tables(self) -> None:
        with box("div", "pair wide-left"):
            with box("div"):
                Text("h3", "Users who joined or left")
                self._shifts = Table(
                    "Shifts to and from this intent, newest first",
                    [EVENT_TIME, "User", "From", "To", "Cause", "Confidence", "Evidence"],
                    "None among the newest shifts.",
                )
            with box("div"):
                Text("h3", "Top items")
                self._items = Table("Top items", ["Place", "Item"], "None.")

    def update(self) -> None:
        """Show what the topics say now."""
        found = find_intent(self._service.view, self._intent)
        self._known.set_visibility(found is not None)
        if found is None:
            self._name.show("Not in the catalog")
            self._summary.show(
                "This intent was retired, or there never was one of this number. Numbers are not reused."
            )
            return
        self._name.show(intent_name(found.intent, self._intent))
        self._summary.show(presenters.intent_summary(found.intent))
        self._show_charts(found)
        shifts = presenters.shift_rows(self._service, found.shifts[:_SHIFTS], self._layout.theme)
        self._shifts.show(as_json(shifts))
        items = [[Cell(str(i)), Cell(item)] for i, item in enumerate(found.intent.top_items[:_ITEMS], 1)]
        self._items.show(as_json(items))

    def _show_charts(self, found: IntentPage) -> None:
        layout, view, intent = self._layout, self._service.view, self._intent
        theme, worker = layout.theme, layout.worker
        share = layout.cache.get(
            ("share", theme, worker, intent),
            (METRICS, INTENT_CATALOG),
            lambda: as_json(intent_share_chart(view, worker, intent, theme)),
        )
        self._share.show(share, f"Share of users over time, now {found.intent.share:.1%}")
        place = layout.cache.get(
            ("place", theme, intent), (INTENT_CATALOG,), lambda: as_json(centers_chart(view, theme, intent))
        )
        self._place.show(place, "Map of the intents, with this one highlighted")
