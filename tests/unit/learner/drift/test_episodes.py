"""Alarms become episodes: one alert at the start, one at the end, and actions in between."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import numpy as np
import pytest

from learner.drift.config import DriftConfig
from learner.drift.episodes import ActiveActions, DriftMonitor, EpisodeChange
from learner.drift.signals import Observed
from learner.errors import LearnerStateError

EVENTS = 100
NOBODY = np.zeros(0, dtype=np.int64)
CONFIG: dict[str, Any] = {
    "signals": {"loss": "page_hinkley", "distance": "page_hinkley"},
    "bin_events": EVENTS,
    "warm_up": 10,
    "quiet_events": 1000,
    "cooldown_events": 500,
    "action_events": 600,
    "longest_events": 5000,
    "actions": {"loss": ["more_steps", "higher_rate", "faster_decay"], "distance": ["reseed"]},
}


def config(**changes: Any) -> DriftConfig:
    return DriftConfig(**(CONFIG | changes))


def seen(number: int, loss: float = 5.0, distance: float = 0.5, hits: int = 30) -> Observed:
    wobble = 0.02 * math.sin(number * 1.7)
    intents = np.zeros(EVENTS, dtype=np.int64)
    return Observed(
        EVENTS, EVENTS, 0, number, EVENTS, hits, loss + wobble, distance + wobble / 10, intents, NOBODY, 0, 0.01, 1, 0
    )


def drive(
    monitor: DriftMonitor, values: dict[int, dict[str, Any]], start: int, stop: int, **serving: bool
) -> list[EpisodeChange]:
    """`values` holds from each of its bins on."""
    found = []
    for number in range(start, stop):
        since = max((begin for begin in values if begin <= number), default=None)
        what = seen(number, **({} if since is None else values[since]))
        found += monitor.step(what, (number + 1) * EVENTS, **serving)
    return found


def test_one_alert_at_the_start_and_one_at_the_end() -> None:
    monitor = DriftMonitor(config())
    found = drive(monitor, {50: {"loss": 6.0}}, 0, 200)
    assert [change.state for change in found] == ["opened", "closed"]
    opened, closed = found
    assert opened.episode == closed.episode == 1
    assert opened.signals == ("loss",)
    assert opened.kind == "concept_drift"
    assert opened.detector == "page_hinkley"
    assert opened.before == pytest.approx(5.0, abs=0.2)
    assert opened.after > opened.before + 0.5
    assert abs(opened.since_event - 50 * EVENTS) <= 2 * EVENTS
    assert 50 * EVENTS < opened.at_event <= 56 * EVENTS
    assert closed.at_event - opened.at_event >= 1000
    assert closed.after == pytest.approx(6.0, abs=0.05)
    assert opened.actions == closed.actions == ("more_steps", "higher_rate", "faster_decay")
    assert opened.until == closed.until == opened.at_event + 600
    assert monitor.episodes == 1
    assert not monitor.is_open


def test_an_alert_says_when_the_actions_end_or_ended() -> None:
    short = drive(DriftMonitor(config(longest_events=1000, action_events=5000)), {50: {"loss": 6.0}}, 0, 200)
    assert [change.until for change in short] == [short[0].at_event + 5000, short[1].at_event]
    once = drive(DriftMonitor(config(actions={"loss": ["reseed"]})), {50: {"loss": 6.0}}, 0, 200)
    assert [change.until for change in once] == [None, None]


def test_a_second_alarm_joins_the_open_episode() -> None:
    found = drive(DriftMonitor(config()), {50: {"loss": 6.0}, 58: {"loss": 6.0, "distance": 0.8}}, 0, 200)
    assert [change.state for change in found] == ["opened", "closed"]
    assert found[0].signals == ("loss",)
    assert found[1].signals == ("loss", "distance")


def test_an_episode_stays_open_until_it_has_been_quiet_for_long_enough() -> None:
    stairs = {50 + 8 * number: {"loss": 6.0 + number} for number in range(6)}
    found = drive(DriftMonitor(config()), stairs, 0, 200)
    assert [change.state for change in found] == ["opened", "closed"]
    assert found[1].at_event >= 90 * EVENTS + 1000


def test_an_episode_ends_after_its_longest_time_in_any_case() -> None:
    stairs = {50 + 8 * number: {"loss": 6.0 + number} for number in range(30)}
    found = drive(DriftMonitor(config(longest_events=2000, quiet_events=1000)), stairs, 0, 130)
    assert [change.state for change in found][:2] == ["opened", "closed"]
    assert found[1].at_event - found[0].at_event == 2000


def test_what_an_episode_did_to_the_shares_opens_no_other_one_after_it() -> None:
    monitor = DriftMonitor(config(actions={}, signals={"loss": "page_hinkley", "intent_shares": "page_hinkley"}))
    found = []
    for number in range(160):
        share = 0.5 if number < 56 else 0.7 if number < 110 else 0.3
        intents = (np.random.default_rng(number).random(EVENTS) < share).astype(np.int64)
        step = seen(number, loss=5.0 if number < 50 else 6.0)._replace(intents=intents)
        found += monitor.step(step, (number + 1) * EVENTS)
    first, later = [change for change in found if change.state == "opened"]
    assert first.signals == ("loss",)
    assert (later.signals, later.at_event > 110 * EVENTS) == (("intent_shares",), True)


def test_an_alarm_in_the_cooldown_waits_and_one_after_it_does_not() -> None:
    first = drive(DriftMonitor(config()), {50: {"loss": 6.0}}, 0, 200)
    closed = first[-1].at_event // EVENTS
    soon, late = {50: {"loss": 6.0}, closed: {"loss": 7.0}}, {50: {"loss": 6.0}, closed + 6: {"loss": 7.0}}
    waited = drive(DriftMonitor(config(cooldown_events=1500)), soon, 0, 200)
    assert [(change.episode, change.state) for change in waited[2:]] == [(2, "opened"), (2, "closed")]
    assert waited[2].at_event == closed * EVENTS + 1500
    assert abs(waited[2].since_event - closed * EVENTS) <= 2 * EVENTS  # as it was found, not as it is now
    assert waited[2].before == pytest.approx(6.0, abs=0.1)
    again = drive(DriftMonitor(config()), late, 0, 200)
    assert [(change.episode, change.state) for change in again[2:]] == [(2, "opened"), (2, "closed")]
    assert abs(again[2].at_event - (closed + 6) * EVENTS) <= 6 * EVENTS


def test_an_alarm_that_waits_in_the_cooldown_joins_the_episode_of_the_fallback() -> None:
    closed = drive(DriftMonitor(config()), {50: {"loss": 6.0}}, 0, 200)[-1].at_event // EVENTS
    values = {50: {"loss": 6.0}, closed: {"loss": 6.0, "distance": 0.9}}
    monitor = DriftMonitor(config(cooldown_events=1500, actions={"learner": ["rollback"]}))
    assert drive(monitor, values, 0, closed + 10)[-1].state == "closed"
    (told,) = monitor.report_alarm("fallback", 0.0, -5.0, (closed + 10) * EVENTS, closed + 10, can_roll_back=True)
    assert (told.episode, told.state, told.kind) == (2, "opened", "learner")
    assert told.signals == ("fallback", "distance")
    assert (told.detector, told.actions) == ("fallback", ("snapshot", "rollback"))
    assert [change.state for change in drive(monitor, values, closed + 10, 200)] == ["closed"]  # nothing is told twice


def test_an_alarm_after_a_long_quiet_is_another_drift_though_the_actions_go_on() -> None:
    values = {50: {"loss": 6.0}, 70: {"loss": 6.0, "distance": 0.9}}
    found = drive(DriftMonitor(config(action_events=4000)), values, 0, 200)
    assert [(change.episode, change.state) for change in found] == [
        (1, "opened"),
        (1, "closed"),
        (2, "opened"),
        (2, "closed"),
    ]
    assert found[2].signals == ("distance",)
    assert 0 <= found[2].at_event - found[1].at_event <= 500  # the cooldown


def test_an_improvement_is_no_alarm_and_hides_no_later_one() -> None:
    """After the loss fell, it rises back to where it was: that is a drift, though it was as high before."""
    found = drive(DriftMonitor(config()), {50: {"loss": 4.0}, 80: {"loss": 5.0}}, 0, 140)
    assert [change.state for change in found] == ["opened", "closed"]
    assert 80 * EVENTS < found[0].at_event <= 86 * EVENTS
    assert found[0].before == pytest.approx(4.0, abs=0.1)


def test_an_alarm_of_the_fallback_is_an_episode_of_its_own_and_stays_open_while_it_is_held() -> None:
    monitor = DriftMonitor(config(actions={"learner": ["rollback"]}))
    drive(monitor, {50: {"loss": 6.0}}, 0, 56)
    assert monitor.is_open
    told = monitor.report_alarm("fallback", 0.0, -5.0, 5600, 56, can_roll_back=True)
    assert [(change.episode, change.state, change.kind) for change in told] == [
        (1, "closed", "concept_drift"),
        (2, "opened", "learner"),
    ]
    assert (told[1].signals, told[1].actions) == (("fallback",), ("snapshot", "rollback"))
    assert (told[1].before, told[1].after) == (0.0, -5.0)
    assert monitor.effects() == ActiveActions(rollback=True)
    monitor.acted()
    assert monitor.effects() == ActiveActions()
    assert drive(monitor, {0: {"loss": 6.0}}, 56, 150, hold=True) == []
    (closed,) = drive(monitor, {0: {"loss": 6.0}}, 150, 152)
    assert (closed.episode, closed.state, closed.actions) == (2, "closed", ("snapshot", "rollback"))


@pytest.mark.parametrize(("can", "actions"), [(True, ("rollback",)), (False, ("none",))])
def test_a_rollback_is_named_only_where_there_is_something_to_go_back_to(can: bool, actions: tuple[str, ...]) -> None:
    monitor = DriftMonitor(config(actions={"loss": ["rollback"]}))
    assert drive(monitor, {50: {"loss": 6.0}}, 0, 56, can_roll_back=can)[0].actions == actions
    assert monitor.effects() == ActiveActions(rollback=can)


def test_actions_last_their_time_and_single_ones_happen_once() -> None:
    monitor = DriftMonitor(config())
    assert monitor.effects() == ActiveActions()
    opened = drive(monitor, {50: {"loss": 6.0}}, 0, 56)[0].at_event
    assert monitor.effects() == ActiveActions(steps=5.0, rate=2.0, half_lives=0.25)
    last = opened // EVENTS + 6
    drive(monitor, {50: {"loss": 6.0}}, 56, last - 1)
    assert monitor.effects().steps == 5.0
    drive(monitor, {50: {"loss": 6.0}}, last - 1, last)
    assert monitor.effects() == ActiveActions()
    assert monitor.is_open
    other = DriftMonitor(config())
    drive(other, {50: {"distance": 0.8}}, 0, 56)
    assert other.effects() == ActiveActions(reseed=True)
    other.acted()
    assert other.effects() == ActiveActions()


def test_what_is_replayed_came_since_the_change_and_followers_fade_once() -> None:
    monitor = DriftMonitor(
        config(actions={"loss": ["fresh_replay", "fade_followers", "more_followers"]}, fade_followers=0.2)
    )
    opened = drive(monitor, {50: {"loss": 6.0}}, 0, 56)[0]
    seen_until = 56 * EVENTS
    assert monitor.effects() == ActiveActions(newest=seen_until - opened.since_event, followers=0.2, update_window=6)
    assert abs(monitor.effects().newest - 6 * EVENTS) <= 2 * EVENTS
    monitor.acted()
    drive(monitor, {50: {"loss": 6.0}}, 56, 57)
    assert monitor.effects() == ActiveActions(newest=seen_until + EVENTS - opened.since_event, update_window=6)
    drive(monitor, {50: {"loss": 6.0}}, 57, opened.at_event // EVENTS + 6)
    assert monitor.effects() == ActiveActions()


def test_the_signal_goes_before_the_kind_and_neither_is_no_action() -> None:
    def actions(**chosen: list[str]) -> tuple[str, ...]:
        return drive(DriftMonitor(config(actions=chosen)), {50: {"loss": 6.0}}, 0, 60)[0].actions

    assert actions(loss=["higher_rate"], concept_drift=["more_steps"]) == ("higher_rate",)
    assert actions(concept_drift=["more_steps"]) == ("more_steps",)
    assert actions(loss=[], concept_drift=["more_steps"]) == ("none",)
    assert actions() == ("none",)


@pytest.mark.parametrize("split", [20, 53, 54, 58, 70, 90])
def test_it_continues_bit_for_bit_also_in_an_open_episode(split: int) -> None:
    values = {50: {"loss": 6.0}, 56: {"loss": 6.0, "distance": 0.9}, 120: {"loss": 8.0}}
    whole, first, second = (DriftMonitor(config(), seed=5) for _ in range(3))
    expected = drive(whole, values, 0, 200)
    begun = drive(first, values, 0, split)
    second.load_state(json.loads(json.dumps(first.to_state())))
    assert second.effects() == first.effects()
    assert second.scores() == first.scores()
    assert begun + drive(second, values, split, 200) == expected
    hashes = [hashlib.blake2b(), hashlib.blake2b()]
    for monitor, digest in zip((whole, second), hashes, strict=True):
        monitor.update_digest(digest)
    assert hashes[0].digest() == hashes[1].digest()


def test_a_signal_added_later_begins_anew_beside_the_others() -> None:
    old = DriftMonitor(config(signals={"loss": "page_hinkley"}, actions={}))
    drive(old, {}, 0, 40)
    both = DriftMonitor(config(actions={}))
    both.load_state(old.to_state())
    found = drive(both, {45: {"loss": 6.0, "distance": 0.9}}, 40, 80)  # distance is still warming up
    assert [(change.state, change.signals) for change in found] == [("opened", ("loss",)), ("closed", ("loss",))]


def test_another_format_is_refused() -> None:
    with pytest.raises(LearnerStateError, match="drift: state of format 99"):
        DriftMonitor(config()).load_state({"format": 99})


@pytest.mark.parametrize("where", ["episode", "waiting"])
def test_an_alarm_of_a_build_that_did_not_know_what_was_left_is_refused(where: str) -> None:
    monitor = DriftMonitor(config(cooldown_events=5000))
    drive(monitor, {50: {"loss": 6.0}, 80: {"loss": 7.0}}, 0, 100 if where == "waiting" else 60)
    state = json.loads(json.dumps(monitor.to_state()))
    DriftMonitor(config()).load_state(state)
    del (state["episode"] if where == "episode" else state["waiting"][0])["retained"]
    with pytest.raises(LearnerStateError, match="drift: stored state does not fit .*`retained`"):
        DriftMonitor(config()).load_state(state)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"loss": 5.4}, "unknown"),  # exp(-.4) = .67 of the chance is left
        ({"loss": 5.6}, "concept_drift"),
        ({"loss": 4.4}, None),
        ({"hits": 21}, "unknown"),
        ({"hits": 15}, "concept_drift"),
    ],
)
def test_a_change_of_meaning_leaves_little_of_what_could_be_foretold(values: dict[str, Any], kind: str | None) -> None:
    monitor = DriftMonitor(config(signals={"loss": "page_hinkley", "served_hits": "page_hinkley"}, actions={}))
    found = drive(monitor, {50: values}, 0, 60)
    assert [change.kind for change in found] == ([] if kind is None else [kind])


def test_the_worst_of_an_episodes_alarms_says_what_is_left() -> None:
    joins = {50: {"distance": 0.8}, 56: {"distance": 0.8, "loss": 6.0}}
    found = drive(DriftMonitor(config(actions={})), joins, 0, 90)
    assert [(change.state, change.kind) for change in found] == [("opened", "unknown"), ("closed", "concept_drift")]
    waiting = DriftMonitor(config(actions={}, cooldown_events=5000))
    waiting.report_alarm("fallback", 0.0, 1.0, 0, 0)
    opened = drive(waiting, {50: {"distance": 0.8}, 53: {"distance": 0.8, "loss": 6.0}}, 0, 90)[1]
    assert (opened.signals, opened.kind) == (("distance", "loss"), "concept_drift")


@pytest.mark.parametrize("begins", range(50, 62))
def test_what_is_left_is_read_where_the_change_is_whole(begins: int) -> None:
    """The change begins within a bin, and is put a bin or two too early: those are not of what it left."""
    monitor = DriftMonitor(config(signals={"loss": "page_hinkley"}, actions={}))
    values = {begins: {"loss": 5.04}, begins + 1: {"loss": 5.8}}
    found = drive(monitor, values, 0, begins + 10)
    assert [change.kind for change in found] == ["concept_drift"]


def test_kinds_are_told_from_the_signals_together() -> None:
    def kind(*signals: str, retained: float = 1.0) -> str:
        return DriftMonitor(DriftConfig(concept_drift_threshold=0.6))._kind(signals, retained)

    assert kind("intent_shares") == kind("popularity", "intent_shares") == "shares"
    assert kind("popularity") == kind("popularity", "loss", retained=0.7) == "popularity"
    assert kind("popularity", "loss", retained=0.6) == kind("served_hits", retained=0.5) == "concept_drift"
    assert kind("served_hits", "loss", retained=0.7) == "unknown"
    assert kind("new_items", "loss", retained=0.5) == "new_intent"
    assert kind("refusals", "loss") == kind("fallback") == "learner"
    assert kind("dead_letters") == "quality"
    assert kind("arrival_rate") == "traffic"
    assert kind("center_speed") == "unknown"
