"""The page of one user."""

from __future__ import annotations

from typing import Final

from monitor.answers import UserView
from monitor.page import presenters
from monitor.page.layout import EVENT_TIME, PageLayout
from monitor.page.widgets import Cell, Table, Text, as_json, box
from monitor.queries import find_user
from stream.schema.events import MAX_ID_BYTES

_ITEMS: Final = 20
_EVENTS: Final = 50
_SHIFTS: Final = 20


class UserPanel:
    """All that the topics say about a user."""

    def __init__(self, layout: PageLayout, user: str) -> None:
        self._layout, self._service, self._user = layout, layout.service, user
        with layout.main, box("section", "panel person", aria_labelledby="h-user"):
            Text("p", "User", "over-title")
            name = Text("h2", user, "who", id="h-user")
            name.props["dir"] = "auto"
            self._summary = Text("p", "", "sub")
            self._build_tables()
            self._build_receipt()
        layout.every_second(self.update)

    def _build_tables(self) -> None:
        with box("div", "pair") as self._known:
            with box("div"):
                Text("h3", "Recommended now")
                self._because = Text("p", "", "sub")
                self._items = Table(
                    "The newest list", ["Place", "Item", "Score"], "No list was published for this user."
                )
            with box("div"):
                Text("h3", "Events")
                self._history = Table(
                    "Newest events first", [EVENT_TIME, "Item", "Action"], "No event is kept.", "scroll"
                )
        with box("div") as self._moved:
            Text("h3", "Intent shifts")
            self._shifts = Table(
                "Shifts, newest first", [EVENT_TIME, "From", "To", "Cause", "Confidence", "Evidence"], "None so far."
            )

    def _build_receipt(self) -> None:
        with box("div") as self._erased:
            Text("h3", "Erased on request")
            self._receipt = Text("p", "", "sub")
            self._remains = Table(
                "What remains of the user, and until when",
                ["What remains", "Until", "Removed about (UTC)"],
                "Nothing remains.",
            )

    def update(self) -> None:
        """Show what the topics say now."""
        valid = 0 < len(self._user.encode("utf-8", "replace")) <= MAX_ID_BYTES
        found = find_user(self._service.view, self._user) if valid else None
        active = found is not None and bool(found.history or found.shifts or found.recommendations)
        self._known.set_visibility(active)
        self._moved.set_visibility(active)
        self._erased.set_visibility(found is not None and found.erased is not None)
        self._summary.show(presenters.user_summary(found))
        if found is not None:
            self._show_tables(found)
            self._show_receipt(found)

    def _show_tables(self, found: UserView) -> None:
        newest = found.recommendations
        if newest is not None:
            self._because.show(
                "Because of " + ", ".join(newest.because)
                if newest.because
                else "No single item of the history stands out."
            )
        items = newest.items[:_ITEMS] if newest is not None else []
        self._items.show(
            as_json([[Cell(str(i)), Cell(one.item), Cell(f"{one.score:.3f}")] for i, one in enumerate(items, 1)])
        )
        history = [
            [Cell(presenters.moment(one.ts), kind="tight"), Cell(one.item), Cell(one.action or "–")]
            for one in found.history[:_EVENTS]
        ]
        self._history.show(as_json(history))
        shifts = presenters.shift_rows(self._service, found.shifts[:_SHIFTS], self._layout.theme, with_user=False)
        self._shifts.show(as_json(shifts))

    def _show_receipt(self, found: UserView) -> None:
        if found.erased is None:
            return
        requested_ms = self._service.view.users.erasure_requested_ms(self._user)
        begin = "" if requested_ms is None else f"Requested at {presenters.moment(requested_ms)} UTC, done"
        self._receipt.show(
            f"{begin or 'Done'} at step {found.erased.step:,}. Removed: {', '.join(found.erased.erased)}."
        )
        self._remains.show(as_json(presenters.remains_rows(found.erased, requested_ms)[:20]))
