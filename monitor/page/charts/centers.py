"""The map of the intents' centers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from monitor.page.charts import options
from monitor.page.charts.labels import chart_label, intent_label
from monitor.page.charts.theme import Theme, intent_color
from monitor.view.records import Sample
from monitor.view.view import View
from stream.schema.messages import Intent

_TRAIL: Final = 40
_MANY: Final = 20  # intents above which the map draws short, faint trails: long ones would hide the discs
_TRAIL_OF_MANY: Final = 10
_MAP_NAMES: Final = 14
_LABEL: Final = (0.62, 0.1)  # room of a name on the map, in its own units
_SMALLEST_REACH: Final = 0.25

Trails = dict[int, list[list[float]]]


def centers_chart(view: View, theme: Theme, focus: int | None = None) -> dict[str, Any]:
    """The intents' centers on a fixed map, sized by share, with the paths behind them.

    The projection is the catalog's own, and the axes change in quarters only, so nothing jumps from frame to frame.
    """
    intents = view.catalog.intents()
    samples: list[Sample] = view.catalog.samples.newest(_TRAIL)
    if len(intents) > _MANY and focus is None:
        samples = samples[-_TRAIL_OF_MANY:]
    trails: Trails = {
        one.intent: [list(s.intents[one.intent][1:]) for s in samples if one.intent in s.intents] for one in intents
    }
    extent = _extent(intents, trails)
    hidden = {"type": "value", "min": -extent, "max": extent, "show": False}
    return options.chart(
        animationDurationUpdate=900,
        animationEasingUpdate="linear",
        grid={"left": 8, "right": 8, "top": 8, "bottom": 8, "show": True, "borderColor": theme.line},
        xAxis=hidden,
        yAxis=hidden,
        tooltip={"show": False},
        series=[_trail_series(trails, theme, focus), _disc_series(intents, theme, focus)],
    )


def _place(intent: Intent) -> tuple[float, float]:
    x, y = (intent.position + [0.0, 0.0])[:2]
    return x, y


def _extent(intents: Sequence[Intent], trails: Trails) -> float:
    values = [value for one in intents for value in _place(one)]
    values += [value for trail in trails.values() for point in trail for value in point]
    reach = max([_SMALLEST_REACH, *map(abs, values)])
    return min(1.0, math.ceil(4 * reach) / 4) + 0.08


def _trail_series(trails: Trails, theme: Theme, focus: int | None) -> dict[str, Any]:
    plain = 0.4 if len(trails) > _MANY else 0.65
    data = [
        {
            "coords": trail,
            "lineStyle": {
                "color": intent_color(intent, theme),
                "opacity": plain if focus in (None, intent) else 0.12,
                "width": 2,
            },
        }
        for intent, trail in trails.items()
        if len(trail) > 1
    ]
    return {
        "type": "lines",
        "coordinateSystem": "cartesian2d",
        "polyline": True,
        "silent": True,
        "animation": False,
        "data": data,
    }


def _disc_series(intents: Sequence[Intent], theme: Theme, focus: int | None) -> dict[str, Any]:
    named = _roomy(intents) if focus is None else {focus}
    return {
        "type": "scatter",
        "data": [
            _disc(one, theme, named=one.intent in named, faint=focus not in (None, one.intent)) for one in intents
        ],
        "labelLayout": {"hideOverlap": True},
        "label": {
            "position": "right",
            "color": theme.ink,
            "fontSize": 13,
            "fontFamily": options.FONT,
            "distance": 6,
            "textBorderColor": theme.panel,
            "textBorderWidth": 3,
        },
        "emphasis": {"scale": 1.15},
    }


def _roomy(intents: Sequence[Intent]) -> set[int]:
    """Intents whose names have room on the map, the largest first."""
    named: dict[int, tuple[float, float]] = {}
    for intent in intents:
        x, y = _place(intent)
        free = all(abs(x - other_x) > _LABEL[0] or abs(y - other_y) > _LABEL[1] for other_x, other_y in named.values())
        if free and len(named) < _MAP_NAMES:
            named[intent.intent] = x, y
    return set(named)


def _disc(intent: Intent, theme: Theme, *, named: bool, faint: bool) -> dict[str, Any]:
    return {
        "name": str(intent.intent),
        "value": [*_place(intent), round(intent.share, 4)],
        "symbolSize": round(8 + 64 * math.sqrt(max(0.0, intent.share)), 1),
        "itemStyle": {
            "color": intent_color(intent.intent, theme),
            "opacity": 0.25 if faint else 0.92,
            "borderColor": theme.panel,
            "borderWidth": 1.5,
        },
        "label": {"show": named, "formatter": chart_label(intent_label(intent, intent.intent))},
    }
