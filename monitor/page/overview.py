"""The overview: everything about the stream, live."""

from __future__ import annotations

from monitor.page.layout import PageLayout
from monitor.page.panels.accuracy import AccuracyPanel
from monitor.page.panels.dead_letters import DeadLettersPanel
from monitor.page.panels.figures import FiguresPanel
from monitor.page.panels.intents import IntentMapPanel, SharesPanel
from monitor.page.panels.newest import ListsPanel, ShiftsPanel
from monitor.page.widgets import box


class Overview:
    """The page that opens first."""

    def __init__(self, layout: PageLayout) -> None:
        with layout.main:
            figures = FiguresPanel(layout)
            accuracy = AccuracyPanel(layout)
            with box("div", "pair"):
                intent_map = IntentMapPanel(layout)
                shares = SharesPanel(layout)
            with box("div", "pair wide-left"):
                shifts = ShiftsPanel(layout)
                letters = DeadLettersPanel(layout)
            lists = ListsPanel(layout)
        for panel in (figures, accuracy, intent_map, shares, shifts, letters, lists):
            layout.every_second(panel.update)
