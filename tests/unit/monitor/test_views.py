from __future__ import annotations

import json
from pathlib import Path

import pytest

from monitor.errors import ViewInUse
from monitor.view.reader import Reader
from monitor.view.view import View
from stream.log import EventLog, Message, TopicPartition, open_log
from stream.schema import topics
from stream.schema.events import MAX_TS, ActionsConfig
from stream.worker.dead_letters import replay_dead_letters
from tests.unit.monitor.conftest import NOW_MS
from tests.unit.monitor.feed import Feed, create, encode, history

DAY_MS = 86_400_000


def read_all(log: EventLog, view: View, max_records: int = 500) -> None:
    reader = Reader(log, view, interval_s=0.01, max_records=max_records)
    reader._place()
    while reader.turn():
        pass


def shown(view: View) -> object:
    """All that a view says, for comparing two of them."""
    users = [f"user-{i}" for i in range(200)]
    return (
        [view.users.recommendations(user) for user in users],
        [view.users.history(user) for user in users],
        [view.users.shifts(user) for user in users],
        view.catalog.intents(),
        view.episodes(),
        view.newest_dead_letters(None, 1000),
        view.reports.series("worker-0", 0),
        view.catalog.samples.newest(),
        view.reasons,
        view.totals,
        view.reports.workers,
    )


def test_a_view_says_what_the_topics_say(log: EventLog, tmp_path: Path) -> None:
    feed = Feed(start_ms=NOW_MS)
    messages = history(feed, 60)
    log.append(messages)
    view = View(tmp_path / "view")
    read_all(log, view)
    newest = {m.key: m.value for m in messages if m.topic == topics.RECOMMENDATIONS}
    for key, value in newest.items():
        assert key is not None and encode(view.users.recommendations(key.decode())) == value
    wanted = [m.value for m in messages if m.topic == topics.METRICS]
    assert len(view.reports.points.newest()) == len(wanted)
    assert [encode(i) for i in sorted(view.catalog.intents(), key=lambda i: i.intent)] == [
        m.value for m in messages if m.topic == topics.INTENT_CATALOG
    ][-10:]
    assert [one.opened.episode for one in view.episodes()] == [2, 1]
    assert [one.closed is None for one in view.episodes()] == [True, False]
    assert view.reasons == {"bad_ts": feed.dead}
    view.close()


def test_a_restart_goes_on_and_says_the_same_as_one_that_never_stopped(log: EventLog, tmp_path: Path) -> None:
    feed = Feed(start_ms=NOW_MS)
    straight = View(tmp_path / "straight")
    for _ in range(4):
        log.append(history(feed, 15))
        view = View(tmp_path / "view")
        read_all(log, view, max_records=37)
        kept = view.feed.newest()
        view.close()
    read_all(log, straight)
    view = View(tmp_path / "view")
    assert shown(view) == shown(straight)
    assert len(kept) == 40 and view.feed.newest() == kept  # the lists just published, too
    view.close()
    straight.close()


def test_reading_records_again_after_a_crash_changes_nothing(log: EventLog, tmp_path: Path) -> None:
    log.append(history(Feed(start_ms=NOW_MS), 20))
    one, other = View(tmp_path / "one"), View(tmp_path / "other")
    read_all(log, one)
    read_all(log, other, max_records=11)
    assert shown(one) == shown(other)
    with pytest.raises(ViewInUse, match="another monitor"):
        View(tmp_path / "one")
    one.close()
    other.close()


def test_histories_are_bounded_in_number_and_age(log: EventLog, tmp_path: Path) -> None:
    day = 86_400_000
    moments = [NOW_MS + n * day // 10 for n in range(400)]
    log.append(
        [
            Message(topics.EVENTS, b"u", encode({"user": "u", "item": f"i{n}", "ts": ts}), ts)
            for n, ts in enumerate(moments)
        ]
    )
    view = View(tmp_path / "view", history_len=50, history_days=1)
    read_all(log, view)
    assert [one.item for one in view.users.history("u")][:3] == ["i399", "i398", "i397"]
    assert len(view.users.history("u")) <= 50
    for _ in range(10):
        view.users.sweep(1000)
    kept = sum(1 for _ in view._db.scan(b"h"))
    assert kept == 11  # those within a day of the newest
    view.close()


def test_a_history_has_what_the_worker_takes_and_nothing_else(log: EventLog, tmp_path: Path) -> None:
    def record(key: bytes | None, **event: object) -> Message:
        return Message(topics.EVENTS, key, encode(event), NOW_MS, partition=0)

    log.append(
        [
            record(b"anna", user="anna", item="before", ts=NOW_MS),
            record(b"anna", user="anna", action="erase", ts=NOW_MS),
            record(b"anna", user="anna", item="tent", ts=NOW_MS, action="cart"),
            record(None, user="anna", item="stove", ts=NOW_MS + 1),
            record(b"bert", user="anna", item="another's key", ts=NOW_MS + 2),
            record(b"anna", user="anna", item="unknown action", ts=NOW_MS + 3, action="stare"),
            record(b"anna", user="anna", item="seconds", ts=NOW_MS // 1000),
            record(b"anna", user="anna", item="after 2100", ts=MAX_TS),
            record(b"anna", user="anna", item="in two days", ts=NOW_MS + 2 * 24 * 3600 * 1000),
            record(b"bert", user="anna", action="erase", ts=NOW_MS + 5),
        ]
    )
    view = View(tmp_path / "view")
    read_all(log, view)
    assert [(one.item, one.action) for one in view.users.history("anna")] == [("stove", "view"), ("tent", "cart")]
    view.close()
    own = View(tmp_path / "own", actions=ActionsConfig(weights_by_name={"stare": 1.0}))
    read_all(log, own)
    assert [one.item for one in own.users.history("anna")] == ["unknown action", "stove"]
    own.close()


def test_an_event_from_the_far_future_makes_nobody_elses_history_old(log: EventLog, tmp_path: Path) -> None:
    for user, ts in (("u", NOW_MS), ("clock", NOW_MS + 40 * 365 * 86_400_000)):
        log.append([Message(topics.EVENTS, user.encode(), encode({"user": user, "item": "i", "ts": ts}), NOW_MS)])
    view = View(tmp_path / "view")
    read_all(log, view)
    view.users.sweep(1000)
    view.users.sweep(1000)
    assert [one.item for one in view.users.history("u")] == ["i"]
    view.close()


def event(user: str, ts: int, item: str = "i") -> Message:
    return Message(topics.EVENTS, user.encode(), encode({"user": user, "item": item, "ts": ts}), NOW_MS)


def swept(view: View) -> set[str]:
    """Users who have a history after two rounds of the sweep."""
    for _ in range(4):
        view.users.sweep(10_000)
    return {user for n in range(50) if view.users.history(user := f"u{n}")}


def test_events_of_today_hide_no_history_of_a_stream_whose_time_is_behind(log: EventLog, tmp_path: Path) -> None:
    """The clock of the histories is the stream's; arrival says nothing about it."""
    year_ago = NOW_MS - 365 * DAY_MS
    everybody = {f"u{n}" for n in range(50)}
    log.append([event(user, year_ago + n) for n, user in enumerate(sorted(everybody))])
    view = View(tmp_path / "view")
    read_all(log, view)
    log.append([event("today", NOW_MS, f"i{n}") for n in range(2200)])  # one user, many events
    read_all(log, view)
    assert swept(view) == everybody
    view.close()
    view = View(tmp_path / "view")  # the clock survives a restart
    assert view.users.clock.now_ms < year_ago + 50
    log.append([event("today", NOW_MS + n) for n in range(10)])
    read_all(log, view)
    assert swept(view) == everybody
    assert view.users.history("today")
    view.close()


def test_the_clock_of_the_histories_follows_most_users_and_goes_back(log: EventLog, tmp_path: Path) -> None:
    view = View(tmp_path / "view")
    log.append([event(f"wrong{n}", NOW_MS + 3 * DAY_MS // 4) for n in range(300)])
    read_all(log, view)
    assert view.users.clock.now_ms > NOW_MS
    log.append([event(f"right{n}", NOW_MS - 20 * DAY_MS) for n in range(300)])
    read_all(log, view)
    assert view.users.clock.now_ms == NOW_MS - 20 * DAY_MS
    log.append([event("u1", NOW_MS - 60 * DAY_MS)])
    read_all(log, view)
    assert swept(view) == set()  # older than 30 days before the clock
    view.close()


def test_rings_have_a_fixed_length_on_disk_too(log: EventLog, tmp_path: Path) -> None:
    feed = Feed(start_ms=NOW_MS)
    log.append([feed.letter(f"reason-{n % 50}") for n in range(1200)])
    view = View(tmp_path / "view")
    read_all(log, view)
    assert len(view.dead_letters) == 500 == sum(1 for _ in view._db.scan(b"qd"))
    assert len(view.reasons) <= 33 and sum(view.reasons.values()) == 1200
    view.close()


def test_an_erasure_removes_the_user_from_everything_that_is_shown(log: EventLog, tmp_path: Path) -> None:
    feed = Feed(start_ms=NOW_MS)
    log.append([*feed.event("anna"), *feed.event("bert"), feed.shift("anna"), feed.shift("bert")])
    view = View(tmp_path / "view")
    read_all(log, view)
    erase = encode({"user": "anna", "action": "erase", "ts": NOW_MS})
    feed.offset += 1
    log.append([Message(topics.EVENTS, b"anna", erase, NOW_MS), *feed.receipt("anna")])
    read_all(log, view)
    assert view.users.recommendations("anna") is None
    assert view.users.history("anna") == [] == view.users.shifts("anna")
    assert [one.user for one in view.shifts.newest()] == ["bert"]
    assert "anna" not in {one.user for one in view.feed.newest()}
    assert view.users.receipt("anna") is not None and view.users.receipt("bert") is None
    # a shift from before the erasure that is read only now stays out, one from after it is taken
    feed.offset -= 1
    log.append([feed.shift("anna")])
    read_all(log, view)
    assert view.users.shifts("anna") == []
    feed.offset += 5
    log.append([*feed.event("anna"), feed.shift("anna")])
    read_all(log, view)
    assert len(view.users.shifts("anna")) == 1 == len(view.users.history("anna"))
    view.close()


def test_an_erasure_concerns_shifts_whose_events_were_in_other_partitions(log: EventLog, tmp_path: Path) -> None:
    feed = Feed(start_ms=NOW_MS)
    feed.number = 7
    view = View(tmp_path / "view")
    (_, receipt), shift = feed.receipt("anna"), json.loads(feed.shift("anna").value or b"")

    def from_step(step: int, offset: int) -> Message:
        as_of = shift["as_of"] | {"partition": shift["as_of"]["partition"] + 1, "offset": offset}
        return Message(topics.INTENT_SHIFTS, b"anna", encode(shift | {"step": step, "as_of": as_of}), NOW_MS)

    erased = json.loads(receipt.value or b"")
    log.append([from_step(erased["step"] - 1, 10**6)])
    read_all(log, view)
    assert len(view.users.shifts("anna")) == 1 == len(view.shifts.newest())
    log.append([receipt])
    read_all(log, view)
    log.append([from_step(erased["step"] - 1, 10**6 + 1), from_step(erased["step"] + 1, 0)])
    read_all(log, view)
    assert [one.as_of.offset for one in view.users.shifts("anna")] == [0]
    assert [one.as_of.offset for one in view.shifts.newest()] == [0]
    view.close()


def test_a_mark_that_letters_were_sent_again_is_no_letter(log: EventLog, tmp_path: Path) -> None:
    feed = Feed(start_ms=NOW_MS)
    log.append([feed.letter("bad_ts"), feed.letter("bad_ts"), feed.letter("no_user")])
    assert replay_dead_letters(log, now_ms=NOW_MS, reason="bad_ts").sent == 2
    view = View(tmp_path / "view")
    read_all(log, view)
    assert view.reasons == {"bad_ts": 2, "no_user": 1}
    assert [letter.reason for letter in view.newest_dead_letters(None, 10)] == ["no_user", "bad_ts", "bad_ts"]
    view.close()


def test_what_cannot_be_read_is_counted_and_passed_over(log: EventLog, tmp_path: Path) -> None:
    feed = Feed(start_ms=NOW_MS)
    broken = [b"", b"{", b"\xff\xfe", b"[]", b'{"user":1}', b"null", b'{"user":"\\ud800","item":"i","ts":1}']
    for topic in (topics.EVENTS, *topics.OUTPUTS):
        log.append([Message(topic, b"u", value, NOW_MS) for value in broken])
    nan = (
        b'{"worker":"w","ts":5,"state":"running","step":1,"model_step":0,"counters":{},"gauges":{"loss":null,"lag":1}}'
    )
    log.append([*feed.event("anna"), Message(topics.METRICS, b"w", nan, NOW_MS)])
    view = View(tmp_path / "view")
    read_all(log, view)
    assert view.users.recommendations("anna") is not None
    assert view.reports.workers["w"].gauges == {"lag": 1.0}
    assert view.totals["undecodable"] > 10
    assert view.users.recommendations("u") is None
    view.close()


def test_another_log_in_the_place_of_the_first_begins_the_view_anew(tmp_path: Path) -> None:
    for name, users in (("a", ["anna", "bert"]), ("b", ["carl"])):
        with open_log(f"file://{tmp_path}/{name}") as log:
            create(log)
            feed = Feed(start_ms=NOW_MS)
            log.append([m for user in users for m in feed.event(user)])
            view = View(tmp_path / "view")
            read_all(log, view)
            assert view.users.recommendations(users[0]) is not None
            assert (view.users.recommendations("anna") is None) == (name == "b")
            view.close()


def test_positions_are_kept_for_every_partition(log: EventLog, tmp_path: Path) -> None:
    view = View(tmp_path / "view")
    read_all(log, view)
    assert view.positions[TopicPartition(topics.EVENTS, 1)] == 0
    view.close()
    again = View(tmp_path / "view")
    assert again.positions[TopicPartition(topics.EVENTS, 1)] == 0
    again.close()


def test_partitions_added_under_a_running_monitor_are_read(
    log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.view.reader._PARTITIONS_EVERY_S", 0.0)
    view = View(tmp_path / "view")
    with open_log(f"file://{tmp_path}/log", mode="reader") as reading:
        reader = Reader(reading, view, interval_s=0.01, max_records=100)
        reader._place()
        reader.turn()
        count = log.partition_count(topics.EVENTS)
        log.add_partitions(topics.EVENTS, count + 3)
        added = Message(
            topics.EVENTS, b"anna", encode({"user": "anna", "item": "i", "ts": NOW_MS}), NOW_MS, partition=count + 2
        )
        log.append([added])
        for _ in range(3):
            reader.turn()
        assert [one.item for one in view.users.history("anna")] == ["i"]
        assert reader.reading.waiting == 0
    view.close()


def test_a_view_with_entries_of_another_version_opens(log: EventLog, tmp_path: Path) -> None:
    feed = Feed(start_ms=NOW_MS)
    log.append([*feed.event("anna"), feed.shift("anna", 2), feed.metrics(), *feed.catalog()])
    view = View(tmp_path / "view")
    read_all(log, view)
    assert view.users.shifts("anna") and view.shifts.newest() and view.reports.workers and view.catalog.by_id
    for kind in (b"s", b"qS", b"qf", b"w", b"c"):
        for key, _ in list(view._db.scan(kind)):
            view._db._db[key] = b'{"from":"another version"}'
    view.close()
    again = View(tmp_path / "view")
    assert again.users.shifts("anna") == again.shifts.newest() == again.feed.newest() == []
    assert not again.reports.workers and not again.catalog.by_id
    assert again.users.history("anna")
    again.close()
