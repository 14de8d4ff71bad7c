"""Accuracy over time, and the drift episodes."""

from __future__ import annotations

from monitor.page import presenters
from monitor.page.charts.accuracy import Curve, accuracy_chart, accuracy_curves
from monitor.page.charts.theme import DARK, LIGHT, Theme
from monitor.page.charts.timeline import WINDOWS, Timeline, window_of
from monitor.page.layout import PageLayout
from monitor.page.widgets import Chart, Table, Text, as_json, box, set_prop
from stream.schema.topics import DRIFT_ALERTS, METRICS


class AccuracyPanel:
    """The chart of the served accuracy, with the window of time to choose, and the table of episodes."""

    def __init__(self, layout: PageLayout) -> None:
        self._layout = layout
        with box("section", "panel", aria_labelledby="h-accuracy"):
            with box("div", "head"):
                Text("h2", "Served accuracy", id="h-accuracy")
                with box("div", "chips", role="group", aria_label="Window of time"):
                    self._chips = {}
                    for name in WINDOWS:
                        chip = Text("button", name, "chip", type="button")
                        chip.on("click", lambda _, name=name: self._choose(name))
                        self._chips[name] = chip
            Text(
                "p",
                "How often the list published for a user contained the item that the user took next, over the newest "
                "10,000 events. Bands are drift episodes. The time is the worker's clock, UTC.",
                "sub",
            )
            self._chart = Chart("tall")
            _legend(accuracy_curves(LIGHT), accuracy_curves(DARK))
            Text("h3", "Drift episodes")
            self._episodes = Table(
                "Drift episodes, newest first",
                ["Episode", "State", "Kind", "Signals", "Before → after", "Began", "Action"],
                "No drift so far. An episode opens when the stream's own signals change for good.",
            )
        self._mark_window()

    def _choose(self, window: str) -> None:
        self._layout.window = window
        self._mark_window()
        self._layout.refresh()

    def _mark_window(self) -> None:
        for name, chip in self._chips.items():
            set_prop(chip, "aria-pressed", "true" if name == self._layout.window else "false")

    def update(self) -> None:
        """Show the newest reports and episodes."""
        layout, service = self._layout, self._layout.service
        theme, worker, window_ms = layout.theme, layout.worker, WINDOWS[layout.window]
        topics = (METRICS, DRIFT_ALERTS)
        chart = layout.cache.get(
            ("accuracy", theme, worker, window_ms), topics, lambda: self._render_chart(theme, worker, window_ms)
        )
        self._chart.show(*chart)
        now_ms = service.clock_ms()
        rows = layout.cache.get(
            ("episodes", worker),
            topics,
            lambda: as_json(presenters.episode_rows(service, Timeline(service.view.reports.series(worker, 0)), now_ms)),
            now_ms // 10_000,  # how long ago each began
        )
        self._episodes.show(rows)

    def _render_chart(self, theme: Theme, worker: str, window_ms: int) -> tuple[str, str, str]:
        """The chart, its description, and the text in its place while there is no report."""
        view = self._layout.service.view
        points = window_of(view, worker, window_ms).points
        return (
            as_json(accuracy_chart(view, worker, window_ms, theme)),
            presenters.describe_accuracy(points, len(view.episodes())),
            "" if points else "The curve begins with the worker's first report.",
        )


def _legend(light: list[Curve], dark: list[Curve]) -> None:
    with box("ul", "keys", aria_label="Lines"):
        for one, other in zip(light, dark, strict=True):
            with box("li"):
                key = box("i", f"key {one.style}", aria_hidden="true")
                key.props["style"] = f"--light:{one.color};--dark:{other.color}"
                Text("span", one.name)
