from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.histories import append
from state.memory_store import MemoryUserStore
from state.store import UserStore
from state.watermarks import Watermarks
from tests.contracts.test_store_contract import make_memory, make_rocks

Event = tuple[int, int, int, int]  # partition, user, item, ts

TTL = 20
# Times go on, slowly; one in some is very late, one far ahead. Few users and items: duplicates and ties come by.
events = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.integers(0, 3),
        st.integers(1, 4),
        st.one_of(st.integers(0, 6), st.integers(0, 6), st.integers(-300, 0), st.integers(0, 5000)),
    ),
    max_size=120,
).map(lambda rows: [(p, user, item, 1000 + 3 * at + ahead) for at, (p, user, item, ahead) in enumerate(rows)])


WINDOW = 3


def naive_clock(rows: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Clock and floor of one partition as each event (user, time) comes, event by event."""
    clock, floor, block, blocks, found = 0, 0, list[tuple[int, int]](), list[tuple[int, int]](), []
    for user, ts in rows:
        found.append((clock, floor))
        block.append((user, ts))
        if len(block) == size:
            first: dict[int, int] = {}
            for one, at in block:
                first.setdefault(one, at)
            blocks.append((sorted(first.values())[len(first) // 2], len(first)))
            blocks, block = blocks[-WINDOW:], []
            if len(blocks) == WINDOW:
                floor = max(floor, min(at for at, _ in blocks))
            filled = sorted([blocks[0]] * (WINDOW - len(blocks)) + blocks)
            half = sum(weight for _, weight in filled) / 2
            clock = next(
                at for place, (at, _) in enumerate(filled) if sum(weight for _, weight in filled[: place + 1]) >= half
            )
            clock = max(clock, floor)
    return found


@given(events, st.lists(st.integers(0, 40), max_size=5), st.integers(1, 7))
@settings(max_examples=300, deadline=None)
def test_clocks_agree_with_the_rule_however_the_events_are_cut(
    events: list[Event], sizes: list[int], size: int
) -> None:
    clocks = Watermarks(2, TTL, size, WINDOW)
    found: list[list[int]] = [[], []]
    for step in checkpoint(events, sizes):
        step = sorted(step, key=lambda event: event[0])
        partitions, users, ts = (np.array([event[at] for event in step], dtype=np.int64) for at in (0, 1, 3))
        advanced = clocks.advance(partitions, ts, users.astype(np.uint64))
        for partition, clock in zip(partitions.tolist(), advanced.tolist(), strict=True):
            found[partition].append(clock)
        again = Watermarks(2, TTL, size, WINDOW)
        again.load_state(clocks.to_state())  # as in a checkpoint
        clocks = again
    for at in (0, 1):
        expected = naive_clock([(user, ts) for p, user, _, ts in events if p == at], size)
        assert found[at] == [clock for clock, _ in expected]
        assert [floor for _, floor in expected] == sorted(floor for _, floor in expected)
        assert clocks.floor[at] >= (expected[-1][1] if expected else 0)


def outcome(
    store: UserStore | MemoryUserStore, events: list[Event], sizes: list[int], swept: list[bool]
) -> tuple[list[bool], str]:
    """The events through the store in steps, some followed by a sweep; what became of each, and the digest."""
    clocks = Watermarks(2, TTL, 5, WINDOW)
    became: dict[int, tuple[bool, bool, bool]] = {}
    first = 0
    for number, step in enumerate(checkpoint(events, sizes)):
        for partition in (0, 1):
            rows = [at for at, event in enumerate(step) if event[0] == partition]
            names = [b"%d" % step[at][1] for at in rows]
            users = list(dict.fromkeys(names))
            index = np.array([users.index(name) for name in names], dtype=np.int64)
            items, ts = (np.array([step[at][column] for at in rows], dtype=np.int64) for column in (2, 3))
            keys = np.array([step[at][1] for at in rows], dtype=np.uint64)
            clock = clocks.advance(np.full(len(rows), partition), ts, keys)
            actions = np.zeros(len(rows), dtype=np.uint8)
            done = append(store.read(partition, users), index, items, ts, actions, ttl_ms=TTL, clock=clock)
            store.write(partition, users, done.records)
            marks = zip(done.accepted.tolist(), done.late.tolist(), done.new_user.tolist(), strict=True)
            became |= dict(zip([first + at for at in rows], marks, strict=True))
        first += len(step)
        if swept[number % len(swept)]:
            store.sweep(clocks.floor, max_users=2)
    digest = hashlib.blake2b(digest_size=16)
    store.update_digest(digest, clocks.now)
    return [mark for at in sorted(became) for mark in became[at]], digest.hexdigest()


def checkpoint(events: list[Event], sizes: list[int]) -> list[list[Event]]:
    stops = np.cumsum([0, *sizes]).tolist()
    return [events[a:b] for a, b in zip(stops, [*stops[1:], None], strict=True)]


@given(events, st.lists(st.integers(0, 40), max_size=8), st.lists(st.booleans(), min_size=1, max_size=5))
@settings(max_examples=300, deadline=None)
def test_other_steps_and_sweeps_give_the_same_histories_and_digest(
    events: list[Event], sizes: list[int], swept: list[bool]
) -> None:
    with make_memory(Path(), ttl_ms=TTL) as one, make_memory(Path(), ttl_ms=TTL) as other:
        assert outcome(one, events, sizes, swept) == outcome(other, events, [], [False])


@pytest.mark.parametrize("seed", range(4))
def test_other_steps_and_sweeps_give_the_same_on_disk(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 3000
    ahead = np.where(rng.random(n) < 0.1, rng.integers(-500, 0, n), 0) + (rng.random(n) < 0.01) * 10_000
    columns = [rng.integers(0, 2, n), rng.zipf(1.3, n) % 500, rng.integers(1, 9, n), 100_000 + np.arange(n) + ahead]
    rows = [(int(p), int(user), int(item), int(ts)) for p, user, item, ts in zip(*columns, strict=True)]
    with make_rocks(tmp_path / "a", ttl_ms=TTL) as one, make_rocks(tmp_path / "b", ttl_ms=TTL) as other:
        many, digest = outcome(one, rows, rng.integers(0, 50, 100).tolist(), [True])
        assert (many, digest) == outcome(other, rows, [700, 1400], [False])
        swept, kept = (sum(len(users) for p in (0, 1) for users, _ in store.scan(p)) for store in (one, other))
        assert swept < kept


def test_without_a_time_to_live_no_clock_goes() -> None:
    clocks = Watermarks(1, 0, 2)
    assert clocks.advance(np.zeros(5, dtype=np.int64), np.arange(5) + 1000).tolist() == [0] * 5
    assert clocks.to_state()["now"] == clocks.to_state()["floor"] == [0]


DAY = 24 * 3600 * 1000


def run(clocks: Watermarks, ts: list[int], users: list[int]) -> None:
    clocks.advance(np.zeros(len(ts), dtype=np.int64), np.array(ts), np.array(users, dtype=np.uint64))


def test_no_number_of_events_of_one_user_from_the_future_moves_a_clock() -> None:
    clocks = Watermarks(1, 90 * DAY)
    run(clocks, [DAY + at for at in range(5120)], [at % 300 for at in range(5120)])
    before = int(clocks.now[0])
    run(clocks, [27_000 * DAY] * 7680, [7] * 7680)
    assert before <= clocks.now[0] < 2 * DAY and clocks.floor[0] < 2 * DAY


def test_eight_blocks_from_the_future_by_many_users_do_not_move_a_clock() -> None:
    clocks = Watermarks(1, 90 * DAY)
    run(clocks, [DAY + at for at in range(512)], [at % 300 for at in range(512)])
    run(clocks, [27_000 * DAY] * 2048, list(range(2048)))
    assert DAY <= clocks.now[0] < 2 * DAY


def test_a_clock_that_was_moved_comes_back() -> None:
    clocks = Watermarks(1, 90 * DAY)
    run(clocks, [DAY] * 512, list(range(512)))
    run(clocks, [27_000 * DAY] * 6144, list(range(6144)))
    assert clocks.now[0] == 27_000 * DAY and clocks.floor[0] == 0
    run(clocks, [2 * DAY] * 6144, list(range(6144)))
    assert clocks.now[0] == 2 * DAY
    run(clocks, [2 * DAY] * 2048, list(range(2048)))
    assert clocks.now[0] == clocks.floor[0] == 2 * DAY


def test_a_state_of_the_release_before_keeps_its_clocks() -> None:
    clocks = Watermarks(2, 90 * DAY, block_events=2)
    clocks.load_state({"now": [0, 5 * DAY], "waiting": [[1], []]})
    assert clocks.now.tolist() == [0, 5 * DAY]
    clocks.advance(np.array([1, 1]), np.array([6 * DAY, 6 * DAY]))
    assert clocks.now.tolist() == [0, 5 * DAY] and clocks.floor.tolist() == [0, 0]
