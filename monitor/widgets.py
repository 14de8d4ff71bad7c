"""Small pieces of the page. Text goes in as text, never as HTML: ids come from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement


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

    def show(self, values: Sequence[float]) -> None:
        """Draw the values, oldest first."""
        set_prop(self._line, "points", polyline(values, self.WIDTH, self.HEIGHT))


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
    """What one cell of a table shows: text, where it leads, a colour mark before it, a class."""

    text: str
    href: str = ""
    mark: str = ""
    kind: str = ""


class _ShownCell:
    def __init__(self, tag: str, label: str) -> None:
        with box(tag) as self._box:
            self._box.props["data-label"] = label
            self._mark = box("i", "mark", aria_hidden="true")
            self._text = Text("span")
            self._link = Text("a", classes="link")
        self._now: Cell | None = None

    def show(self, cell: Cell) -> None:
        if cell == self._now:
            return
        before, self._now = self._now, cell
        self._text.show("" if cell.href else cell.text)
        self._link.show(cell.text if cell.href else "")
        self._text.set_visibility(not cell.href)
        self._link.set_visibility(bool(cell.href))
        if cell.href:
            set_prop(self._link, "href", cell.href)
        self._mark.set_visibility(bool(cell.mark))
        if cell.mark:
            set_prop(self._mark, "style", f"background:{cell.mark}")
        worn = before.kind if before is not None else ""
        if cell.kind != worn:
            self._box.classes(cell.kind or None, remove=worn or None)


class Table:
    """A table of up to `rows` rows that are made once and then changed in place; says so when it is empty."""

    def __init__(self, caption: str, heads: Sequence[str], rows: int, empty: str, classes: str = "") -> None:
        with box("div", f"tablebox {classes}"):
            with box("table") as self._table:
                Text("caption", caption, "sr")
                with box("thead"), box("tr"):
                    for head in heads:
                        Text("th", head, scope="col")
                self._rows: list[tuple[ui.element, list[_ShownCell]]] = []
                with box("tbody"):
                    for _ in range(rows):
                        with box("tr") as row:
                            cells = [_ShownCell("th" if i == 0 else "td", head) for i, head in enumerate(heads)]
                            row.set_visibility(False)
                        self._rows.append((row, cells))
            self._empty = Text("p", empty, "empty")
        self._table.set_visibility(False)

    def show(self, rows: Sequence[Sequence[Cell]], empty: str | None = None) -> None:
        """Show these rows, the first ones if there are too many."""
        if empty is not None:
            self._empty.show(empty)
        self._table.set_visibility(bool(rows))
        self._empty.set_visibility(not rows)
        for place, (row, cells) in enumerate(self._rows):
            there = place < len(rows)
            if row.visible != there:
                row.set_visibility(there)
            if there:
                for shown, cell in zip(cells, rows[place], strict=True):
                    shown.show(cell)


class Chart:
    """An ECharts chart with a text that says the same to a screen reader."""

    def __init__(self, classes: str, on_click: Callable[[Any], None] | None = None) -> None:
        with box("div", f"chart {classes}", role="img") as self._box:
            self._chart = ui.echart({"series": []}, on_point_click=on_click)
            self._empty = Text("p", "", "empty over")
        self._empty.set_visibility(False)
        self._shown: Any = None

    def show(self, options: dict[str, Any], says: str, empty: str = "") -> None:
        """Draw; `empty`, when not "", is said in place of the chart."""
        set_prop(self._box, "aria-label", empty or says)
        self._empty.set_visibility(bool(empty))
        self._empty.show(empty)
        if options is not self._shown:
            self._shown = options
            self._chart.options.clear()
            self._chart.options.update(options)
            self._chart.update()
