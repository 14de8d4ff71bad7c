"""The intents of a network as others see them: ids, leads, pulls, births, mergers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from learner.config import LearnerConfig
from learner.intents.config import IdentityConfig, MergeConfig
from learner.intents.tracker import IntentTracker
from learner.model.config import EncoderConfig, IntentConfig
from learner.online.network import Network

CONFIG = LearnerConfig(encoder=EncoderConfig(hidden=8), intents=IntentConfig(count=4, queue=0, temperature=0.05))
ITEMS = 10  # per intent; item i belongs to intent (i - 1) // ITEMS


def make(identity: IdentityConfig | None = None, merging: MergeConfig | None = None) -> tuple[IntentTracker, Network]:
    """Four centers along the axes, ten items at each."""
    config = LearnerConfig(
        encoder=CONFIG.encoder,
        intents=CONFIG.intents,
        identity=identity or IdentityConfig(),
        merging=merging or MergeConfig(),
    )
    network = Network(config)
    network.centers.start_from(torch.eye(8)[:4])
    network.table[1 : 4 * ITEMS + 1] = 3 * torch.eye(8)[:4].repeat_interleave(ITEMS, dim=0)
    return IntentTracker(config, network), network


def rows(*intents: int) -> np.ndarray:
    """A history of different items of these intents, newest last."""
    found = [1 + ITEMS * intent + place % ITEMS for place, intent in enumerate(intents)]
    return np.array([[0] * (20 - len(found)) + found])


def test_a_view_says_where_the_newest_items_are() -> None:
    tracker, _ = make()
    view = tracker.view(np.concatenate([rows(2, 2, 2, 1, 1, 1, 1), rows(3), rows()]))
    assert view.nearest.tolist() == [1, 3, -1]
    assert view.best.tolist() == [1, 3, -1]
    assert view.runner_up[0] == 2
    assert view.runner_up[2] == -1
    assert (view.confidence[:2] > 0.5).all()
    assert view.confidence[2] == 0
    assert not view.lead.any()


def test_only_requested_users_are_placed_by_their_newest_items_alone() -> None:
    tracker, _ = make()
    both = np.concatenate([rows(0, 0, 0, 0, 0, 0, 2), rows(1, 1, 1, 1, 1, 1, 3), rows(2, 2, 2)])
    held, span = np.array([0, 1, -1]), np.array([7, 7, 0])
    everybody = tracker.view(both, held, span)
    one = tracker.view(both, held, span, newest_alone=np.array([False, True, False]))
    assert (one.best[0], one.runner_up[0], one.confidence[0]) == (one.nearest[0], -1, 0)
    assert everybody.nearest.tolist() == one.nearest.tolist()
    assert everybody.lead.tolist() == one.lead.tolist()
    for name in ("best", "confidence", "runner_up"):  # who holds no intent is always placed
        assert getattr(everybody, name)[1:].tolist() == getattr(one, name)[1:].tolist()
    left = rows(1, 1, 1, 1, 1, 3, 3, 3, 3)
    tested, placed = (tracker.view(left, held[1:2], np.array([9]), np.array([alone])) for alone in (False, True))
    assert (tested.nearest[0], tested.lead[0] > 0) == (3, True)
    assert (placed.best[0], placed.nearest[0], placed.lead[0]) == (3, 1, 0)  # no test for a change


def test_items_are_looked_up_once_in_a_step_and_anew_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tracker, network = make()
    contexts, items = np.concatenate([rows(0, 0, 1), rows(2)]), np.array([1 + ITEMS, 1 + 2 * ITEMS + 5])
    histories = np.concatenate([contexts[:, 1:], items[:, None]], axis=1)
    fresh = tracker.codes(histories)
    looked_up = []
    look_up = IntentTracker._look_up

    def counted(self: IntentTracker, rows: Any) -> Any:
        looked_up.append(rows)
        return look_up(self, rows)

    monkeypatch.setattr(IntentTracker, "_look_up", counted)
    tracker.observe(contexts, items)
    assert tracker.codes(histories).tolist() == fresh.tolist()
    tracker.view(histories)
    tracker.attraction(histories, np.array([0, 1]), np.array([1, 2]))
    assert len(looked_up) == 1
    others = np.array([[0, 1 + 3 * ITEMS]])  # not seen in the step
    assert tracker.codes(others)[0, 1].argmax() == 3
    assert len(looked_up) == 2
    network.table[1 : 4 * ITEMS + 1] = 3 * torch.eye(8)[[1, 2, 3, 0]].repeat_interleave(ITEMS, dim=0)
    tracker.maintain_centers(1)
    assert tracker.codes(histories)[0, -1].argmax() == 2


def test_a_held_intent_stays_nearest_until_another_one_leads_it() -> None:
    tracker, _ = make()
    both = np.concatenate([rows(0, 0, 0, 0, 0, 0, 0, 2), rows(0, 0, 0, 0, 0, 0, 2, 2, 2)])
    view = tracker.view(both, held=np.array([0, 0]), span=np.array([8, 9]))
    assert view.nearest.tolist() == [0, 2]
    assert view.lead[0] == 0 < 2 < view.lead[1]
    assert view.began[1] == 3
    assert not view.before.any() and not view.stale.any() and not view.retired.any()
    gone = tracker.view(both, held=np.array([9, -1]), span=np.array([8, 9]))
    assert gone.retired.tolist() == [True, False]
    assert gone.nearest.tolist() == gone.best.tolist()


def test_where_the_model_moved_the_held_intent_is_stale() -> None:
    tracker, _ = make()
    view = tracker.view(rows(*[1] * 12), held=np.array([0]), span=np.array([12]))
    assert view.nearest.tolist() == [1]
    assert view.stale[0] or view.before[0]


def test_a_pull_is_the_difference_of_shares_and_nothing_for_no_item() -> None:
    tracker, _ = make()
    pull = tracker.attraction(np.array([[0, 1, 1 + ITEMS, 1 + 2 * ITEMS]]), origin=np.array([1]), to=np.array([0]))
    assert pull[0].tolist() == pytest.approx([0, 1, -1, 0], abs=1e-3)
    retired = tracker.attraction(np.array([[0, 1, 1 + ITEMS]]), origin=np.array([77]), to=np.array([0]))
    assert retired[0].tolist() == pytest.approx([0, 1, 0], abs=1e-3)


def test_a_birth_moves_the_center_of_the_network_and_is_no_movement() -> None:
    identity = IdentityConfig(check_events=10, youth_events=0, least_users=2, far_distance=0.5)
    tracker, network = make(identity)
    network.table[50:60] = torch.eye(8)[6]
    tracker.maintain_centers(1)
    for intent in range(3):
        tracker.observe(np.repeat(rows(intent, intent), 50, axis=0), np.full(50, 1 + ITEMS * intent))
    far = np.array([[0] * 18 + [50, 51]])
    seen = tracker.observe(np.repeat(far, 10, axis=0), np.full(10, 52))
    assert seen.distance == pytest.approx(2.0)
    turned = tracker.maintain_centers(100)
    (birth,) = turned.births
    assert (birth.place, birth.died, birth.born) == (3, 3, 4)
    assert network.centers.unit()[3].tolist() == pytest.approx(torch.eye(8)[6].tolist(), abs=1e-6)
    assert tracker.view(far).nearest.tolist() == [4]
    assert tracker.maintain_centers(101).movement == pytest.approx(0.0, abs=1e-6)


def test_centers_that_users_mix_become_one_intent_with_one_id() -> None:
    tracker, _ = make(merging=MergeConfig(every_events=1, stay=0.2))
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, 6000)  # centers 0 and 1 are mixed by the same users
    before = np.where(kind == 0, rng.integers(0, 2, 6000), kind + 1)
    after = np.where(kind == 0, rng.integers(0, 2, 6000), kind + 1)
    contexts = np.zeros((6000, 20), dtype=np.int64)
    contexts[:, -1] = 1 + ITEMS * before
    seen = tracker.observe(contexts, 2 + ITEMS * after)
    assert set(seen.places.tolist()) == {0, 1, 2, 3}
    (absorbed,) = tracker.maintain_centers(6000).absorbed
    kept = 1 - absorbed
    assert {absorbed, kept} == {0, 1}
    assert tracker.current(np.array([absorbed, 2, -1, 99])).tolist() == [kept, 2, -1, 99]
    view = tracker.view(rows(0, 1, 0, 1, 0, 1, 1, 1), held=np.array([absorbed]), span=np.array([8]))
    assert view.nearest.tolist() == [kept]
    assert view.lead[0] == 0
    entries = tracker.entries()
    assert [entry.intent for entry in entries] == [kept, 2, 3]
    assert sum(entry.share for entry in entries) == pytest.approx(1)
    assert tracker.shares.tolist() == pytest.approx([entry.share for entry in entries])
    assert tracker.vectors()[0, :2].tolist() == pytest.approx([0.5**0.5] * 2, abs=0.05)


def test_an_intent_outlives_the_center_that_gives_it_its_id() -> None:
    identity = IdentityConfig(check_events=10, youth_events=0, least_users=2, far_distance=0.5, half_life_events=100)
    tracker, network = make(identity, MergeConfig(every_events=5000, stay=0.2))
    network.table[50:60] = torch.eye(8)[6]
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 3, 6000)  # centers 0 and 1 are mixed by the same users
    contexts = np.zeros((6000, 20), dtype=np.int64)
    contexts[:, -1] = 1 + ITEMS * np.where(kind == 0, rng.integers(0, 2, 6000), kind + 1)
    tracker.observe(contexts, 2 + ITEMS * np.where(kind == 0, rng.integers(0, 2, 6000), kind + 1))
    (absorbed,) = tracker.maintain_centers(6000).absorbed
    kept = 1 - absorbed
    tracker.observe(np.repeat(np.array([[0] * 18 + [50, 51]]), 10, axis=0), np.full(10, 52))
    others = [absorbed, 2, 3]  # from now on nobody is near the center that names the two
    for _ in range(10):
        tracker.observe(np.concatenate([rows(intent, intent) for intent in others] * 50), np.full(150, 1))
    (birth,) = tracker.maintain_centers(6100).births
    assert (birth.place, birth.died, birth.born) == (kept, absorbed, 4)
    assert sorted(entry.intent for entry in tracker.entries()) == [kept, 2, 3, 4]
    assert tracker.current(np.array([kept, absorbed])).tolist() == [kept, kept]
    assert tracker.view(rows(absorbed, absorbed)).nearest.tolist() == [kept]


def test_nobody_is_nowhere() -> None:
    tracker, _ = make()
    seen = tracker.observe(np.zeros((0, 20), dtype=np.int64), np.zeros(0, dtype=np.int64))
    assert len(seen.places) == 0
    assert np.isnan(seen.distance)
