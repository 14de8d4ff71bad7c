"""The page's texts and table rows: pure functions of the service, the same for every viewer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, NamedTuple
from urllib.parse import quote

from monitor.answers import UserView
from monitor.health import Health
from monitor.page.charts.labels import intent_label, intent_name
from monitor.page.charts.theme import Theme, intent_color
from monitor.page.charts.timeline import Timeline, thin_out
from monitor.page.widgets import Cell
from monitor.service import Service
from monitor.view.records import Point
from monitor.view.view import View
from stream.schema.messages import ErasureReceipt, Intent, IntentShift
from stream.schema.topics import topic_specs

ACTIONS: Final = {
    "none": "nothing was done",
    "more_steps": "more learning steps",
    "higher_rate": "a higher learning rate for a while",
    "fresh_replay": "learning from recent events only, for a while",
    "faster_decay": "popularity fades faster for a while",
    "fade_followers": "older item-to-item counts weigh less",
    "more_followers": "more of the preceding items count, for a while",
    "reseed": "intents re-seeded",
}
CAUSES: Final = {"user": "user changed", "model": "model changed"}
SOURCES: Final = {"model": "the model", "intent": "the intent's items", "popular": "popular items"}
_SHORT_ID: Final = 16
_BACKLOG: Final = 1000  # records waiting that the headline counts as a backlog


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


class Headline(NamedTuple):
    """The worker's health in words: a sentence, and what to do or know."""

    text: str
    details: str


def headline(health: Health, lag: int) -> Headline:
    """How the worker is doing."""
    report = health.report
    if report is None:
        return Headline(
            "Nothing has arrived yet.",
            "Start a worker on this log: “intentstream run” brings a simulated shop, “intentstream replay FILE” your "
            "own events, POST /events single ones.",
        )
    if health.state == "gone":
        return Headline(
            f"The worker has not reported for {duration(health.age_s)}.",
            "It has ended or hangs. All figures are as of its last report. Look at its log, then start it again: it "
            "goes on where it was.",
        )
    if health.state == "failed":
        return Headline(
            f"The worker ended with an error {duration(health.age_s)} ago.",
            "Its log has the error. All figures are as of then. Start it, and it goes on where it was.",
        )
    if health.state == "stopped":
        return Headline(
            f"The worker was shut down {duration(health.age_s)} ago.",
            "All figures are as of then. Start it, and it goes on where it was.",
        )
    if health.state == "recovering":
        return Headline(
            "The worker is recovering.",
            f"It repeats the steps after its last checkpoint and is at step {report.step:,}.",
        )
    rate = report.gauges.get("events_per_second", 0.0)
    fresh = report.gauges.get("freshness_p50_ms")
    text = "Waiting for events." if rate < 0.05 else f"Learning from {number(rate)} events a second."
    backlog = "No backlog" if lag < _BACKLOG else f"{lag:,} records wait"
    lists = f"; a new list is published {number(fresh)} ms after an event." if fresh else "."
    other = [p for p in health.problems if "records wait for the worker" not in p]
    but = " But " + "; ".join(other) + "." if other else ""
    return Headline(text, backlog + lists + but + "".join(f" {note}." for note in health.notes))


def tiles(service: Service, points: list[Point], lag: int) -> list[Tile]:
    """The strip of figures."""
    view = service.view
    report = view.reports.newest()
    gauge = report.gauges if report else {}
    count = report.counters if report else {}
    thin = thin_out(points[-120:], 60)

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
            f"{len(view.catalog.by_id)} in the catalog",
            curve("intents_effective"),
        ),
        Tile("Users", number(count.get("users", 0)) if report else "–", "", f"{show('items')} items known", []),
        Tile("Dead letters", number(refused), "", "records refused", []),
    ]


def describe_accuracy(points: list[Point], episodes: int) -> str:
    """The accuracy chart, for a screen reader."""
    if not points:
        return "Served accuracy over time: no report yet."
    newest = points[-1].gauges.get("served_hr@10")
    value = "not known" if newest is None else f"{newest:.3f}"
    return f"Served accuracy over time. Hit rate at 10 is {value} now. {episodes} drift episodes are shown as bands."


def describe_shares(view: View) -> str:
    """The chart of the shares, for a screen reader."""
    now = ", ".join(f"{intent_label(one, one.intent)} {one.share:.1%}" for one in view.catalog.intents()[:5])
    return f"Shares of the intents over time. Now: {now}"


def no_intents(view: View) -> str:
    """What charts of intents show while there are none; empty otherwise."""
    return "" if view.catalog.by_id else "No intents yet. The worker publishes its catalog as it learns."


def episode_rows(service: Service, timeline: Timeline, now_ms: int) -> list[list[Cell]]:
    """Drift episodes, each with the action taken."""
    rows = []
    for episode in service.view.episodes()[:6]:
        alert, is_open = episode.opened, episode.closed is None
        since = duration((now_ms - timeline.of_event(alert.since_event)) / 1000) + " ago" if timeline else "–"
        rows.append(
            [
                Cell(f"#{alert.episode}"),
                Cell("open" if is_open else "over", kind="warn" if is_open else "calm"),
                Cell(alert.kind.replace("_", " ")),
                Cell(", ".join(alert.signals[:4])),
                Cell(f"{alert.before:.3g} → {alert.after:.3g}"),
                Cell(since),
                Cell(", ".join(ACTIONS.get(one, one.replace("_", " ")) for one in alert.action.split("+"))),
            ]
        )
    return rows


def user_summary(found: UserView | None) -> str:
    """One sentence on what the topics say about a user."""
    if found is None:
        return (
            "The topics say nothing about this user. Ids are compared byte by byte; "
            "the first list follows the user's first event."
        )
    newest = found.recommendations
    if newest is not None:
        return (
            f"Intent: {intent_name(found.intent, newest.intent)}. Source of the list: {SOURCES[newest.source]}, "
            f"as of event time {moment(newest.as_of.ts)} UTC, step {newest.step:,}."
        )
    if found.history:
        return "There are events, but no list yet."
    if found.erased is not None:
        return "This user was erased, and no event has come since."
    return "No list and no event of this user is kept, only shifts."


def intent_summary(intent: Intent) -> str:
    """Size, distance and age of an intent."""
    age = f"created after {intent.born_at:,} events" if intent.born_at else "present from the start"
    return (
        f"{intent.share:.1%} of the active users. Distance to the nearest other center {intent.separation:.2f}, "
        f"speed {intent.speed:.3f} per 1,000 events; {age}."
    )


def user_cell(user: str) -> Cell:
    """A user, with a link to the user's page; a short id stays on one line."""
    return Cell(user, href=user_url(user), kind="tight" if len(user) <= _SHORT_ID else "")


def intent_cell(service: Service, intent: int | None, theme: Theme) -> Cell:
    """An intent with its color and a link to its page."""
    if intent is None:
        return Cell("first intent", kind="calm")
    name = intent_label(service.view.catalog.by_id.get(intent), intent)
    return Cell(name, href=f"/intent/{intent}", mark=intent_color(intent, theme))


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


def remains_rows(receipt: ErasureReceipt, requested_ms: int | None) -> list[list[Cell]]:
    """What an erasure could not remove at once: what, until when, and the day where a topic's retention gives it."""
    retention = {spec.name: spec.retention_ms for spec in topic_specs(1)}
    rows = []
    for what, until in receipt.remains.items():
        kept_ms = retention.get(what)
        known = requested_ms is not None and kept_ms is not None
        day = moment((requested_ms or 0) + (kept_ms or 0))[:10] if known else "–"
        rows.append([Cell(what), Cell(until.replace("`", "")), Cell(day, kind="tight")])
    return rows


def reason_rows(service: Service) -> list[list[Cell]]:
    """Dead letters by reason, the most frequent first, with the rule of the newest."""
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
    """The catalog, largest first."""
    rows = []
    for one in service.view.catalog.intents()[:most]:
        rows.append(
            [
                intent_cell(service, one.intent, theme),
                Cell(f"{one.share:.1%}"),
                Cell(f"{one.speed:.3f}"),
                Cell(", ".join(one.top_items[:4])),
            ]
        )
    return rows


def list_rows(service: Service, theme: Theme, most: int) -> list[list[Cell]]:
    """The newest lists."""
    rows = []
    for one in reversed(service.view.feed.newest(most)):
        rows.append(
            [
                user_cell(one.user),
                intent_cell(service, one.intent, theme) if one.intent is not None else Cell("none yet", kind="calm"),
                Cell(", ".join(item.item for item in one.items[:4])),
                Cell(SOURCES[one.source]),
            ]
        )
    return rows
