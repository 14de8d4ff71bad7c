"""Served accuracy over time, with drift episodes."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from monitor.page.charts import options
from monitor.page.charts.theme import Theme
from monitor.page.charts.timeline import Timeline, thin_out, window_of
from monitor.view.view import View

_POINTS: Final = 300
_EPISODES: Final = 50


class Curve(NamedTuple):
    """One line of the accuracy chart."""

    key: str
    name: str
    color: str
    style: str


def accuracy_curves(theme: Theme) -> list[Curve]:
    """The lines of the accuracy chart."""
    return [
        Curve("served_hr@10", "served HR@10", theme.accent, "solid"),
        Curve("served_ndcg@10", "served NDCG@10", theme.second, "solid"),
        Curve("prequential_hr@10", "test-then-train HR@10", theme.third, "dashed"),
    ]


def accuracy_chart(view: View, worker: str, window_ms: int, theme: Theme) -> dict[str, Any]:
    """Served accuracy over time, drift episodes as bands."""
    window = window_of(view, worker, window_ms)
    shown = thin_out(window.points, _POINTS)
    series: list[dict[str, Any]] = [
        {
            "type": "line",
            "name": curve.name,
            "showSymbol": False,
            "color": curve.color,
            "lineStyle": {"width": 2.25 if curve.style == "solid" else 1.5, "type": curve.style},
            "data": [[p.ts, round(p.gauges[curve.key], 4)] for p in shown if curve.key in p.gauges],
        }
        for curve in accuracy_curves(theme)
    ]
    timeline = Timeline(window.points)
    series[0]["markArea"] = {
        "silent": False,
        "itemStyle": {"color": theme.band},
        "emphasis": {"disabled": True},
        "label": {"color": theme.soft, "fontSize": 12, "position": "insideTop", "fontFamily": options.FONT},
        "data": _bands(view, timeline, window.since, window.until) if timeline else [],
    }
    return options.chart(
        grid={"left": 44, "right": 12, "top": 16, "bottom": 28},
        xAxis=options.time_axis(theme, window.since, window.until),
        yAxis=options.axis(theme, type="value", min=0, splitNumber=4, scale=False),
        tooltip=options.tooltip(theme, trigger="axis", axisPointer={"lineStyle": {"color": theme.soft}}),
        series=series,
    )


def _bands(view: View, timeline: Timeline, since: int, until: int) -> list[list[dict[str, Any]]]:
    bands: list[list[dict[str, Any]]] = []
    for episode in view.episodes()[:_EPISODES]:
        start = timeline.of_event(episode.opened.since_event)
        stop = until if episode.closed is None else timeline.of_event(episode.closed.at_event)
        if stop <= since or start > until or stop <= start:
            continue
        name = f"#{episode.opened.episode}"
        bands.append([{"xAxis": max(start, since), "name": name}, {"xAxis": min(stop, until)}])
    return bands
