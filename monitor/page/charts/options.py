"""ECharts options that all charts share."""

from __future__ import annotations

from typing import Any, Final

from monitor.page.charts.theme import Theme

FONT: Final = "Roboto, system-ui, sans-serif"


def axis(theme: Theme, **more: Any) -> dict[str, Any]:
    """An axis without a line of its own."""
    return {
        "axisLine": {"show": False},
        "axisTick": {"show": False},
        "axisLabel": {"color": theme.soft, "fontSize": 12, "fontFamily": FONT, "hideOverlap": True},
        "splitLine": {"lineStyle": {"color": theme.line}},
        **more,
    }


def time_axis(theme: Theme, since: int, until: int) -> dict[str, Any]:
    """The time axis from `since` to `until`, epoch milliseconds."""
    made = axis(theme, type="time", min=since, max=max(until, since + 1000), splitNumber=5)
    made["splitLine"] = {"show": False}
    made["axisLine"] = {"show": True, "lineStyle": {"color": theme.line}}
    return made


def tooltip(theme: Theme, **more: Any) -> dict[str, Any]:
    """A tooltip in the page's colors."""
    return {
        "backgroundColor": theme.panel,
        "borderColor": theme.line,
        "textStyle": {"color": theme.ink, "fontFamily": FONT, "fontSize": 13},
        "renderMode": "richText",  # ids come from outside: text on the canvas, never HTML
        "confine": True,
        **more,
    }


def chart(**more: Any) -> dict[str, Any]:
    """A whole chart."""
    return {
        "useUTC": True,  # as all times of the page; the default is the browser's time zone
        "textStyle": {"fontFamily": FONT},
        "animationDuration": 0,
        "animationDurationUpdate": 300,
        **more,
    }
