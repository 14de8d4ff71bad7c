"""The page's charts as ECharts options: pure functions of the view."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np

from monitor.view.records import Point, Sample, thinned
from monitor.view.view import View
from stream.schema.messages import DriftAlert, Intent

WINDOWS: Final = {"15 min": 900_000, "1 hour": 3_600_000, "6 hours": 21_600_000, "2 days": 172_800_000}
_CURVE_POINTS: Final = 300
_SHARES: Final = 10  # intents that have a colour of their own in the shares; the rest is one band
_TRAIL: Final = 40
_MANY: Final = 20  # intents above which the map draws short, faint trails: long ones would hide the discs
_TRAIL_OF_MANY: Final = 10
_MAP_NAMES: Final = 14
_LABEL: Final = (0.62, 0.1)  # room of a name on the map, in its own units
_NAMED_SHARE: Final = 0.035  # of the axis: a thinner band has no room for its name
_FONT: Final = "Roboto, system-ui, sans-serif"
OTHER: Final = -1


class Theme(NamedTuple):
    """Colours of the page that charts need."""

    ink: str
    soft: str
    line: str
    panel: str
    accent: str
    second: str
    third: str
    band: str
    lightness: tuple[float, float, float]  # of intents' colours, OKLCH
    chroma: float


LIGHT: Final = Theme(
    "#1d211c",
    "#5c6359",
    "#d9dad1",
    "#fdfdfa",
    "#0b7a6b",
    "#b4570f",
    "#8a8f86",
    "rgba(214,140,40,0.16)",
    (0.56, 0.68, 0.77),
    0.13,
)
DARK: Final = Theme(
    "#e8ece5",
    "#9ca59b",
    "#2c332f",
    "#161b19",
    "#4fd8c0",
    "#f2ab5c",
    "#7d867e",
    "rgba(242,171,92,0.16)",
    (0.62, 0.74, 0.84),
    0.12,
)


@lru_cache(maxsize=4096)  # every cell and every frame of a chart asks
def colour(intent: int, theme: Theme) -> str:
    """A colour that stays with an intent: hues by the golden angle, three lightnesses in turn.

    >>> colour(3, LIGHT) == colour(3, LIGHT) != colour(4, LIGHT)
    True
    """
    if intent == OTHER:
        return theme.line
    hue = math.radians((intent * 137.508 + 165) % 360)
    light = theme.lightness[intent % 3]
    return _oklch(light, theme.chroma, hue)


def _oklch(light: float, chroma: float, hue: float) -> str:
    """OKLCH as sRGB in hexadecimal, by the matrices of Ottosson (2020)."""
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    long = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (light - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    parts = []
    for value in linear:
        clipped = min(1.0, max(0.0, value))
        encoded = 12.92 * clipped if clipped <= 0.0031308 else 1.055 * clipped ** (1 / 2.4) - 0.055
        parts.append(round(encoded * 255))
    return "#" + "".join(f"{part:02x}" for part in parts)


class Timeline:
    """From steps and event numbers, which messages carry, to the worker's wall clock, which the curves run on."""

    def __init__(self, points: Sequence[Point]) -> None:
        self._ts = np.array([p.ts for p in points], dtype=np.float64)
        self._steps = np.array([p.step for p in points], dtype=np.float64)
        self._events = np.array([p.events for p in points], dtype=np.float64)

    def __bool__(self) -> bool:
        return len(self._ts) > 0

    def of_step(self, step: int) -> int:
        """When a step was made, epoch milliseconds."""
        return int(np.interp(step, self._steps, self._ts))

    def of_event(self, event: int) -> int:
        """When an event of this number was taken, epoch milliseconds."""
        return int(np.interp(event, self._events, self._ts))


def intent_name(intent: Intent | None, number: int | None) -> str:
    """What people call an intent: its name, else its first item, else its number."""
    if number is None:
        return "none"
    if number == OTHER:
        return "all others"
    if intent is None:
        return f"intent {number}"
    if intent.name:
        return intent.name
    return f"{number} · {intent.top_items[0]}" if intent.top_items else f"intent {number}"


def intent_label(intent: Intent | None, number: int | None) -> str:
    """A short name, for a cell or a label: of a list of items the first."""
    return intent_name(intent, number).partition(", ")[0]


def _axis(theme: Theme, **more: Any) -> dict[str, Any]:
    return {
        "axisLine": {"show": False},
        "axisTick": {"show": False},
        "axisLabel": {"color": theme.soft, "fontSize": 12, "fontFamily": _FONT, "hideOverlap": True},
        "splitLine": {"lineStyle": {"color": theme.line}},
        **more,
    }


def _time_axis(theme: Theme, since: int, until: int) -> dict[str, Any]:
    axis = _axis(theme, type="time", min=since, max=max(until, since + 1000), splitNumber=5)
    axis["splitLine"] = {"show": False}
    axis["axisLine"] = {"show": True, "lineStyle": {"color": theme.line}}
    return axis


def _tooltip(theme: Theme, **more: Any) -> dict[str, Any]:
    return {
        "backgroundColor": theme.panel,
        "borderColor": theme.line,
        "textStyle": {"color": theme.ink, "fontFamily": _FONT, "fontSize": 13},
        "renderMode": "richText",  # ids come from outside: text on the canvas, never HTML
        "confine": True,
        **more,
    }


def _base(theme: Theme, **more: Any) -> dict[str, Any]:
    return {
        "useUTC": True,  # as all times of the page; ECharts would take the browser's zone
        "textStyle": {"fontFamily": _FONT},
        "animationDuration": 0,
        "animationDurationUpdate": 300,
        **more,
    }


class Curve(NamedTuple):
    """One line of the accuracy chart."""

    key: str
    name: str
    colour: str
    style: str


def curves(theme: Theme) -> list[Curve]:
    """The lines of the accuracy chart."""
    return [
        Curve("served_hr@10", "served HR@10", theme.accent, "solid"),
        Curve("served_ndcg@10", "served NDCG@10", theme.second, "solid"),
        Curve("prequential_hr@10", "test-then-train HR@10", theme.third, "dashed"),
    ]


def span(view: View, worker: str, window_ms: int) -> tuple[list[Point], int, int]:
    """The worker's reports in the window, and where the window begins and ends."""
    newest = view.workers[worker].ts if worker in view.workers else 0
    points = view.series(worker, newest - window_ms)
    since = max(newest - window_ms, points[0].ts) if points else newest - window_ms
    return points, since, newest


def accuracy(view: View, worker: str, window_ms: int, theme: Theme) -> dict[str, Any]:
    """Served accuracy over time, drift episodes as bands."""
    points, since, until = span(view, worker, window_ms)
    shown = thinned(points, _CURVE_POINTS)
    times = Timeline(points)
    series = [
        {
            "type": "line",
            "name": curve.name,
            "showSymbol": False,
            "color": curve.colour,
            "lineStyle": {"width": 2.25 if curve.style == "solid" else 1.5, "type": curve.style},
            "data": [[p.ts, round(p.gauges[curve.key], 4)] for p in shown if curve.key in p.gauges],
        }
        for curve in curves(theme)
    ]
    series[0]["markArea"] = {
        "silent": False,
        "itemStyle": {"color": theme.band},
        "emphasis": {"disabled": True},
        "label": {"color": theme.soft, "fontSize": 12, "position": "insideTop", "fontFamily": _FONT},
        "data": _bands(view, times, since, until) if times else [],
    }
    return _base(
        theme,
        grid={"left": 44, "right": 12, "top": 16, "bottom": 28},
        xAxis=_time_axis(theme, since, until),
        yAxis=_axis(theme, type="value", min=0, splitNumber=4, scale=False),
        tooltip=_tooltip(theme, trigger="axis", axisPointer={"lineStyle": {"color": theme.soft}}),
        series=series,
    )


def _bands(view: View, times: Timeline, since: int, until: int) -> list[list[dict[str, Any]]]:
    bands: list[list[dict[str, Any]]] = []
    opened: DriftAlert
    for opened, closed in view.episodes()[:50]:
        start = times.of_event(opened.since_event)
        stop = until if closed is None else times.of_event(closed.at_event)
        if stop <= since or start > until or stop <= start:
            continue
        bands.append([{"xAxis": max(start, since), "name": f"#{opened.episode}"}, {"xAxis": min(stop, until)}])
    return bands


def ranked_intents(view: View) -> list[int]:
    """Intents that get a colour of their own in the shares, largest first."""
    return [one.intent for one in view.intents()[:_SHARES]]


def shares(view: View, worker: str, window_ms: int, theme: Theme) -> dict[str, Any]:
    """Shares of the largest intents over time, stacked; up to one with all others, unless these are most of it."""
    points, since, until = span(view, worker, window_ms)
    times = Timeline(points)
    samples: list[Sample] = view.samples.newest()
    first = points[0].step if points else 0
    samples = thinned([s for s in samples if s.step >= first], 120) if times else []
    chosen = ranked_intents(view)
    moments = [times.of_step(s.step) for s in samples]
    series = []
    shown = sum(samples[-1].intents.get(number, (0.0,))[0] for number in chosen) if samples else 1.0
    whole = shown >= 0.5
    for number in [*chosen, OTHER] if whole else chosen:
        if number == OTHER:
            values = [sum(v[0] for i, v in s.intents.items() if i not in chosen) for s in samples]
        else:
            values = [s.intents.get(number, (0.0, 0.0, 0.0))[0] for s in samples]
        series.append(
            {
                "type": "line",
                "name": intent_name(view.catalog.get(number), number),
                "stack": "shares",
                "showSymbol": False,
                "color": colour(number, theme),
                "lineStyle": {"width": 0.75, "color": theme.panel},
                "areaStyle": {"opacity": 0.92},
                "emphasis": {"focus": "series"},
                "endLabel": {
                    "show": bool(values) and values[-1] >= _NAMED_SHARE * (1.0 if whole else shown),
                    "formatter": _short(intent_label(view.catalog.get(number), number), 15),
                    "color": theme.ink,
                    "fontSize": 12,
                    "fontFamily": _FONT,
                },
                "data": [[at, round(value, 4)] for at, value in zip(moments, values, strict=True)],
            }
        )
    return _base(
        theme,
        grid={"left": 44, "right": 118, "top": 12, "bottom": 28},
        xAxis=_time_axis(theme, moments[0] if moments else since, moments[-1] if moments else until),
        yAxis=_axis(theme, type="value", min=0, **({"max": 1, "interval": 0.25} if whole else {"splitNumber": 4})),
        tooltip=_tooltip(theme, trigger="axis", order="valueDesc"),
        series=series,
    )


def centers(view: View, theme: Theme, focus: int | None = None) -> dict[str, Any]:
    """The intents' centers on a fixed map, sized by share, with where they came from.

    The projection is the catalogue's own, and the axes change in quarters only, so nothing jumps from frame to frame.
    """
    samples: list[Sample] = view.samples.newest(_TRAIL)
    intents = view.intents()
    many = len(intents) > _MANY
    if many and focus is None:
        samples = samples[-_TRAIL_OF_MANY:]
    trails = []
    reach = [0.25]
    for intent in intents:
        path = [
            [s.intents[intent.intent][1], s.intents[intent.intent][2]] for s in samples if intent.intent in s.intents
        ]
        reach += [abs(value) for point in path for value in point]
        if len(path) > 1:
            faint = focus is not None and focus != intent.intent
            style = {
                "color": colour(intent.intent, theme),
                "opacity": 0.12 if faint else 0.4 if many else 0.65,
                "width": 2,
            }
            trails.append({"coords": path, "lineStyle": style})
    dots = []
    named_at: list[tuple[float, float]] = []
    for intent in intents:
        x, y = (intent.position + [0.0, 0.0])[:2]
        reach += [abs(x), abs(y)]
        free = all(abs(x - other_x) > _LABEL[0] or abs(y - other_y) > _LABEL[1] for other_x, other_y in named_at)
        named = free and len(named_at) < _MAP_NAMES if focus is None else focus == intent.intent
        if named:
            named_at.append((x, y))
        dots.append(
            {
                "name": str(intent.intent),
                "value": [x, y, round(intent.share, 4)],
                "symbolSize": round(8 + 64 * math.sqrt(max(0.0, intent.share)), 1),
                "itemStyle": {
                    "color": colour(intent.intent, theme),
                    "opacity": 0.92 if focus in (None, intent.intent) else 0.25,
                    "borderColor": theme.panel,
                    "borderWidth": 1.5,
                },
                "label": {"show": named, "formatter": _short(intent_label(intent, intent.intent))},
            }
        )
    extent = min(1.0, math.ceil(4 * max(reach)) / 4) + 0.08
    hidden = {"type": "value", "min": -extent, "max": extent, "show": False}
    return _base(
        theme,
        animationDurationUpdate=900,
        animationEasingUpdate="linear",
        grid={"left": 8, "right": 8, "top": 8, "bottom": 8, "show": True, "borderColor": theme.line},
        xAxis=hidden,
        yAxis=hidden,
        tooltip={"show": False},
        series=[
            {
                "type": "lines",
                "coordinateSystem": "cartesian2d",
                "polyline": True,
                "silent": True,
                "animation": False,
                "data": trails,
            },
            {
                "type": "scatter",
                "data": dots,
                "labelLayout": {"hideOverlap": True},
                "label": {
                    "position": "right",
                    "color": theme.ink,
                    "fontSize": 13,
                    "fontFamily": _FONT,
                    "distance": 6,
                    "textBorderColor": theme.panel,
                    "textBorderWidth": 3,
                },
                "emphasis": {"scale": 1.15},
            },
        ],
    )


def trail(view: View, worker: str, intent: int, theme: Theme) -> dict[str, Any]:
    """One intent's share over time."""
    points = view.series(worker, 0)
    times = Timeline(points)
    samples: list[Sample] = view.samples.newest()
    there = [s for s in samples if times and intent in s.intents]
    moments = [times.of_step(s.step) for s in there]
    data = [[at, round(s.intents[intent][0], 4)] for at, s in zip(moments, there, strict=True)]
    shade = colour(intent, theme)
    return _base(
        theme,
        grid={"left": 44, "right": 12, "top": 12, "bottom": 28},
        xAxis=_time_axis(theme, moments[0] if moments else 0, moments[-1] if moments else 1),
        yAxis=_axis(theme, type="value", min=0, splitNumber=3),
        tooltip=_tooltip(theme, trigger="axis"),
        series=[
            {
                "type": "line",
                "name": "share of users",
                "showSymbol": False,
                "color": shade,
                "lineStyle": {"width": 2.25},
                "areaStyle": {"opacity": 0.18},
                "data": data,
            }
        ],
    )


def _short(text: str, most: int = 22) -> str:
    """A label; braces would be ECharts' own marks."""
    text = text.replace("{", "(").replace("}", ")")
    return text if len(text) <= most else text[: most - 1] + "…"
