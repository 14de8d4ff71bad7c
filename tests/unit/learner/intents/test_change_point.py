"""Evidence of a change of intent beside a loop over users, items and intents."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from learner.intents.change_point import change, log_likelihood
from learner.intents.config import ChangePointConfig, ShiftConfig

CONFIG = ChangePointConfig(memory=12, window=4)


def codes_of(intents: list[int], count: int, width: int = 12) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """One user whose items belong wholly to these intents."""
    codes, present = np.zeros((1, width, count), dtype=np.float32), np.zeros((1, width), dtype=bool)
    for place, intent in enumerate(intents[-width:], width - len(intents[-width:])):
        codes[0, place, intent], present[0, place] = 1.0, True
    return codes, present


def lead_of(intents: list[int], held: int, count: int = 6, span: int = 100) -> tuple[int, float]:
    found = change(*codes_of(intents, count), np.array([held]), np.array([span]), CONFIG)
    return int(found.to[0]), float(found.lead[0])


def naive_change(
    codes: NDArray[np.float32], present: NDArray[np.bool_], held: int, span: int, config: ChangePointConfig
) -> tuple[int, float, int]:
    """`to`, `lead` and `began` of one user, items newest first."""
    G, a, n = codes.shape[1], config.loyalty, config.anything / codes.shape[1]
    side, others = 1 - a - config.anything, [g for g in range(G) if g != held]
    items = [row.tolist() if here else None for row, here in zip(codes[::-1], present[::-1], strict=True)]
    newest = items[0]
    if newest is None or newest[held] >= 0.5:
        return -1, -math.inf, 1
    base = [row for row in items[config.window : span] if row is not None]
    before = [row for row in items[span:] if row is not None]
    known = sum(sum(row) for row in before)
    share = [sum(row[g] for row in before) / max(known, 1) for g in range(G)]
    # the ways in which a user can stay: how likely each is by the items before the window, and what an item says of it
    own, all_in_all = sum(row[held] for row in base), sum(sum(row) for row in base)
    ways: list[tuple[float, Callable[[list[float]], float]]] = []
    chance = {k: config.earlier_odds * share[k] + 1 / (G - 1) for k in others}
    for k in others:
        there = sum(row[k] for row in base)
        odds = math.log(chance[k] / sum(chance.values())) + own * math.log(a + n) + there * math.log(side + n)
        odds += (all_in_all - own - there) * math.log(n)
        ways.append((odds, lambda row, k=k: a * row[held] + side * row[k] + n))  # type: ignore[misc]
    stray = 0.75 / G
    odds = math.log(config.erratic_share / (1 - config.erratic_share)) + own * math.log(0.25 + stray)
    ways.append((odds + (all_in_all - own) * math.log(stray), lambda row: 0.25 * row[held] + stray))
    prior = [config.prior_events * (a if g == held else (1 - a) / (G - 1)) for g in range(G)]
    scale = min(known, config.earlier_events) / known if known else 0.0
    mixture = [prior[g] + sum(row[g] for row in base) + scale * sum(row[g] for row in before) for g in range(G)]
    mixture = [m / sum(mixture) for m in mixture]
    odds = math.log(config.mixed_odds * sum(math.exp(weight) for weight, _ in ways))
    ways.append((odds, lambda row: sum(m * share for m, share in zip(mixture, row, strict=True))))

    def stay(first: int) -> float:
        """Log-likelihood of the window's items from place `first` on, and those before it, over all ways."""
        mine = [row for row in items[first : min(config.window, span)] if row is not None]
        return math.log(sum(math.exp(w + sum(math.log(says(row)) for row in mine)) for w, says in ways))

    leads = {}
    for g in others:
        moved, each = 0.0, []
        for age, row in enumerate(items[: min(config.window, max(span, 1))]):
            if row is not None and age < span:
                moved += math.log(a * row[g] + side * row[held] + n)
            each.append(moved - stay(0) + stay(age + 1))
        leads[g] = (math.log(sum(map(math.exp, each))), 1 + each.index(max(each)))
    to = max(leads, key=lambda g: leads[g][0])
    return to, leads[to][0] + math.log(config.change_share / (G - 1)), leads[to][1]


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 12))
def test_it_is_what_a_loop_finds(seed: int, G: int, W: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.dirichlet(np.full(G, 0.3), (20, W)).astype(np.float32)
    present = np.arange(W) >= W - rng.integers(1, W + 1, 20)[:, None]
    present &= rng.random((20, W)) < rng.choice([0.6, 1.0], 20)[:, None]  # what was not liked leaves holes
    codes[~present] = 0
    held, span = rng.integers(0, G, 20), rng.integers(1, W + 3, 20)
    found = change(codes, present, held, span, CONFIG)
    for user in range(20):
        to, lead, began = naive_change(codes[user], present[user], int(held[user]), int(span[user]), CONFIG)
        assert found.lead[user] == pytest.approx(lead, abs=1e-4)
        if found.to[user] == to:  # two may lead alike
            assert found.began[user] == began


def test_one_odd_item_is_no_change_and_three_in_a_row_are() -> None:
    home = [0] * 8
    assert lead_of([*home, 3], held=0)[1] < 0
    to, lead = lead_of([*home, 3, 3, 3], held=0)
    assert to == 3
    assert lead > 2


def test_where_a_user_goes_now_and_then_says_less_than_where_he_never_was() -> None:
    never = lead_of([0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 3], held=0)[1]
    often = lead_of([0, 3, 0, 3, 0, 3, 0, 0, 3, 3, 3], held=0)[1]
    assert often < never - 2


def test_a_second_item_of_the_same_other_intent_says_less_than_one_of_a_third() -> None:
    home = [0] * 8
    steps = [lead_of([*home, *[3] * n], held=0)[1] for n in (1, 2, 3, 4)]
    gains = np.diff(steps)
    assert (gains > 1).all()
    assert gains[0] > gains[2]  # by then it may be what the user takes now and then


def test_who_comes_back_for_good_to_what_he_left_is_found_within_the_window() -> None:
    config = ChangePointConfig()
    items = [8, 8, 8, 8, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, *[8] * config.window]
    codes, present = codes_of(items, 12, config.memory)
    found = change(codes, present, np.array([0]), np.array([17 + config.window]), config)
    assert (int(found.to[0]), int(found.began[0])) == (8, config.window)
    assert found.lead[0] > ShiftConfig().margin  # a later item would say less: these become part of the user's mixture


def test_while_the_newest_item_is_of_the_held_intent_nothing_leads() -> None:
    assert lead_of([0] * 8 + [3, 3, 3, 3, 0], held=0)[1] == -math.inf


def test_items_from_before_the_held_intent_say_nothing_about_it() -> None:
    assert lead_of([3, 3, 3, 3, 0], held=0, span=1)[1] < 0


def test_coming_back_to_what_was_left_says_less_than_going_where_he_never_was() -> None:
    back, never = (lead_of([left, left, left, 0, 0, 0, 0, 0, 3, 3], held=0, span=7)[1] for left in (3, 2))
    assert back < never - 1


def test_who_takes_anything_has_not_moved() -> None:
    walk = [0, 3, 1, 4, 2, 5, 1, 3, 2]
    settled = lead_of([0] * 9 + [4, 4], held=0)[1]
    assert lead_of([*walk, 4, 4], held=0)[1] < settled - 2


def test_a_change_that_the_older_items_show_as_well_is_the_models() -> None:
    codes, present = codes_of([3] * 8 + [3, 3, 3], 6)
    found = change(codes, present, np.array([0]), np.array([20]), CONFIG)
    assert found.before[0]
    assert (bool(found.stale[0]), int(found.older[0])) == (True, 3)
    moved = change(*codes_of([0] * 8 + [3, 3, 3], 6), np.array([0]), np.array([20]), CONFIG)
    assert not moved.before[0]
    assert not moved.stale[0]
    assert int(moved.began[0]) == 3


def test_without_a_held_intent_or_another_one_nothing_is_said() -> None:
    codes, present = codes_of([1, 1, 1], 3)
    found = change(codes, present, np.array([-1]), np.array([9]), CONFIG)
    assert found.lead[0] == -np.inf
    alone = change(*codes_of([0, 0], 1), np.array([0]), np.array([9]), CONFIG)
    assert alone.lead[0] == -np.inf


def test_users_stand_where_their_newest_items_are() -> None:
    codes, present = codes_of([2, 2, 2, 2, 1, 1, 1], 4)
    assert int(log_likelihood(codes, present, CONFIG).argmax()) == 1
    assert not log_likelihood(*codes_of([], 4), CONFIG).any()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("loyalty", 1.0),
        ("window", 0),
        ("change_share", 0.0),
        ("change_share", 1e-300),
        ("anything", 1e-45),
        ("prior_events", 1e-46),
    ],
)
def test_a_parameter_out_of_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(msgspec.ValidationError, match=name):
        msgspec.convert({name: value}, ChangePointConfig)


def test_shares_that_leave_nothing_for_other_intents_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"loyalty = 0\.9 and anything = 0\.2: must be below 1"):
        msgspec.convert({"loyalty": 0.9, "anything": 0.2}, ChangePointConfig)
