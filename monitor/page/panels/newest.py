"""The newest intent shifts and the newest lists."""

from __future__ import annotations

from typing import Final

from monitor.page import presenters
from monitor.page.layout import EVENT_TIME, PageLayout
from monitor.page.widgets import Table, Text, as_json, box
from monitor.queries import newest_shifts
from stream.schema.topics import ERASURES, INTENT_CATALOG, INTENT_SHIFTS, RECOMMENDATIONS

_SHIFTS: Final = 14
_LISTS: Final = 6


class ShiftsPanel:
    """The newest intent shifts of all users."""

    def __init__(self, layout: PageLayout) -> None:
        self._layout = layout
        with box("section", "panel", aria_labelledby="h-shifts"):
            Text("h2", "Latest intent shifts", id="h-shifts")
            Text("p", "Users whose intent changed and stayed changed, the cause, and the items behind it.", "sub")
            self._table = Table(
                "Latest intent shifts, newest first",
                [EVENT_TIME, "User", "From", "To", "Cause", "Confidence", "Evidence"],
                "No shift yet. One is published when a user's new intent holds.",
                "brief",  # six of them on a small screen: newer ones come anyway
            )

    def update(self) -> None:
        """Show the newest shifts."""
        theme, service = self._layout.theme, self._layout.service
        rows = self._layout.cache.get(
            ("shifts", theme),
            (INTENT_SHIFTS, INTENT_CATALOG, ERASURES),
            lambda: as_json(presenters.shift_rows(service, newest_shifts(service.view, _SHIFTS), theme)),
        )
        self._table.show(rows)


class ListsPanel:
    """The newest lists of all users."""

    def __init__(self, layout: PageLayout) -> None:
        self._layout = layout
        with box("section", "panel", aria_labelledby="h-feed"):
            Text("h2", "Newest lists", id="h-feed")
            self._table = Table(
                "Newest lists",
                ["User", "Intent", "First items", "Source"],
                "No list yet. The first events bring lists.",
            )

    def update(self) -> None:
        """Show the newest lists."""
        theme, service = self._layout.theme, self._layout.service
        rows = self._layout.cache.get(
            ("lists", theme),
            (RECOMMENDATIONS, INTENT_CATALOG),
            lambda: as_json(presenters.list_rows(service, theme, _LISTS)),
        )
        self._table.show(rows)
