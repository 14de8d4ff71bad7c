"""The page: an overview that moves, a page per user, a page per intent. NiceGUI; every asset is on this machine."""

from __future__ import annotations

import re
import warnings
from bisect import bisect_left
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any, Final, TypeVar

from fastapi import FastAPI
from nicegui import app as nicegui_app
from nicegui import ui
from nicegui.events import GenericEventArguments
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from monitor.http.middleware import COOKIE, local_path, same, session_value
from monitor.http.problems import Problem
from monitor.page import presenters
from monitor.page.charts import centers as charts
from monitor.page.charts.centers import DARK, LIGHT, WINDOWS, Theme, Timeline
from monitor.page.widgets import Cell, Chart, Spark, Table, Text, as_json, box, polyline, set_prop
from monitor.service import Service
from monitor.view.records import DeadLetter
from stream.schema.topics import (
    DEAD_LETTERS,
    DRIFT_ALERTS,
    ERASURES,
    INTENT_CATALOG,
    INTENT_SHIFTS,
    METRICS,
    RECOMMENDATIONS,
)

_STATIC: Final = Path(__file__).parent / "static"
_TICK_S: Final = 1.0
_DEFAULT_WINDOW: Final = "1 hour"
_SHIFTS: Final = 14
_INTENTS: Final = 24
_EVENT_TIME: Final = "Event time (UTC)"  # the stream's own clock, which may be years from the worker's
_ICON: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><circle cx="16" cy="16" r="15" fill="#0b7a6b"/>'
    '<path d="M5 20c5-11 8 4 13-5 3-5 5-5 9-2" fill="none" stroke="#fff" stroke-width="2.6" stroke-linecap="round"/>'
    '<circle cx="18" cy="15" r="3.2" fill="#ffd08a"/></svg>'
)


_T = TypeVar("_T")


class RenderCache:
    """What the page shows is made, and turned into JSON, once per change for all with the same theme and window."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._made: dict[tuple[Any, ...], tuple[tuple[int, ...], Any]] = {}

    def get(self, key: tuple[Any, ...], topics: tuple[str, ...], make: Callable[[], _T], beside: int = 0) -> _T:
        """What `make` makes under this key; the same object while none of the topics brought anything.

        `beside` is what else it depends on.
        """
        revision = (beside, *(self.service.view.revision[topic] for topic in topics))
        found = self._made.get(key)
        if found is not None and found[0] == revision:
            kept: _T = found[1]
            return kept
        if len(self._made) > 64:
            self._made.clear()
        made = make()
        self._made[key] = (revision, made)
        return made


class PageLayout:
    """What every page has: header, look-up, theme, a live sentence on how things stand; one timer per viewer."""

    def __init__(self, shared: RenderCache, title: str) -> None:
        self.shared, self.service = shared, shared.service
        self.theme: Theme = LIGHT
        self.window = _DEFAULT_WINDOW
        ui.page_title(title)
        ui.add_css((_STATIC / "page.css").read_text())
        ui.add_head_html(f"<script>{(_STATIC / 'page.js').read_text()}</script>")
        with ui.context.client.layout:  # beside NiceGUI's own <main>, where a banner and a main landmark belong
            with box("div", "page bar") as bar:
                self._header()
        bar.move(target_index=0)
        with ui.column().classes("page"):
            self.main = box("div", "main", id="content")
        with self.main:
            with box("div", "standing", role="status", aria_live="polite") as self._standing:
                box("span", "dot", aria_hidden="true")
                with box("div"):
                    self._first = Text("h1", "…", "heard")
                    Text("h1", "", "unheard")  # page.js fills it when the connection is lost
                    self._second = Text("p", "", "sub")
        self._state = ""
        self._hidden = False
        self._updates: list[Callable[[], None]] = []
        ui.skip_link("Skip to the figures", target=self.main)
        ui.on("theme", self._themed)
        ui.on("hidden", self._hid)
        ui.timer(0.05, lambda: ui.run_javascript("watchTheme()"), once=True)

    def every_second(self, update: Callable[[], None]) -> None:
        """Run `update` now and every second while the page is open."""
        self._updates.append(update)
        if len(self._updates) == 1:
            ui.timer(_TICK_S, self.refresh)

    def refresh(self) -> None:
        """Bring the page up to date; what did not change sends nothing, and nobody looks at a hidden tab."""
        if self._hidden:
            return
        self._stand()
        for update in self._updates:
            update()

    @property
    def worker(self) -> str:
        """The worker whose curves are shown."""
        report = self.service.view.report()
        return "" if report is None else report.worker

    def _themed(self, event: GenericEventArguments) -> None:
        self.theme = DARK if event.args else LIGHT
        self.refresh()

    def _hid(self, event: GenericEventArguments) -> None:
        self._hidden = bool(event.args)
        self.refresh()

    def _stand(self) -> None:
        health = self.service.health()
        first, second = presenters.headline(health, self.service.lag())
        self._first.show(first)
        self._second.show(second)
        state = "good" if not health.problems else ("none" if health.report is None else "bad")
        if health.report is not None and health.state == "recovering":
            state = "busy"
        if state != self._state:
            self._standing.classes(remove=self._state or None, add=state)
            self._state = state

    def _header(self) -> None:
        with box("header", "top"):
            with box("a", "brand", href="/", aria_label="intentstream, overview"):
                ui.html(_ICON, sanitize=False).classes("logo").props["aria-hidden"] = "true"
                Text("span", "intentstream")
            with box("form", "lookup", action="/user", method="get", role="search"):
                Text("label", "User", "sr", for_="lookup")
                field = box(
                    "input", id="lookup", name="id", type="search", placeholder="Look up a user id", maxlength="256"
                )
                field.props["required"] = True
                field.props["autocomplete"] = "off"
                Text("button", "Look up", type="submit")
            with box("nav", "links", aria_label="Pages"):
                Text("a", "Overview", href="/")
                Text("a", "API", href="/docs")
                themes = box("select", "theme", aria_label="Colours", onchange="setTheme(this.value)")
                with themes:
                    for value, name in (("auto", "Auto"), ("light", "Light"), ("dark", "Dark")):
                        Text("option", name, value=value)
                ui.timer(
                    0.1,
                    lambda: ui.run_javascript("document.querySelector('select.theme').value = themeNow()"),
                    once=True,
                )


class Overview:
    """The page that opens."""

    def __init__(self, shell: PageLayout) -> None:
        self._shell, self._service = shell, shell.service
        self._letter: int | None = None  # offset of the letter that is looked at; None: the newest one
        self._letters_shown = (-1, -1)  # revisions of the topics
        with shell.main:
            self._strip()
            self._accuracy()
            with box("div", "pair"):
                self._map()
                self._shares()
            with box("div", "pair wide-left"):
                self._shifts()
                self._letters()
            self._feed()
        shell.every_second(self.update)

    def _strip(self) -> None:
        self._tiles = []
        with box("section", "strip", aria_label="Figures"), box("dl"):
            for tile in presenters.tiles(self._service, [], 0):
                with box("div", "tile"):
                    Text("dt", tile.label)
                    with box("dd"):
                        with box("span", "value"):
                            value = Text("b", tile.value)
                            Text("span", tile.unit, "unit")
                        note = Text("span", tile.note, "note")
                        spark = Spark()
                self._tiles.append((value, note, spark))

    def _accuracy(self) -> None:
        with box("section", "panel", aria_labelledby="h-accuracy"):
            with box("div", "head"):
                Text("h2", "Is it any good? Served accuracy", id="h-accuracy")
                with box("div", "chips", role="group", aria_label="Time shown"):
                    self._chips = {}
                    for name in WINDOWS:
                        chip = Text("button", name, "chip", type="button")
                        chip.on("click", lambda _, name=name: self._choose(name))
                        self._chips[name] = chip
            Text(
                "p",
                "How often the item that a user took stood in the list published for them, over the newest 10,000 "
                "events. Bands are drift episodes. The time is the worker's clock, UTC.",
                "sub",
            )
            self._accuracy_chart = Chart("tall")
            self._keys(charts.curves(LIGHT), charts.curves(DARK))
            Text("h3", "Drift episodes")
            self._episodes = Table(
                "Drift episodes, newest first",
                ["Episode", "State", "Kind", "Signals", "Before → after", "Began", "What was done"],
                "No drift so far. An episode opens when the stream's own signals change for good.",
            )
        self._mark_window()

    @staticmethod
    def _keys(light: list[charts.Curve], dark: list[charts.Curve]) -> None:
        with box("ul", "keys", aria_label="Lines"):
            for one, other in zip(light, dark, strict=True):
                with box("li"):
                    key = box("i", f"key {one.style}", aria_hidden="true")
                    key.props["style"] = f"--light:{one.colour};--dark:{other.colour}"
                    Text("span", one.name)

    def _choose(self, window: str) -> None:
        self._shell.window = window
        self._mark_window()
        self._shell.refresh()

    def _mark_window(self) -> None:
        for name, chip in self._chips.items():
            set_prop(chip, "aria-pressed", "true" if name == self._shell.window else "false")

    def _map(self) -> None:
        with box("section", "panel", aria_labelledby="h-map"):
            Text("h2", "Where the intents are", id="h-map")
            Text(
                "p",
                "Each disc is an intent's center, its size the share of users; the line is where it came from.",
                "sub",
            )
            self._centers = Chart("square", on_click=lambda e: ui.navigate.to(f"/intent/{int(e.name)}"))
            with box("details"):
                Text("summary", "As a table")
                self._intents = Table(
                    "Intents, largest first", ["Intent", "Users", "Speed", "Top items"], "No intents yet."
                )

    def _shares(self) -> None:
        with box("section", "panel", aria_labelledby="h-shares"):
            Text("h2", "What people are after", id="h-shares")
            Text(
                "p",
                "Share of the recently active users in each of the largest intents. The worker's clock, UTC.",
                "sub",
            )
            self._share_chart = Chart("square")

    def _shifts(self) -> None:
        with box("section", "panel", aria_labelledby="h-shifts"):
            Text("h2", "Latest intent shifts", id="h-shifts")
            Text("p", "Users whose intent changed and held, why, and the items that moved them.", "sub")
            self._shift_table = Table(
                "Latest intent shifts, newest first",
                [_EVENT_TIME, "User", "From", "To", "Cause", "Sure", "Evidence"],
                "No shift yet. One is published when a user's new intent holds.",
                "brief",  # six of them on a small screen: newer ones come anyway
            )

    def _letters(self) -> None:
        with box("section", "panel", aria_labelledby="h-letters"):
            Text("h2", "Dead letters", id="h-letters")
            Text("p", "Records that could not be taken, kept with the reason.", "sub")
            self._reasons = Table(
                "Dead letters by reason",
                ["Reason", "Records", "Newest one's rule"],
                "None. Every record could be read.",
            )
            with box("div", "letter") as self._letter_box:
                with box("div", "head"):
                    self._letter_title = Text("h3", "")
                    with box("div", "chips"):
                        self._letter_place = Text("span", "", "sub")
                        self._older = Text("button", "Older", "chip", type="button")
                        self._newer = Text("button", "Newer", "chip", type="button")
                        self._older.on("click", lambda: self._turn(-1))
                        self._newer.on("click", lambda: self._turn(1))
                self._letter_why = Text("p", "", "sub")
                self._letter_value = Text("pre", "", tabindex="0", aria_label="The record's first bytes")

    def _turn(self, by: int) -> None:
        letters = self._service.view.dead_letters.newest()
        if letters:
            place = max(0, min(len(letters) - 1, self._place(letters) + by))
            self._letter = letters[place].offset if place < len(letters) - 1 else None
            self._show_letter()

    def _place(self, letters: list[DeadLetter]) -> int:
        """Where the letter that is looked at is now: others come and go; the next one if it is itself gone."""
        if self._letter is None:
            return len(letters) - 1
        return min(len(letters) - 1, bisect_left(letters, self._letter, key=lambda one: one.offset))

    def _feed(self) -> None:
        with box("section", "panel", aria_labelledby="h-feed"):
            Text("h2", "Lists just published", id="h-feed")
            self._feed_table = Table(
                "Newest lists",
                ["User", "Intent", "First items", "Carried by"],
                "No list yet. The first events bring them.",
            )

    def update(self) -> None:
        """Show what the view has now."""
        shell, service, view = self._shell, self._service, self._service.view
        theme, worker, window = shell.theme, shell.worker, WINDOWS[shell.window]
        get = shell.shared.get
        key = (theme, worker, window)
        lag = service.lag()
        tiles = get(
            ("tiles", worker, window),
            (METRICS, INTENT_CATALOG, DEAD_LETTERS),
            lambda: [
                (tile, polyline(tile.curve, Spark.WIDTH, Spark.HEIGHT))
                for tile in presenters.tiles(service, charts.span(view, worker, window)[0], lag)
            ],
            lag,
        )
        for (value, note, spark), (tile, curve) in zip(self._tiles, tiles, strict=True):
            value.show(tile.value)
            note.show(tile.note)
            spark.show(curve)
        self._accuracy_chart.show(*get(("accuracy", *key), (METRICS, DRIFT_ALERTS), lambda: self._made(*key)))
        self._episodes.show(
            get(
                ("episodes", worker),
                (METRICS, DRIFT_ALERTS),
                lambda: as_json(presenters.episode_rows(service, Timeline(view.series(worker, 0)), service.clock_ms())),
                service.clock_ms() // 10_000,  # how long ago each began
            )
        )
        nothing = "" if view.catalog else "No intents yet. The worker publishes its catalogue as it learns."
        self._centers.show(
            get(("centers", theme), (INTENT_CATALOG,), lambda: as_json(charts.centers(view, theme))),
            f"Map of {len(view.catalog)} intents; {_table_says(len(view.catalog))} in the table below.",
            nothing,
        )
        self._intents.show(
            get(
                ("intents", theme), (INTENT_CATALOG,), lambda: as_json(presenters.intent_rows(service, theme, _INTENTS))
            )
        )
        self._share_chart.show(
            *get(
                ("shares", *key),
                (METRICS, INTENT_CATALOG),
                lambda: (as_json(charts.shares(view, worker, window, theme)), presenters.shares_say(view)),
            ),
            nothing,
        )
        self._shift_table.show(
            get(
                ("shifts", theme),
                (INTENT_SHIFTS, INTENT_CATALOG, ERASURES),
                lambda: as_json(presenters.shift_rows(service, presenters.newest_shifts(service, _SHIFTS), theme)),
            )
        )
        self._reasons.show(
            get(("reasons",), (DEAD_LETTERS, ERASURES), lambda: as_json(presenters.reason_rows(service)))
        )
        letters = view.revision[DEAD_LETTERS], view.revision[ERASURES]
        if letters != self._letters_shown:
            self._letters_shown = letters
            self._show_letter()
        self._feed_table.show(
            get(
                ("feed", theme),
                (RECOMMENDATIONS, INTENT_CATALOG),
                lambda: as_json(presenters.feed_rows(service, theme, 6)),
            )
        )

    def _made(self, theme: Theme, worker: str, window_ms: int) -> tuple[str, str, str]:
        """The accuracy chart, what it says, and what is said in its place."""
        view = self._service.view
        points, _, _ = charts.span(view, worker, window_ms)
        return (
            as_json(charts.accuracy(view, worker, window_ms, theme)),
            presenters.accuracy_says(points, len(view.episodes())),
            "" if points else "The curve begins with the worker's first report.",
        )

    def _show_letter(self) -> None:
        letters = self._service.view.dead_letters.newest()
        self._letter_box.set_visibility(bool(letters))
        if letters:
            place = self._place(letters)
            one = letters[place]
            self._letter_place.show(f"{len(letters) - place:,} of {len(letters):,} kept")
            set_prop(self._older, "disabled", place == 0)
            set_prop(self._newer, "disabled", place == len(letters) - 1)
            self._letter_title.show(f"{one.reason.replace('_', ' ')}, {presenters.moment(one.ts)} UTC")
            self._letter_why.show(
                f"{one.source}. {one.field}: {one.rule}. Found: {one.found or 'nothing'}. {one.size:,} bytes."
            )
            self._letter_value.show(one.value or "(empty)")


def _table_says(intents: int) -> str:
    return "the same is" if intents <= _INTENTS else f"the {_INTENTS} largest are"


def user_page(shell: PageLayout, user: str) -> None:
    """All that the topics say about a user."""
    from monitor.app import look_up

    service = shell.service
    with shell.main:
        with box("section", "panel person", aria_labelledby="h-user"):
            Text("p", "User", "over-title")
            name = Text("h2", user, "who", id="h-user")
            name.props["dir"] = "auto"
            intro = Text("p", "", "sub")
            with box("div", "pair") as known:
                with box("div"):
                    Text("h3", "Recommended now")
                    because = Text("p", "", "sub")
                    items = Table("The newest list", ["Place", "Item", "Score"], "No list was published for this user.")
                with box("div"):
                    Text("h3", "What the user did")
                    history = Table(
                        "Newest events first", [_EVENT_TIME, "Item", "Action"], "No event is kept.", "scroll"
                    )
            with box("div") as moved:
                Text("h3", "Intent shifts")
                shifts = Table(
                    "Shifts, newest first",
                    [_EVENT_TIME, "From", "To", "Cause", "Sure", "Evidence"],
                    "None so far.",
                )
            with box("div") as receipt_box:
                Text("h3", "Erased on request")
                receipt = Text("p", "", "sub")
                remains = Table(
                    "What remains of the user, and until when",
                    ["What remains", "Until", "Gone about (UTC)"],
                    "Nothing remains.",
                )

    def update() -> None:
        found = look_up(service, user) if 0 < len(user.encode("utf-8", "replace")) <= 256 else None
        there = found is not None and bool(found.history or found.shifts or found.recommendations)
        known.set_visibility(there)
        moved.set_visibility(there)
        receipt_box.set_visibility(found is not None and found.erased is not None)
        if found is None:
            intro.show(
                "The topics say nothing about this user. Ids are compared byte by byte; "
                "a list comes with the user's first event."
            )
            return
        newest = found.recommendations
        if newest is None and found.history:
            intro.show("Events are there, but no list yet.")
        elif newest is None and found.erased is not None:
            intro.show("This user was erased, and no event has come since.")
        elif newest is None:
            intro.show("No list and no event of this user is kept, only shifts.")
        else:
            intent = charts.intent_name(found.intent, newest.intent)
            carried = {"model": "the model", "intent": "the intent's items", "popular": "the popular items"}[
                newest.source
            ]
            intro.show(
                f"Intent: {intent}. List carried by {carried}, as of event time "
                f"{presenters.moment(newest.as_of.ts)} UTC, "
                f"step {newest.step:,}."
            )
            because.show(
                "Because of " + ", ".join(newest.because)
                if newest.because
                else "No single item of the history stands out."
            )
        rows = newest.items if newest else []
        items.show(
            as_json([[Cell(str(i)), Cell(one.item), Cell(f"{one.score:.3f}")] for i, one in enumerate(rows[:20], 1)])
        )
        history.show(
            as_json(
                [
                    [Cell(presenters.moment(one.ts), kind="tight"), Cell(one.item), Cell(one.action or "–")]
                    for one in found.history[:50]
                ]
            )
        )
        shifts.show(as_json(presenters.shift_rows(service, found.shifts[:20], shell.theme, with_user=False)))
        if found.erased is not None:
            asked_ms = service.view.erasure_asked_ms(user)
            asked = "" if asked_ms is None else f"Asked for at {presenters.moment(asked_ms)} UTC, done"
            receipt.show(f"{asked or 'Done'} at step {found.erased.step:,}. Gone: {', '.join(found.erased.erased)}.")
            remains.show(as_json(presenters.remains_rows(found.erased, asked_ms)[:20]))

    shell.every_second(update)


def intent_page(shell: PageLayout, intent: int) -> None:
    """One intent: what it is, how large, where it moves, who comes and goes."""
    from monitor.app import intent_page as look

    service, view = shell.service, shell.service.view
    with shell.main:
        with box("section", "panel", aria_labelledby="h-intent"):
            Text("p", f"Intent {intent}", "over-title")
            name = Text("h2", "", "who", id="h-intent")
            intro = Text("p", "", "sub")
            with box("div") as known:
                with box("div", "pair"):
                    with box("div"):
                        Text("h3", "Share of users (the worker's clock, UTC)")
                        share = Chart("square")
                    with box("div"):
                        Text("h3", "Where it is")
                        place = Chart("square", on_click=lambda e: ui.navigate.to(f"/intent/{int(e.name)}"))
                with box("div", "pair wide-left"):
                    with box("div"):
                        Text("h3", "Users who came or went")
                        shifts = Table(
                            "Shifts to and from this intent, newest first",
                            [_EVENT_TIME, "User", "From", "To", "Cause", "Sure", "Evidence"],
                            "None among the newest shifts.",
                        )
                    with box("div"):
                        Text("h3", "Top items")
                        items = Table("Top items", ["Place", "Item"], "None.")

    def update() -> None:
        found = look(service, intent)
        known.set_visibility(found is not None)
        if found is None:
            name.show("Not in the catalogue")
            intro.show("This intent was retired, or never born. Its number is not used again.")
            return
        one = found.intent
        name.show(charts.intent_name(one, intent))
        intro.show(
            f"{one.share:.1%} of the active users. Distance to the nearest other center {one.separation:.2f}, "
            f"speed {one.speed:.3f} per 1,000 events; "
            + (f"born after {one.born_at:,} records." if one.born_at else "there from the start.")
        )
        get, theme, worker = shell.shared.get, shell.theme, shell.worker
        share.show(
            get(
                ("trail", theme, worker, intent),
                (METRICS, INTENT_CATALOG),
                lambda: as_json(charts.trail(view, worker, intent, theme)),
            ),
            f"Share of users over time, now {one.share:.1%}",
        )
        place.show(
            get(("place", theme, intent), (INTENT_CATALOG,), lambda: as_json(charts.centers(view, theme, intent))),
            "Map of the intents with this one marked",
        )
        shifts.show(as_json(presenters.shift_rows(service, found.shifts[:15], theme)))
        items.show(as_json([[Cell(str(i)), Cell(item)] for i, item in enumerate(one.top_items[:20], 1)]))

    shell.every_second(update)


class _Fallback:
    """Before NiceGUI: a path of the API with another method is 405, not a page that is not found."""

    def __init__(self, inner: ASGIApp, routes: list[Route]) -> None:
        self._inner = inner
        self._routes = [(route.path_regex, route.methods or set()) for route in routes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            problem = self._problem(scope)
            if problem is not None:
                await problem.response()(scope, receive, send)
                return
        await self._inner(scope, receive, send)

    def _problem(self, scope: Scope) -> Problem | None:
        methods: set[str] = set()
        for regex, allowed in self._routes:
            if regex.match(scope["path"]):
                methods |= allowed
        if methods:
            return Problem(405, f"{scope['method']} is not possible here", {"allow": ", ".join(sorted(methods))})
        if re.fullmatch(r"/|/user|/intent/\d{1,1000}|/_nicegui.*", scope["path"]):
            return None
        return Problem(404, "there is nothing under this path; /docs says what there is")


def add_page(app: FastAPI, service: Service) -> None:
    """Put the page into the application; once per process."""
    shared = RenderCache(service)
    api_routes = [route for route in app.routes if isinstance(route, Route)]

    @ui.page("/", title="intentstream", language="en-US")
    def overview() -> None:
        shell = PageLayout(shared, "intentstream")
        Overview(shell)
        shell.refresh()

    @ui.page("/user", language="en-US")
    def user(id: str = "") -> None:
        shell = PageLayout(shared, f"{id[:60]} · intentstream")
        user_page(shell, id)
        shell.refresh()

    @ui.page("/intent/{intent}", language="en-US")
    def one_intent(intent: int) -> None:
        shell = PageLayout(shared, f"intent {str(intent)[:20]} · intentstream")
        intent_page(shell, intent)
        shell.refresh()

    _login(app, service)
    # At its start NiceGUI asks every object of the process for its class, and a deprecated one of torch answers aloud.
    warnings.filterwarnings("ignore", message=".*torch.distributed.reduce_op.*", category=FutureWarning)
    ui.run_with(
        app,
        title="intentstream",
        favicon=_ICON,
        dark=None,
        language="en-US",
        tailwind=False,
        show_welcome_message=False,
        binding_refresh_interval=None,
    )
    mount = app.routes[-1]
    assert isinstance(mount, Mount) and mount.app is nicegui_app
    mount.app = _Fallback(nicegui_app, api_routes)


def _login(app: FastAPI, service: Service) -> None:
    token = service.config.token

    def form(note: str, next_path: str) -> str:
        text = (_STATIC / "login.html").read_text().replace("{note}", note)
        return text.replace("{next}", escape(local_path(next_path)))

    @app.get("/login", include_in_schema=False)
    async def login(request: Request) -> Response:
        return HTMLResponse(form("", request.query_params.get("next", "/")))

    @app.post("/login", include_in_schema=False)
    async def enter(request: Request) -> Response:
        sent = await request.form(max_fields=4, max_files=0)
        given, next_path = sent.get("token"), str(sent.get("next", "/"))
        if not token or not isinstance(given, str) or not same(given.strip(), token):
            return HTMLResponse(form('<p role="alert">That is not the token.</p>', next_path), 401)
        answer = RedirectResponse(local_path(next_path), 303)
        secure = request.url.scheme == "https"
        answer.set_cookie(
            COOKIE, session_value(token), httponly=True, samesite="strict", secure=secure, max_age=7 * 86_400
        )
        return answer
