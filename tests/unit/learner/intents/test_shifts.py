"""The rule for shifts: no flapping, a confidence that is right, and whether user or model moved."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from learner.errors import LearnerStateError
from learner.intents.config import ShiftConfig
from learner.intents.shifts import IntentState, ShiftRule, ShiftUpdate, history_before, strongest

CONFIG = ShiftConfig(margin=1.0, sure_margin=5.0, persistence=3, hold_events=4)


def nobody(n: int = 1) -> IntentState:
    none, zero = np.full(n, -1, dtype=np.int32), np.zeros(n, dtype=np.int64)
    return IntentState(none, zero, none, zero, zero)


class User:
    """One user, event by event."""

    def __init__(self, rule: ShiftRule | None = None) -> None:
        self.rule = rule or ShiftRule(CONFIG)
        self.state = nobody()

    def see(self, nearest: int, lead: float = 0.0, events: int = 1, retired: bool = False) -> ShiftUpdate:
        update = self.rule.update(
            self.state, np.array([nearest]), np.array([lead]), np.array([events]), np.array([retired])
        )
        self.state = update.state
        return update

    @property
    def intent(self) -> int:
        return int(self.state.intent[0])


def test_the_first_intent_is_no_shift() -> None:
    user = User()
    assert user.intent == -1
    update = user.see(4)
    assert (bool(update.shifted[0]), user.intent) == (False, 4)
    assert (bool(user.see(4).shifted[0]), user.intent) == (False, 4)


def test_a_small_lead_never_update_a_user() -> None:
    user = User()
    user.see(4)
    assert not any(user.see(7, 0.99).shifted[0] for _ in range(50))
    assert user.intent == 4


def test_flapping_at_the_margin_update_nobody() -> None:
    user = User()
    user.see(4)
    for _ in range(30):
        assert not user.see(7, 2.0).shifted[0]
        assert not user.see(7, 2.0).shifted[0]
        assert not user.see(4).shifted[0]
    for number in range(30):  # two candidates in turn
        assert not user.see(7 + number % 2, 3.0).shifted[0]


def test_a_lead_that_lasts_update_the_user_once() -> None:
    user = User()
    user.see(4)
    for _ in range(9):
        user.see(4)
    shifted = [user.see(7, 2.0) for _ in range(3)]
    assert [bool(update.shifted[0]) for update in shifted] == [False, False, True]
    assert int(shifted[2].held_for[0]) == 10
    assert int(shifted[2].state.events[0]) == 3
    assert not user.see(7).shifted[0]


def test_a_sure_lead_update_at_once() -> None:
    user = User()
    user.see(4)
    update = user.see(7, 5.0, events=2)
    assert update.shifted[0]
    assert int(update.state.events[0]) == 2


def test_several_events_in_one_step_are_one_look() -> None:
    user = User()
    user.see(4)
    assert not user.see(7, 2.0, events=5).shifted[0]
    assert user.see(7, 2.0, events=1).shifted[0]


def test_a_retired_intent_is_left_at_once_and_teaches_nothing() -> None:
    user = User()
    user.see(4)
    before = user.rule.to_state()
    update = user.see(7, 0.0, retired=True)
    assert update.shifted[0]
    for _ in range(10):
        user.see(7)
    assert user.rule.to_state() == before


def test_an_unknown_user_has_no_intent_and_one_without_history_keeps_the_held_one() -> None:
    user = User()
    user.see(-1)
    assert user.intent == -1
    user.see(4)
    assert not user.see(-1, 100.0).shifted[0]
    assert user.intent == 4


def test_the_change_is_dated_by_the_evidence_where_there_is_some() -> None:
    rule = ShiftRule(CONFIG)
    user = IntentState(*(np.array([value]) for value in (3, 40, -1, 0, 0)))
    update = rule.update(user, np.array([7]), np.array([9.0]), np.array([1]), began=np.array([4]))
    assert update.shifted[0]
    assert (int(update.held_for[0]), int(update.state.events[0])) == (37, 4)


def test_while_it_is_looked_for_an_intent_follows_without_a_shift() -> None:
    rule = ShiftRule(CONFIG)
    user = nobody()
    for nearest in (4, 7, 7, 5):
        update = rule.update(user, np.array([nearest]), np.zeros(1), np.ones(1, int), settling=np.array([True]))
        assert not update.shifted[0]
        user = update.state
    assert (int(user.intent[0]), int(user.events[0])) == (5, 4)


def test_the_confidence_becomes_the_share_that_holds() -> None:
    rule = ShiftRule(ShiftConfig(margin=1.0, sure_margin=9.0, persistence=1, hold_events=4, half_life=2000))
    rng = np.random.default_rng(0)
    leads = np.array([1.2, 3.2, 6.2])
    chances = np.array([0.3, 0.6, 0.95])
    reported: list[list[float]] = [[], [], []]
    users = nobody(600)
    kind = np.arange(600) % 3
    nearest = np.zeros(600, dtype=np.int32)
    users = rule.update(users, nearest, np.zeros(600), np.ones(600, dtype=np.int64)).state
    for _ in range(40):
        update = rule.update(users, users.intent + 1, leads[kind], np.ones(600, dtype=np.int64))
        assert update.shifted.all()
        for number in range(3):
            reported[number].append(float(update.confidence[kind == number].mean()))
        users = update.state
        back = rng.random(600) >= chances[kind]
        for _ in range(6):  # who does not hold goes back after one event, at once
            held = rule.update(
                users, np.where(back, users.intent + 1, users.intent), np.full(600, 50.0), np.ones(600, int)
            )
            users, back = held.state, np.zeros(600, dtype=bool)
    assert [np.mean(values[10:]) for values in reported] == pytest.approx(chances, abs=0.05)
    assert (np.diff(rule.probabilities(), axis=1) >= 0).all()


def test_it_continues_bit_for_bit_and_refuses_what_does_not_fit() -> None:
    rule, other = ShiftRule(CONFIG), ShiftRule(CONFIG)
    user = User(rule)
    for number in range(200):
        user.see(number // 7 % 3, 2.0 + number % 5)
    other.load_state(json.loads(json.dumps(rule.to_state())))
    assert np.array_equal(other.probabilities(), rule.probabilities())
    assert other.to_state() == rule.to_state()
    with pytest.raises(LearnerStateError, match="format 3"):
        other.load_state({"format": 3})
    with pytest.raises(LearnerStateError, match="tables of"):
        other.load_state(rule.to_state() | {"held": [1.0]})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"margin": 3.0, "sure_margin": 2.0}, "sure_margin = 2.0: must not be below margin = 3.0"),
        ({"persistence": 0}, r">= 1.*persistence"),
        ({"publish": True}, "publish"),
    ],
)
def test_a_bad_configuration_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(settings, ShiftConfig)


def test_the_history_before_is_what_it_was() -> None:
    histories = np.array([[0, 0, 1, 2], [1, 2, 3, 4], [0, 0, 0, 9]])
    actions = (histories * 10).astype(np.uint8)
    old, codes = history_before(histories, actions, np.array([1, 3, 7]))
    assert old.tolist() == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert np.array_equal(codes, old * 10)


def naive_strongest(handles: list[int], pull: list[float], count: int) -> list[int]:
    newest = {handle: value for handle, value in zip(handles, pull, strict=True) if handle}
    ranked = sorted((h for h in newest if newest[h] > 0), key=lambda h: -newest[h])
    return (ranked + [0] * count)[:count]


def test_evidence_is_the_strongest_pull_each_item_once() -> None:
    rng = np.random.default_rng(1)
    handles: NDArray[np.int64] = rng.integers(0, 6, (50, 8))
    pull = rng.normal(size=(50, 8))
    expected = [naive_strongest(*row, count=3) for row in zip(handles.tolist(), pull.tolist(), strict=True)]
    assert strongest(handles, pull, 3).tolist() == expected
    assert strongest(handles[:0], pull[:0], 3).shape == (0, 3)
    assert strongest(handles[:, :2], pull[:, :2], 3).shape == (50, 3)
