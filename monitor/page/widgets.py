"""Small pieces of the page. Text goes in as text, never as HTML: ids come from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from nicegui import ui
from nicegui.elements.echart import EChart
from nicegui.elements.mixins.text_element import TextElement

_to_json = msgspec.json.Encoder().encode


class Text(TextElement):
    """Text in a tag; `show` sends something to the browser only when the text changed."""

    def __init__(self, tag: str, text: str = "", classes: str = "", **props: str) -> None:
        super().__init__(tag=tag, text=text)
        if classes:
            self.classes(classes)
        for name, value in props.items():
            self.props[name.rstrip("_").replace("_", "-")] = value

    def show(self, text: str) -> None:
        """Change the text."""
        if self.text != text:
            self.set_text(text)


def box(tag: str, classes: str = "", **props: str) -> ui.element:
    """An element to put others into."""
    made = ui.element(tag)
    if classes:
        made.classes(classes)
    for name, value in props.items():
        made.props[name.rstrip("_").replace("_", "-")] = value
    return made


def set_prop(element: ui.element, name: str, value: Any) -> None:
    """Change a property if it is another one."""
    if element.props.get(name) != value:
        element.props[name] = value


class Spark:
    """A curve without axes, behind a figure; decoration only."""

    WIDTH, HEIGHT = 120, 28

    def __init__(self) -> None:
        with box("svg", "spark", viewBox=f"0 0 {self.WIDTH} {self.HEIGHT}", aria_hidden="true") as svg:
            svg.props["preserveAspectRatio"] = "none"
            self._line = box("polyline", points="")

    def show(self, points: str) -> None:
        """Draw points made by `polyline`."""
        set_prop(self._line, "points", points)


def polyline(values: Sequence[float], width: int, height: int) -> str:
    """The points of an SVG polyline.

    >>> polyline([0, 1], 10, 6)
    '0.0,5.0 10.0,1.0'
    """
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    scale = (high - low) or 1.0
    step = width / (len(values) - 1)
    return " ".join(f"{i * step:.1f},{height - 1 - (v - low) / scale * (height - 2):.1f}" for i, v in enumerate(values))


class Cell(NamedTuple):
    """What one cell of a table shows: text, a link, a color mark before the text, a CSS class."""

    text: str
    href: str = ""
    mark: str = ""
    kind: str = ""


def as_json(shown: Sequence[Sequence[Cell]] | dict[str, Any]) -> str:
    """Rows as `Table.show` or options as `Chart.show` takes them: once for all viewers."""
    return _to_json(shown).decode()


class Table(ui.element, component="static/rows.js"):
    """A table, or its `empty` text. One element whatever its size: the browser makes the rows."""

    def __init__(self, caption: str, heads: Sequence[str], empty: str, classes: str = "") -> None:
        super().__init__()
        self.classes(classes)
        self.props["caption"] = caption
        self.props["heads"] = _to_json(heads).decode()
        self.props["empty"] = empty
        self.props["rows"] = "[]"

    def show(self, rows: str) -> None:
        """Show rows made by `as_json`."""
        set_prop(self, "rows", rows)


class _Drawing(EChart, component="static/drawing.js"):
    """NiceGUI's chart with its options as one string: nothing walks through them, neither here nor at each sending."""

    def __init__(self, on_click: Callable[[Any], None] | None) -> None:
        super().__init__({}, on_point_click=on_click)
        for name in ("enable-3d", "renderer", "theme"):
            del self.props[name]
        self.props["options"] = '{"series":[]}'


class Chart:
    """An ECharts chart with a description for screen readers."""

    def __init__(self, classes: str, on_click: Callable[[Any], None] | None = None) -> None:
        with box("div", f"chart {classes}", role="img") as self._box:
            self._drawing = _Drawing(on_click)
            self._empty = Text("p", "", "empty over")
        self._empty.set_visibility(False)

    def show(self, options: str, description: str, empty: str = "") -> None:
        """Draw options made by `as_json`; `empty`, when not "", is shown in place of the chart."""
        set_prop(self._box, "aria-label", empty or description)
        if self._empty.visible != bool(empty):
            self._empty.set_visibility(bool(empty))
        self._empty.show(empty)
        set_prop(self._drawing, "options", options)
