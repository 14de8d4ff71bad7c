"""The layout that all pages share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from nicegui import ui
from nicegui.events import GenericEventArguments

from monitor.errors import ViewError
from monitor.page import presenters
from monitor.page.cache import RenderCache
from monitor.page.charts.theme import DARK, LIGHT, Theme
from monitor.page.widgets import Text, box

STATIC: Final = Path(__file__).parent / "static"
DEFAULT_WINDOW: Final = "1 hour"
EVENT_TIME: Final = "Event time (UTC)"  # the stream's own clock, which may be years from the worker's
ICON: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><circle cx="16" cy="16" r="15" fill="#0b7a6b"/>'
    '<path d="M5 20c5-11 8 4 13-5 3-5 5-5 9-2" fill="none" stroke="#fff" stroke-width="2.6" stroke-linecap="round"/>'
    '<circle cx="18" cy="15" r="3.2" fill="#ffd08a"/></svg>'
)
_TICK_S: Final = 1.0


class PageLayout:
    """What every page has: header, search, theme, a live sentence on the worker's health; one timer per viewer."""

    def __init__(self, cache: RenderCache, title: str) -> None:
        self.cache, self.service = cache, cache.service
        self.theme: Theme = LIGHT
        self.window = DEFAULT_WINDOW
        ui.page_title(title)
        ui.add_css((STATIC / "page.css").read_text())
        ui.add_head_html(f"<script>{(STATIC / 'page.js').read_text()}</script>")
        with ui.context.client.layout:  # beside NiceGUI's own <main>, where a banner and a main landmark belong
            with box("div", "page bar") as bar:
                self._header()
        bar.move(target_index=0)
        with ui.column().classes("page"):
            self.main = box("div", "main", id="content")
        with self.main:
            with box("div", "standing", role="status", aria_live="polite") as self._standing:
                box("span", "dot", aria_hidden="true")
                with box("div"):
                    self._headline = Text("h1", "…", "heard")
                    Text("h1", "", "unheard")  # page.js fills it when the connection is lost
                    self._details = Text("p", "", "sub")
        self._state = ""
        self._hidden = False
        self._updates: list[Callable[[], None]] = []
        ui.skip_link("Skip to the figures", target=self.main)
        ui.on("theme", self._on_theme)
        ui.on("hidden", self._on_hidden)
        ui.timer(0.05, lambda: ui.run_javascript("watchTheme()"), once=True)

    def every_second(self, update: Callable[[], None]) -> None:
        """Run `update` now and every second while the page is open."""
        self._updates.append(update)
        if len(self._updates) == 1:
            ui.timer(_TICK_S, self.refresh)

    def refresh(self) -> None:
        """Bring the page up to date; parts that did not change send nothing, and a hidden tab is left alone."""
        if self._hidden:
            return
        self._update_health()
        with contextlib.suppress(ViewError):  # the disk of the view is full, which the headline says
            for update in self._updates:
                update()

    @property
    def worker(self) -> str:
        """The worker whose curves the page shows."""
        report = self.service.view.reports.newest()
        return "" if report is None else report.worker

    def _on_theme(self, event: GenericEventArguments) -> None:
        self.theme = DARK if event.args else LIGHT
        self.refresh()

    def _on_hidden(self, event: GenericEventArguments) -> None:
        self._hidden = bool(event.args)
        self.refresh()

    def _update_health(self) -> None:
        health = self.service.health.check()
        headline = presenters.headline(health, self.service.health.lag())
        self._headline.show(headline.text)
        self._details.show(headline.details)
        state = "good" if not health.problems else ("none" if health.report is None else "bad")
        if health.report is not None and health.state == "recovering":
            state = "busy"
        if state != self._state:
            self._standing.classes(remove=self._state or None, add=state)
            self._state = state

    def _header(self) -> None:
        with box("header", "top"):
            with box("a", "brand", href="/", aria_label="intentstream, overview"):
                ui.html(ICON, sanitize=False).classes("logo").props["aria-hidden"] = "true"
                Text("span", "intentstream")
            with box("form", "lookup", action="/user", method="get", role="search"):
                Text("label", "User", "sr", for_="lookup")
                field = box(
                    "input", id="lookup", name="id", type="search", placeholder="Look up a user id", maxlength="256"
                )
                field.props["required"] = True
                field.props["autocomplete"] = "off"
                Text("button", "Look up", type="submit")
            with box("nav", "links", aria_label="Pages"):
                Text("a", "Overview", href="/")
                Text("a", "API", href="/docs")
                themes = box("select", "theme", aria_label="Colors", onchange="setTheme(this.value)")
                with themes:
                    for value, name in (("auto", "Auto"), ("light", "Light"), ("dark", "Dark")):
                        Text("option", name, value=value)
                ui.timer(
                    0.1,
                    lambda: ui.run_javascript("document.querySelector('select.theme').value = themeNow()"),
                    once=True,
                )
