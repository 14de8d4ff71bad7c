"""Centers that are one intent, and those that are not."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from learner.errors import LearnerStateError
from learner.intents.config import MergeConfig
from learner.intents.merging import MOST_CENTERS, Merging, merge_groups, transition_similarity

CONFIG = MergeConfig(every_events=100)


def walk(n: int, owner: NDArray[np.int64], stay: float = 0.85, seed: int = 0) -> NDArray[np.int64]:
    """Centers of the items of a user who stays in an intent with this chance; `owner` (K,) is each one's intent."""
    rng = np.random.default_rng(seed)
    pools = [np.flatnonzero(owner == intent) for intent in range(owner.max() + 1)]
    intent, path = 0, []
    for _ in range(n):
        if rng.random() > stay:
            intent = int(rng.integers(len(pools)))
        path.append(int(rng.choice(pools[intent])))
    return np.array(path)


def merged(path: NDArray[np.int64], count: int, config: MergeConfig = CONFIG) -> Merging:
    merging = Merging(config, count)
    merging.observe(path[:-1], path[1:])
    merging.update(np.full(count, 1 / count), len(path))
    return merging


def test_centers_between_which_users_move_freely_are_one() -> None:
    owner = np.random.default_rng(1).integers(0, 5, 24)
    representatives = merged(walk(20_000, owner), 24).representatives
    assert np.array_equal(representatives[:, None] == representatives[None, :], owner[:, None] == owner[None, :])


def test_a_path_that_leads_from_one_center_to_the_next_merges_none() -> None:
    path = np.arange(20_000) % 12
    noise = np.random.default_rng(0).random(20_000) < 0.2
    path = np.where(noise, np.random.default_rng(1).integers(0, 12, 20_000), path)
    assert merged(path, 12).representatives.tolist() == list(range(12))


def test_a_crowd_in_which_nobody_stays_is_no_intent() -> None:
    owner = np.arange(24) % 4
    path = walk(20_000, owner, stay=0.3)
    assert len(np.unique(merged(path, 24, MergeConfig(every_events=100, stay=0.0)).representatives)) == 4
    assert len(np.unique(merged(path, 24).representatives)) == 24


def test_the_similarity_of_transitions_is_that_of_a_loop() -> None:
    moves = np.random.default_rng(2).random((5, 5))
    moves += moves.T
    chance = moves.sum(1) / moves.sum()
    found = transition_similarity(moves)
    for a in range(5):
        for b in range(5):
            one, other = ((moves[i] / moves[i].sum() - chance) / np.sqrt(chance) for i in (a, b))
            wanted = -1.0 if a == b else one @ other / np.linalg.norm(one) / np.linalg.norm(other)
            assert found[a, b] == pytest.approx(wanted)


def test_the_larger_intent_keeps_its_id_and_parts_come_back() -> None:
    owner = np.array([0, 0, 1, 1, 2, 2])
    path = walk(20_000, owner)
    merging = Merging(MergeConfig(every_events=1, half_life_events=2000), 6)
    merging.observe(path[:-1], path[1:])
    shares = np.array([0.1, 0.2, 0.3, 0.1, 0.1, 0.2])
    assert merging.update(shares, 1).tolist() == [0, 3, 4]
    assert merging.representatives.tolist() == [1, 1, 2, 2, 5, 5]
    other = walk(20_000, np.array([0, 1, 1, 2, 2, 3]), seed=3)
    merging.observe(other[:-1], other[1:])
    assert 0 not in merging.leaders
    merging.update(shares, 2)
    assert merging.representatives[0] == 0
    assert 0 in merging.leaders
    assert merging.update(shares, 3).tolist() == []


def test_merged_centers_need_less_to_stay_than_to_become_one() -> None:
    base = walk(6000, np.array([0, 0, 1, 1, 2, 2]))
    moves = np.bincount(base[:-1] * 6 + base[1:], minlength=36).reshape(6, 6).astype(np.float64)
    alike = transition_similarity((moves + moves.T) / 2)[0, 1]
    config = MergeConfig(similarity=min(alike + 0.01, 1.0), slack=0.1, stay=0.0)
    alone, together = np.arange(6), np.array([0, 0, 2, 3, 4, 5])
    assert merge_groups(moves, alone, config)[1] == 1
    assert merge_groups(moves, together, config)[1] == 0


def test_a_center_that_is_placed_anew_stands_alone_and_its_intent_goes_on() -> None:
    merging = merged(walk(20_000, np.array([0, 0, 0, 1, 1, 1])), 6, MergeConfig(every_events=1, stay=0.1))
    head = int(merging.representatives[0])
    heir = 1 if head != 1 else 2
    assert merging.detach(head, np.array([0.1, 0.3, 0.2, 0.1, 0.1, 0.2])) == (heir, True)
    rest = [place for place in range(3) if place != head]
    assert merging.representatives[head] == head
    assert set(merging.representatives[rest].tolist()) == {heir}
    part = min(set(rest) - {heir})
    assert merging.detach(part, np.full(6, 1 / 6)) == (heir, False)  # no more than a part
    assert merging.detach(part, np.full(6, 1 / 6)) is None
    moves = merging.to_arrays()["moves"]
    assert not moves[head].any() and not moves[:, head].any()


def test_updates_are_due_by_events_and_too_many_centers_are_never_merged() -> None:
    path = walk(5000, np.array([0, 0, 1, 1, 2, 2]))
    merging = Merging(MergeConfig(every_events=1000), 6)
    merging.observe(path[:-1], path[1:])
    assert len(merging.update(np.full(6, 1 / 6), 999)) == 0
    assert len(merging.update(np.full(6, 1 / 6), 1000)) == 3
    many = Merging(CONFIG, MOST_CENTERS + 1)
    many.observe(path[:-1], path[1:])
    assert len(many.update(np.ones(MOST_CENTERS + 1), 10**6)) == 0
    assert many.to_arrays()["moves"].size == 0


def test_it_continues_bit_for_bit_and_refuses_another_size() -> None:
    path = walk(6000, np.array([0, 0, 1, 1, 2, 2]))
    one, other = merged(path[:3000], 6), Merging(CONFIG, 6)
    other.load_arrays({name: array.copy() for name, array in one.to_arrays().items()})
    for merging in (one, other):
        merging.observe(path[3000:-1], path[3001:])
        merging.update(np.full(6, 1 / 6), 6000)
    for name, array in one.to_arrays().items():
        assert np.array_equal(array, other.to_arrays()[name]), name
    with pytest.raises(LearnerStateError, match="heads is"):
        Merging(CONFIG, 7).load_arrays(one.to_arrays())
