"""Dead letters: by reason, and one at a time."""

from __future__ import annotations

from bisect import bisect_left

from monitor.page import presenters
from monitor.page.layout import PageLayout
from monitor.page.widgets import Table, Text, as_json, box, set_prop
from monitor.view.records import DeadLetterView
from stream.schema.topics import DEAD_LETTERS, ERASURES


class DeadLettersPanel:
    """The number of dead letters by reason, and the newest ones to leaf through."""

    def __init__(self, layout: PageLayout) -> None:
        self._layout, self._view = layout, layout.service.view
        self._chosen: int | None = None  # offset of the letter on display; None: the newest one
        self._revisions_shown = (-1, -1)  # of the two topics
        with box("section", "panel", aria_labelledby="h-letters"):
            Text("h2", "Dead letters", id="h-letters")
            Text("p", "Records that the worker refused, kept with the reason.", "sub")
            self._reasons = Table(
                "Dead letters by reason",
                ["Reason", "Records", "Rule of the newest"],
                "None. Every record was accepted.",
            )
            with box("div", "letter") as self._letter:
                with box("div", "head"):
                    self._title = Text("h3", "")
                    with box("div", "chips"):
                        self._place = Text("span", "", "sub")
                        self._older = Text("button", "Older", "chip", type="button")
                        self._newer = Text("button", "Newer", "chip", type="button")
                        self._older.on("click", lambda: self._turn(-1))
                        self._newer.on("click", lambda: self._turn(1))
                self._reason = Text("p", "", "sub")
                self._value = Text("pre", "", tabindex="0", aria_label="The record's first bytes")

    def update(self) -> None:
        """Show the newest counts, and the chosen letter."""
        rows = self._layout.cache.get(
            ("reasons",), (DEAD_LETTERS, ERASURES), lambda: as_json(presenters.reason_rows(self._layout.service))
        )
        self._reasons.show(rows)
        revisions = self._view.revision[DEAD_LETTERS], self._view.revision[ERASURES]
        if revisions != self._revisions_shown:
            self._revisions_shown = revisions
            self._show_letter()

    def _turn(self, by: int) -> None:
        letters = self._view.dead_letters.newest()
        if letters:
            place = max(0, min(len(letters) - 1, self._place_in(letters) + by))
            self._chosen = letters[place].offset if place < len(letters) - 1 else None
            self._show_letter()

    def _place_in(self, letters: list[DeadLetterView]) -> int:
        """Index of the chosen letter, or of the next one once the chosen one is no longer kept."""
        if self._chosen is None:
            return len(letters) - 1
        return min(len(letters) - 1, bisect_left(letters, self._chosen, key=lambda one: one.offset))

    def _show_letter(self) -> None:
        letters: list[DeadLetterView] = self._view.dead_letters.newest()
        self._letter.set_visibility(bool(letters))
        if letters:
            place = self._place_in(letters)
            one = letters[place]
            self._place.show(f"{len(letters) - place:,} of {len(letters):,} kept")
            set_prop(self._older, "disabled", place == 0)
            set_prop(self._newer, "disabled", place == len(letters) - 1)
            self._title.show(f"{one.reason.replace('_', ' ')}, {presenters.moment(one.ts)} UTC")
            self._reason.show(
                f"{one.source}. {one.field}: {one.rule}. Found: {one.found or 'nothing'}. {one.size:,} bytes."
            )
            self._value.show(one.value or "(empty)")
