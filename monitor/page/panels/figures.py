"""The strip of figures at the top of the overview."""

from __future__ import annotations

from monitor.page import presenters
from monitor.page.charts.timeline import WINDOWS, window_of
from monitor.page.layout import PageLayout
from monitor.page.widgets import Spark, Text, box, polyline
from stream.schema.topics import DEAD_LETTERS, METRICS


class FiguresPanel:
    """Pace, backlog, freshness, accuracy and counts, each with its recent curve."""

    def __init__(self, layout: PageLayout) -> None:
        self._layout = layout
        self._tiles = []
        with box("section", "strip", aria_label="Figures"), box("dl"):
            for tile in presenters.tiles(layout.service, [], 0):
                with box("div", "tile"):
                    Text("dt", tile.label)
                    with box("dd"):
                        with box("span", "value"):
                            value = Text("b", tile.value)
                            Text("span", tile.unit, "unit")
                        note = Text("span", tile.note, "note")
                        spark = Spark()
                self._tiles.append((value, note, spark))

    def update(self) -> None:
        """Show the newest figures."""
        layout, lag = self._layout, self._layout.service.health.lag()
        worker, window_ms = layout.worker, WINDOWS[layout.window]
        tiles = layout.cache.get(
            ("tiles", worker, window_ms), (METRICS, DEAD_LETTERS), lambda: self._render(worker, window_ms, lag), lag
        )
        for (value, note, spark), (tile, curve) in zip(self._tiles, tiles, strict=True):
            value.show(tile.value)
            note.show(tile.note)
            spark.show(curve)

    def _render(self, worker: str, window_ms: int, lag: int) -> list[tuple[presenters.Tile, str]]:
        service = self._layout.service
        points = window_of(service.view, worker, window_ms).points
        tiles = presenters.tiles(service, points, lag)
        return [(tile, polyline(tile.curve, Spark.WIDTH, Spark.HEIGHT)) for tile in tiles]
