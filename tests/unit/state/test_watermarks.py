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
from state.watermarks import BLOCK_EVENTS, Watermarks
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


def naive_clock(times: list[int], size: int, most_ms: int) -> list[int]:
    """Where the clock of one partition stands as each event comes, event by event."""
    clock, block, found = 0, list[int](), []
    for ts in times:
        found.append(clock)
        block.append(ts)
        if len(block) == size:
            middle = sorted(block)[size // 2]
            clock = max(clock, min(middle, clock + most_ms)) if clock else middle
            block = []
    return found


@given(events, st.lists(st.integers(0, 40), max_size=5), st.integers(1, 7))
@settings(max_examples=300, deadline=None)
def test_clocks_agree_with_the_rule_however_the_events_are_cut(
    events: list[Event], sizes: list[int], size: int
) -> None:
    clocks = Watermarks(2, TTL, size)
    found: list[list[int]] = [[], []]
    for step in checkpoint(events, sizes):
        step = sorted(step, key=lambda event: event[0])
        partitions, ts = (np.array([event[at] for event in step], dtype=np.int64) for at in (0, 3))
        for partition, clock in zip(partitions.tolist(), clocks.advance(partitions, ts).tolist(), strict=True):
            found[partition].append(clock)
        again = Watermarks(2, TTL, size)
        again.load_state(clocks.to_state())  # as in a checkpoint
        clocks = again
    assert found == [naive_clock([ts for p, _, _, ts in events if p == at], size, TTL // 4) for at in (0, 1)]


def outcome(
    store: UserStore | MemoryUserStore, events: list[Event], sizes: list[int], swept: list[bool]
) -> tuple[list[bool], str]:
    """The events through the store in steps, some followed by a sweep; what became of each, and the digest."""
    clocks = Watermarks(2, TTL, 5)
    became: dict[int, tuple[bool, bool, bool]] = {}
    first = 0
    for number, step in enumerate(checkpoint(events, sizes)):
        for partition in (0, 1):
            rows = [at for at, event in enumerate(step) if event[0] == partition]
            names = [b"%d" % step[at][1] for at in rows]
            users = list(dict.fromkeys(names))
            index = np.array([users.index(name) for name in names], dtype=np.int64)
            items, ts = (np.array([step[at][column] for at in rows], dtype=np.int64) for column in (2, 3))
            clock = clocks.advance(np.full(len(rows), partition), ts)
            actions = np.zeros(len(rows), dtype=np.uint8)
            done = append(store.read(partition, users), index, items, ts, actions, ttl_ms=TTL, clock=clock)
            store.write(partition, users, done.records)
            marks = zip(done.accepted.tolist(), done.late.tolist(), done.new_user.tolist(), strict=True)
            became |= dict(zip([first + at for at in rows], marks, strict=True))
        first += len(step)
        if swept[number % len(swept)]:
            store.sweep(clocks.now, max_users=2)
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
    assert clocks.to_state() == {"now": [0], "waiting": [[]]}


def test_a_burst_of_wrong_times_moves_a_clock_by_little_and_a_block_holds_few() -> None:
    day = 24 * 3600 * 1000
    clocks = Watermarks(1, 90 * day)
    zeros = np.zeros(BLOCK_EVENTS, dtype=np.int64)
    for ts in (1000 * day, 1001 * day, 9000 * day, 1002 * day):
        clocks.advance(zeros, np.full(BLOCK_EVENTS, ts))
    assert clocks.now[0] / day == 1001 + 90 / 4
    clocks.advance(zeros[1:], zeros[1:] + 1100 * day)
    assert [len(waiting) for waiting in clocks.to_state()["waiting"]] == [BLOCK_EVENTS - 1]
