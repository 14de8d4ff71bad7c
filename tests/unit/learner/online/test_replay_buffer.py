import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.online.replay_buffer import Pairs, Replay


def pairs(start: int, count: int) -> Pairs:
    items = np.arange(start + 1, start + count + 1)
    return Pairs(np.stack([items * 0, items * 10], axis=1), items, np.ones(count, dtype=np.float32))


def filled(counts: list[int], recent: int = 8, uniform: int = 5, seed: int = 0) -> Replay:
    replay = Replay(recent, uniform, 2, seed)
    start = 0
    for count in counts:
        replay.add(np.arange(start, start + count).astype(np.uint64) % np.uint64(7), pairs(start, count))
        start += count
    return replay


@given(st.lists(st.integers(0, 20), max_size=8))
def test_the_ring_holds_the_newest_and_stays_bounded(counts: list[int]) -> None:
    replay = filled(counts)
    total = sum(counts)
    held = set(replay.sample(400, 0).items.tolist()) if total else set()
    assert held <= set(range(max(0, total - 8) + 1, total + 1))
    assert len(replay) == min(total, 8) + min(total, 5)
    assert replay.fresh(0, 99).items.tolist() == list(range(total - min(total, 8) + 1, total + 1))
    sampled = replay.sample(3, 4)
    assert len(sampled.items) == (7 if total else 0)
    assert (sampled.contexts[:, 1] == sampled.items * 10).all()


@pytest.mark.parametrize("again", [False, True], ids=["", "loaded in between"])
def test_what_was_learned_is_fresh_until_more_comes(again: bool) -> None:
    replay = filled([3, 2])
    for unlearned, fresh in ((5, 5), (0, 5), (0, 5)):
        assert (replay.unlearned, replay.last, len(replay.fresh(0, 99).items)) == (unlearned, fresh, fresh)
        replay.mark_learned()
        if again:
            arrays, replay = replay.to_arrays(), filled([])
            replay.load_arrays(arrays)
    for total in (2, 4):
        replay.add(
            np.zeros(2, dtype=np.uint64), Pairs(np.ones((2, 2), np.int64), np.ones(2, np.int64), np.ones(2, np.float32))
        )
        assert (replay.unlearned, replay.last, len(replay.fresh(0, 99).items)) == (total, total, total)


@given(st.lists(st.integers(0, 20), max_size=6), st.integers(1, 12))
def test_only_the_newest_are_drawn_where_that_is_asked(counts: list[int], newest: int) -> None:
    replay, total = filled(counts), sum(counts)
    drawn = replay.sample(150, 50, newest)
    expected = range(total - min(newest, total, 8) + 1, total + 1)
    assert set(drawn.items.tolist()) == set(expected)
    assert len(drawn.items) == (200 if total else 0)


def test_the_reservoir_is_uniform_over_the_whole_stream() -> None:
    kept = np.concatenate([filled([30] * 10, uniform=30, seed=seed).sample(0, 200).items for seed in range(60)])
    thirds = np.histogram(kept, bins=[1, 101, 201, 301])[0] / len(kept)
    assert np.abs(thirds - 1 / 3).max() < 0.06


@given(st.lists(st.integers(0, 20), min_size=1, max_size=6), st.integers(0, 6))
def test_a_forgotten_user_is_in_no_pair(counts: list[int], user: int) -> None:
    replay = filled(counts)
    replay.forget(user)
    drawn = replay.sample(200, 200)
    assert not ((drawn.items - 1) % 7 == user).any()
    assert not (replay.fresh(0, 99).items % 7 == (user + 1) % 7).any()
    assert not (replay.to_arrays()["recent.users"][replay.to_arrays()["recent.items"] != 0] == user).any()


@given(st.lists(st.integers(0, 20), max_size=6))
def test_saved_and_loaded_it_goes_on_the_same(counts: list[int]) -> None:
    one, two = filled(counts), Replay(8, 5, 2, seed=99)
    two.load_arrays(one.to_arrays())
    two.load_random_state(one.random_state())
    for replay in (one, two):
        replay.add(np.arange(9).astype(np.uint64), pairs(1000, 9))
    first, second = one.sample(5, 5), two.sample(5, 5)
    assert np.array_equal(first.items, second.items)
    assert np.array_equal(first.contexts, second.contexts)
    for key, array in one.to_arrays().items():
        assert np.array_equal(array, two.to_arrays()[key]), key
