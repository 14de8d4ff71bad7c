"""The intents of a network as others see them: ids, leads, pulls, births."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from learner import EncoderConfig, IdentityConfig, IntentConfig, IntentTracker, LearnerConfig
from learner.network import Network

CONFIG = LearnerConfig(encoder=EncoderConfig(hidden=8), intents=IntentConfig(count=4, queue=0))


def make(identity: IdentityConfig | None = None) -> tuple[IntentTracker, Network]:
    network = Network(CONFIG)
    network.centers.start_from(torch.eye(8)[:4])
    return IntentTracker(identity or IdentityConfig(), network), network


def test_a_view_names_the_nearest_and_its_lead_over_the_held_one() -> None:
    tracker, network = make()
    h = torch.tensor([[3.0, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 5, 4, 0, 0, 0], [0.0] * 8])
    view = tracker.view(h, np.array([False, False, True]), held=np.array([1, 3, 2]))
    assert view.nearest.tolist() == [0, 3, -1]
    assert view.runner_up[0] == 1
    unit = F.normalize(h, dim=-1)
    expected = (unit[0, 0] - unit[0, 1]) / network.centers.config.temperature
    assert view.lead.tolist() == pytest.approx([float(expected), 0, 0], rel=1e-5)
    assert not view.retired.any()
    assert tracker.view(h, np.zeros(3, dtype=bool), held=np.array([9, -1, 0])).retired.tolist() == [True, False, False]


def test_a_pull_is_the_difference_of_cosines_and_nothing_for_no_item() -> None:
    tracker, network = make()
    network.table[1:4] = torch.tensor([[2.0] + [0.0] * 7, [0, 3.0] + [0.0] * 6, [1.0, 1.0] + [0.0] * 6])
    pull = tracker.pull(np.array([[0, 1, 2, 3]]), origin=np.array([1]), to=np.array([0]))
    assert pull[0].tolist() == pytest.approx([0, 1, -1, 0], abs=1e-6)
    retired = tracker.pull(np.array([[0, 1, 2, 3]]), origin=np.array([77]), to=np.array([0]))
    assert retired[0].tolist() == pytest.approx([0, 1, 0, 0.5**0.5], abs=1e-6)


def test_a_birth_moves_the_centre_of_the_network_and_is_no_movement() -> None:
    tracker, network = make(IdentityConfig(check_events=10, youth_events=0, least_users=2, far_distance=0.5))
    tracker.turn(1)
    tracker.observe(torch.eye(8)[:3].repeat(50, 1))
    far = torch.eye(8)[6].repeat(10, 1)
    seen = tracker.observe(far)
    assert seen.distance == pytest.approx(2.0)
    turned = tracker.turn(100)
    (birth,) = turned.births
    assert (birth.place, birth.died, birth.born) == (3, 3, 4)
    assert network.centers.unit()[3].tolist() == pytest.approx(torch.eye(8)[6].tolist(), abs=1e-6)
    assert tracker.view(far[:1], np.array([False])).nearest.tolist() == [4]
    assert tracker.turn(101).movement == pytest.approx(0.0, abs=1e-6)


def test_nobody_is_nowhere() -> None:
    tracker, _ = make()
    seen = tracker.observe(torch.zeros(0, 8))
    assert len(seen.places) == 0
    assert np.isnan(seen.distance)
