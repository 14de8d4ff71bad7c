from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from state.histories import Appended, append
from state.records import blank_users, user_dtype
from tests.unit.state.naive import Entry, NaiveUser, Outcome, naive_append

DTYPE = user_dtype(max_len=4, list_len=2)
Event = tuple[int, int, int, int]  # user, item, ts, action

# Few users, items, times and actions: ties, duplicates, late events and full histories are the rule here.
tight_events = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 3), st.integers(100, 112), st.integers(0, 1)), max_size=40
)
loose_events = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 1 << 40), st.integers(0, 1 << 42), st.integers(0, 255)), max_size=30
)


def run(
    records: NDArray[np.void], events: list[Event], ttl_ms: int = 0, clock: NDArray[np.int64] | None = None
) -> Appended:
    columns = np.array(events, dtype=np.int64).reshape(-1, 4).T
    return append(records, columns[0], columns[1], columns[2], columns[3].astype(np.uint8), ttl_ms=ttl_ms, clock=clock)


def checkpoint(events: list[Any], sizes: list[int]) -> Iterator[list[Any]]:
    first = 0
    for size in sizes:
        yield events[first : first + size]
        first += size
    yield events[first:]


def rows_of(items: NDArray[np.int64], ts: NDArray[np.int64], actions: NDArray[np.uint8]) -> list[list[Entry]]:
    """Right-aligned matrices back to lists of entries; also checks that nothing lies before them."""
    out = []
    for row in range(len(items)):
        filled = items[row] != 0
        assert not (filled[:-1] & ~filled[1:]).any()
        assert not ts[row][~filled].any() and not actions[row][~filled].any()
        out.append(
            list(zip(items[row][filled].tolist(), ts[row][filled].tolist(), actions[row][filled].tolist(), strict=True))
        )
    return out


def check_against_naive(events: list[Event], sizes: list[int], ttl_ms: int, clock: list[int] | None = None) -> None:
    max_len = DTYPE["items"].shape[0]
    users = [NaiveUser() for _ in range(4)]
    came = list(zip(events, clock or [0] * len(events), strict=False))
    expected = [naive_append(users[event[0]], event[1:], max_len, ttl_ms, at) for event, at in came]
    records, found = blank_users(4, DTYPE), []
    for step in checkpoint(came, sizes):
        times = np.array([at for _, at in step], dtype=np.int64)
        done = run(records, [event for event, _ in step], ttl_ms, times if clock else None)
        contexts = rows_of(done.contexts, done.context_ts, done.context_actions)
        marks = (done.accepted.tolist(), done.late.tolist(), done.new_user.tolist())
        found += [Outcome(*each) for each in zip(*marks, contexts, strict=True)]
        records = done.records
    assert found == expected
    assert rows_of(records["items"], records["ts"], records["actions"]) == [user.entries for user in users]
    assert records["length"].tolist() == [len(user.entries) for user in users]
    assert records["events"].tolist() == [user.events for user in users]
    assert records["seen_ts"].tolist() == [user.seen_ts for user in users]


@given(tight_events, st.lists(st.integers(0, 20), max_size=6), st.sampled_from([0, 2, 5]))
@settings(max_examples=400, deadline=None)
def test_any_cutting_into_steps_agrees_with_the_rule_event_by_event(
    events: list[Event], sizes: list[int], ttl_ms: int
) -> None:
    check_against_naive(events, sizes, ttl_ms)


@given(loose_events, st.lists(st.integers(0, 20), max_size=4))
@settings(max_examples=100, deadline=None)
def test_wide_values_agree_with_the_rule(events: list[Event], sizes: list[int]) -> None:
    check_against_naive(events, sizes, 0)


@given(
    tight_events.map(lambda events: sorted(events, key=lambda event: event[2])),
    st.lists(st.integers(0, 20), max_size=4),
)
@settings(max_examples=200, deadline=None)
def test_events_in_order_agree_with_the_rule(events: list[Event], sizes: list[int]) -> None:
    check_against_naive(events, sizes, 3)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.integers(100, 130), st.integers(0, 1)), max_size=40),
    st.lists(st.integers(0, 40), min_size=40, max_size=40).map(lambda steps: [100 + step for step in sorted(steps)]),
    st.lists(st.integers(0, 20), max_size=6),
    st.sampled_from([2, 5, 12]),
    st.booleans(),
)
@settings(max_examples=400, deadline=None)
def test_users_are_forgotten_by_the_clock_at_each_event(
    events: list[Event], clock: list[int], sizes: list[int], ttl_ms: int, in_order: bool
) -> None:
    events = sorted(events, key=lambda event: event[2]) if in_order else events
    check_against_naive(events, sizes, ttl_ms, clock)


def test_a_long_stream_in_random_steps_agrees_with_the_rule() -> None:
    rng = np.random.default_rng(7)
    ts = 1_700_000_000_000 + np.arange(4000) * 10 + rng.integers(-200, 200, 4000) * (rng.random(4000) < 0.1)
    events = [
        (user, item, when, 0)
        for user, item, when in zip(
            rng.integers(0, 4, 4000).tolist(), rng.integers(1, 50, 4000).tolist(), ts.tolist(), strict=True
        )
    ]
    check_against_naive(events, rng.integers(1, 300, 20).tolist(), 0)


def test_what_goes_in_is_left_as_it_is() -> None:
    records = run(blank_users(1, DTYPE), [(0, 5, 10, 1)]).records
    before = records.copy()
    run(records, [(0, 6, 11, 1), (0, 7, 3, 0), (0, 5, 10, 1)])
    assert np.array_equal(records, before)


def test_no_contexts_unless_wanted() -> None:
    one = np.ones(1, dtype=np.int64)
    done = append(blank_users(2, DTYPE), one, one, one, one.astype(np.uint8), want_contexts=False)
    assert done.contexts.shape == (0, 4) and done.records["items"][1].tolist() == [0, 0, 0, 1]


def test_no_events_no_change() -> None:
    done = run(blank_users(2, DTYPE), [])
    assert np.array_equal(done.records, blank_users(2, DTYPE)) and done.contexts.shape == (0, 4)


def test_an_event_after_the_time_to_live_starts_anew_with_nothing_kept() -> None:
    records = run(blank_users(1, DTYPE), [(0, 5, 10, 1)]).records
    records["list"][0], records["list_step"], records["intent"] = 9, 3, 2
    kept = run(records, [(0, 6, 20, 0)], ttl_ms=10).records
    assert kept["items"][0].tolist() == [0, 0, 5, 6] and kept["list_step"][0] == 3
    anew = run(records, [(0, 6, 21, 0)], ttl_ms=10).records
    assert anew["items"][0].tolist() == [0, 0, 0, 6]
    assert (anew["list_step"][0], anew["intent"][0], anew["events"][0]) == (0, -1, 1)


def test_a_user_whose_events_come_late_is_seen_when_they_come() -> None:
    """A file sorted by user, say: the clock is far ahead, and what comes together stays together."""
    late = [(0, item, 10 + item, 0) for item in (1, 2, 3)]
    done = run(blank_users(1, DTYPE), late, 100, np.array([5000, 5000, 5200]))
    assert done.records["items"][0].tolist() == [0, 1, 2, 3] and done.new_user.tolist() == [True, False, False]
    done = run(done.records, [(0, 4, 14, 0)], 100, np.array([5401]))
    assert done.records["items"][0].tolist() == [0, 0, 0, 4] and done.new_user.tolist() == [True]


@pytest.mark.parametrize("events", [3000])
def test_one_user_with_all_events_of_a_step_late(events: int) -> None:
    backwards = [(0, 1 + i, 1_000_000 - i, 0) for i in range(events)]
    done = run(blank_users(1, user_dtype(50, 1)), backwards)
    assert done.records["length"][0] == 50 and done.accepted.all() and done.late.sum() == events - 1
    assert done.records["ts"][0].tolist() == list(range(1_000_000 - 49, 1_000_001))
