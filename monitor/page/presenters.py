"""What the page says, as text: pure functions of the service, the same for every viewer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote

from monitor.page.charts.centers import Theme, Timeline, colour, intent_label
from monitor.page.widgets import Cell
from monitor.service import Health, Service
from monitor.view.records import Point, thinned
from monitor.view.view import View
from stream.schema.messages import ErasureReceipt, IntentShift
from stream.schema.topics import topic_specs

ACTIONS = {
    "none": "nothing was done",
    "more_steps": "more learning steps",
    "higher_rate": "a higher learning rate for a while",
    "fresh_replay": "only what came since is learned again, for a while",
    "faster_decay": "popularity fades faster for a while",
    "fade_followers": "what followed items before counts less",
    "more_followers": "more of the items before an event count, for a while",
    "reseed": "intents re-seeded",
}
_SHORT_ID = 16
CAUSES = {"user": "the user moved", "model": "the model moved"}


class Tile(NamedTuple):
    """One figure of the strip."""

    label: str
    value: str
    unit: str
    note: str
    curve: list[float]


def number(value: float, digits: int = 0) -> str:
    """A figure for people.

    >>> number(12345.6), number(1234567), number(0.1234, 3)
    ('12,346', '1.23 M', '0.123')
    """
    if abs(value) >= 1e6:
        return f"{value / 1e6:.2f} M"
    return f"{value:,.{digits}f}"


def duration(seconds: float) -> str:
    """How long something takes or is ago.

    >>> duration(0.4), duration(75), duration(7300), duration(200_000)
    ('0 s', '75 s', '2 h', '2 days')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86_400:.0f} days"


def moment(ts_ms: int) -> str:
    """A time of the stream, UTC.

    >>> moment(1767225600000)
    '2026-01-01 00:00:00'
    """
    try:
        return datetime.fromtimestamp(ts_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(ts_ms)


def user_url(user: str) -> str:
    """The page of a user."""
    return f"/user?id={quote(user, safe='')}"


def headline(health: Health, lag: int) -> tuple[str, str]:
    """How things stand, in words: a sentence, and what to do or know."""
    report = health.report
    if report is None:
        return (
            "Nothing has arrived yet.",
            "Start a worker on this log: “intentstream run” brings a simulated shop, “intentstream replay FILE” your "
            "own events, POST /events single ones.",
        )
    if health.state == "gone":
        return (
            f"No word from the worker for {duration(health.age_s)}.",
            "It is gone or hangs. Everything below is as of its last report. Look at its log, then start it again: it "
            "goes on where it was.",
        )
    if health.state == "stopped":
        return (
            f"The worker was stopped in order {duration(health.age_s)} ago.",
            "Everything below is as of then. Start it and it goes on where it was.",
        )
    if health.state == "recovering":
        return (
            "The worker is recovering.",
            f"It redoes what came after its last checkpoint; now at step {report.step:,}.",
        )
    rate = report.gauges.get("events_per_second", 0.0)
    fresh = report.gauges.get("freshness_p50_ms")
    first = "Waiting for events." if rate < 0.05 else f"Learning from {number(rate)} events a second."
    waits = "Nothing waits" if lag < 1000 else f"{lag:,} records wait"
    lists = f"; a new list is out {number(fresh)} ms after an event." if fresh else "."
    other = [p for p in health.problems if "records wait for the worker" not in p]
    return first, waits + lists + (" But " + "; ".join(other) + "." if other else "")


def tiles(service: Service, points: list[Point], lag: int) -> list[Tile]:
    """The strip of figures."""
    view = service.view
    report = view.report()
    gauge = report.gauges if report else {}
    count = report.counters if report else {}
    thin = thinned(points[-120:], 60)

    def curve(key: str) -> list[float]:
        return [p.gauges[key] for p in thin if key in p.gauges]

    def show(key: str, digits: int = 0, scale: float = 1.0) -> str:
        return number(gauge[key] * scale, digits) if key in gauge else "–"

    refused = sum(view.reasons.values())
    return [
        Tile(
            "Events",
            show("events_per_second"),
            "a second",
            f"{number(count.get('events', 0))} so far",
            curve("events_per_second"),
        ),
        Tile("Waiting", number(lag) if report else "–", "records", "not yet read by the worker", curve("lag")),
        Tile(
            "Freshness",
            show("freshness_p50_ms"),
            "ms",
            f"event to list; p99 {show('freshness_p99_ms')} ms",
            curve("freshness_p50_ms"),
        ),
        Tile(
            "Served HR@10", show("served_hr@10", 3), "", f"NDCG@10 {show('served_ndcg@10', 3)}", curve("served_hr@10")
        ),
        Tile(
            "Intents in use",
            show("intents_effective", 1),
            "effective",
            f"{len(view.catalog)} in the catalogue",
            curve("intents_effective"),
        ),
        Tile("Users", number(count.get("users", 0)) if report else "–", "", f"{show('items')} items known", []),
        Tile("Dead letters", number(refused), "", "records refused", []),
    ]


def accuracy_says(points: list[Point], episodes: int) -> str:
    """The accuracy chart, for a screen reader."""
    if not points:
        return "Served accuracy over time: no report yet."
    newest = points[-1].gauges.get("served_hr@10")
    said = "not known" if newest is None else f"{newest:.3f}"
    return f"Served accuracy over time. Hit rate at 10 is {said} now. {episodes} drift episodes are marked as bands."


def shares_say(view: View) -> str:
    """The chart of the shares, for a screen reader."""
    now = ", ".join(f"{intent_label(one, one.intent)} {one.share:.1%}" for one in view.intents()[:5])
    return f"Shares of the intents over time. Now: {now}"


def episode_rows(service: Service, times: Timeline, now_ms: int) -> list[list[Cell]]:
    """Drift episodes with what was done about each."""
    rows = []
    for opened, closed in service.view.episodes()[:6]:
        since = duration((now_ms - times.of_event(opened.since_event)) / 1000) + " ago" if times else "–"
        rows.append(
            [
                Cell(f"#{opened.episode}"),
                Cell("open" if closed is None else "over", kind="warn" if closed is None else "calm"),
                Cell(opened.kind.replace("_", " ")),
                Cell(", ".join(opened.signals[:4])),
                Cell(f"{opened.before:.3g} → {opened.after:.3g}"),
                Cell(since),
                Cell(", ".join(ACTIONS.get(one, one.replace("_", " ")) for one in opened.action.split("+"))),
            ]
        )
    return rows


def user_cell(user: str) -> Cell:
    """A user, leading to their page; a short id stays on one line."""
    return Cell(user, href=user_url(user), kind="tight" if len(user) <= _SHORT_ID else "")


def intent_cell(service: Service, intent: int | None, theme: Theme) -> Cell:
    """An intent with its colour, leading to its page."""
    if intent is None:
        return Cell("first intent", kind="calm")
    name = intent_label(service.view.catalog.get(intent), intent)
    return Cell(name, href=f"/intent/{intent}", mark=colour(intent, theme))


def shift_rows(service: Service, found: list[IntentShift], theme: Theme, with_user: bool = True) -> list[list[Cell]]:
    """Shifts, in the order given."""
    rows = []
    for shift in found:
        row = [Cell(moment(shift.as_of.ts), kind="tight")]
        row += [user_cell(shift.user)] if with_user else []
        row += [
            intent_cell(service, shift.from_intent, theme),
            intent_cell(service, shift.to_intent, theme),
            Cell(CAUSES[shift.cause], kind="tight" if shift.cause == "user" else "tight calm"),
            Cell(f"{shift.confidence:.0%}", kind="tight"),
            Cell(", ".join(shift.evidence[:4]) or "–"),
        ]
        rows.append(row)
    return rows


def remains_rows(receipt: ErasureReceipt, asked_ms: int | None) -> list[list[Cell]]:
    """What an erasure could not remove at once: what, until when, and the day where a topic's retention tells it."""
    retention = {spec.name: spec.retention_ms for spec in topic_specs(1)}
    rows = []
    for what, until in receipt.remains.items():
        kept_ms = retention.get(what)
        known = asked_ms is not None and kept_ms is not None
        day = moment((asked_ms or 0) + (kept_ms or 0))[:10] if known else "–"
        rows.append([Cell(what), Cell(until.replace("`", "")), Cell(day, kind="tight")])
    return rows


def newest_shifts(service: Service, count: int) -> list[IntentShift]:
    """The newest shifts of all users, newest first."""
    found: list[IntentShift] = service.view.shifts.newest()
    return sorted(reversed(found), key=lambda one: -one.step)[:count]  # partitions are read one after the other


def reason_rows(service: Service) -> list[list[Cell]]:
    """Dead letters by reason, most first, with the newest one's rule."""
    newest = {}
    for letter in service.view.dead_letters.newest():
        newest[letter.reason] = letter
    rows = []
    for reason, count in sorted(service.view.reasons.items(), key=lambda pair: (-pair[1], pair[0]))[:8]:
        letter = newest.get(reason)
        rule = f"{letter.field}: {letter.rule}" if letter else ""
        rows.append([Cell(reason.replace("_", " ")), Cell(number(count)), Cell(rule)])
    return rows


def intent_rows(service: Service, theme: Theme, most: int) -> list[list[Cell]]:
    """The catalogue, largest first."""
    rows = []
    for one in service.view.intents()[:most]:
        rows.append(
            [
                intent_cell(service, one.intent, theme),
                Cell(f"{one.share:.1%}"),
                Cell(f"{one.speed:.3f}"),
                Cell(", ".join(one.top_items[:4])),
            ]
        )
    return rows


def feed_rows(service: Service, theme: Theme, most: int) -> list[list[Cell]]:
    """The newest lists."""
    rows = []
    for one in reversed(service.view.feed.newest(most)):
        rows.append(
            [
                user_cell(one.user),
                intent_cell(service, one.intent, theme) if one.intent is not None else Cell("none yet", kind="calm"),
                Cell(", ".join(item.item for item in one.items[:4])),
                Cell({"model": "model", "intent": "its intent", "popular": "popular items"}[one.source]),
            ]
        )
    return rows
