"""Shares of users: of the largest intents, and of one intent."""

from __future__ import annotations

from typing import Any, Final

from monitor.page.charts import options
from monitor.page.charts.labels import chart_label, intent_label, intent_name
from monitor.page.charts.theme import OTHER, Theme, intent_color
from monitor.page.charts.timeline import Timeline, thin_out, window_of
from monitor.view.records import Sample
from monitor.view.view import View

_LARGEST: Final = 10  # intents with a band of their own; the rest is one band
_SAMPLES: Final = 120
_NAMED_SHARE: Final = 0.035  # of the axis: a thinner band has no room for its name


def shares_chart(view: View, worker: str, window_ms: int, theme: Theme) -> dict[str, Any]:
    """Shares of the largest intents over time, stacked; up to 1 with all others, unless these are most of it."""
    window = window_of(view, worker, window_ms)
    timeline = Timeline(window.points)
    samples: list[Sample] = view.catalog.samples.newest()
    first = window.points[0].step if window.points else 0
    samples = thin_out([s for s in samples if s.step >= first], _SAMPLES) if timeline else []
    chosen = [one.intent for one in view.catalog.intents()[:_LARGEST]]
    moments = [timeline.of_step(s.step) for s in samples]
    shown = sum(samples[-1].intents.get(number, (0.0,))[0] for number in chosen) if samples else 1.0
    whole = shown >= 0.5
    series = [
        _band(view, number, moments, _shares_of(samples, number, chosen), theme, 1.0 if whole else shown)
        for number in ([*chosen, OTHER] if whole else chosen)
    ]
    since, until = (moments[0], moments[-1]) if moments else (window.since, window.until)
    return options.chart(
        grid={"left": 44, "right": 118, "top": 12, "bottom": 28},
        xAxis=options.time_axis(theme, since, until),
        yAxis=options.axis(
            theme, type="value", min=0, **({"max": 1, "interval": 0.25} if whole else {"splitNumber": 4})
        ),
        tooltip=options.tooltip(theme, trigger="axis", order="valueDesc"),
        series=series,
    )


def _shares_of(samples: list[Sample], number: int, chosen: list[int]) -> list[float]:
    if number == OTHER:
        return [sum(values[0] for one, values in s.intents.items() if one not in chosen) for s in samples]
    return [s.intents.get(number, (0.0, 0.0, 0.0))[0] for s in samples]


def _band(
    view: View, number: int, moments: list[int], values: list[float], theme: Theme, axis_end: float
) -> dict[str, Any]:
    intent = view.catalog.by_id.get(number)
    return {
        "type": "line",
        "name": intent_name(intent, number),
        "stack": "shares",
        "showSymbol": False,
        "color": intent_color(number, theme),
        "lineStyle": {"width": 0.75, "color": theme.panel},
        "areaStyle": {"opacity": 0.92},
        "emphasis": {"focus": "series"},
        "endLabel": {
            "show": bool(values) and values[-1] >= _NAMED_SHARE * axis_end,
            "formatter": chart_label(intent_label(intent, number), 15),
            "color": theme.ink,
            "fontSize": 12,
            "fontFamily": options.FONT,
        },
        "data": [[at, round(value, 4)] for at, value in zip(moments, values, strict=True)],
    }


def intent_share_chart(view: View, worker: str, intent: int, theme: Theme) -> dict[str, Any]:
    """One intent's share over time."""
    timeline = Timeline(view.reports.series(worker, 0))
    samples: list[Sample] = view.catalog.samples.newest()
    samples = [s for s in samples if timeline and intent in s.intents]
    moments = [timeline.of_step(s.step) for s in samples]
    return options.chart(
        grid={"left": 44, "right": 12, "top": 12, "bottom": 28},
        xAxis=options.time_axis(theme, moments[0] if moments else 0, moments[-1] if moments else 1),
        yAxis=options.axis(theme, type="value", min=0, splitNumber=3),
        tooltip=options.tooltip(theme, trigger="axis"),
        series=[
            {
                "type": "line",
                "name": "share of users",
                "showSymbol": False,
                "color": intent_color(intent, theme),
                "lineStyle": {"width": 2.25},
                "areaStyle": {"opacity": 0.18},
                "data": [[at, round(s.intents[intent][0], 4)] for at, s in zip(moments, samples, strict=True)],
            }
        ],
    )
