"""An action against a drift is a bet: while it is on trial a control goes on without it, and the loser is dropped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from learner.config import LearnerConfig
from learner.metrics import UNRANKED
from learner.online.learner import Learner
from learner.online.network import RefusedStep
from tests.unit.learner.online.test_learner import CONFIG, TINY, Stream, digest, make, run

WINDOW = 6


def act(learner: Learner, stream: Stream, steps: int) -> None:
    """Steps in which the learner does all that it may do against a drift."""
    learner.fade_followers(0.01)
    for _ in range(steps):
        learner.observe(stream.batch(), update_window=WINDOW)
        learner.learn(5, rate=2.0, newest=100, control_steps=1)
        learner.age_popularity(50)
        learner.maintain_centers(stream.number)


def pair(config: LearnerConfig) -> tuple[Learner, Stream, Learner, Stream]:
    """Two equal learners on equal streams."""
    one, two = make(config), make(config)
    stream, same = Stream(one), Stream(two)
    for learner, of in ((one, stream), (two, same)):
        run(learner, of, 20)
    assert digest(one) == digest(two)
    return one, stream, two, same


def decide(learner: Learner, acting: int, control: int) -> None:
    """Let the learner that acts rank 600 items at `acting`, and the control at `control`."""
    assert learner.trial is not None
    learner.trial.compare(np.full(600, acting), np.full(600, control))


@pytest.mark.parametrize("config", [CONFIG, TINY], ids=["default", "recycling"])
def test_actions_that_do_not_pay_leave_nothing_behind(config: LearnerConfig) -> None:
    """Weights, moments, counts, what is replayed and every generator are what they are without the actions."""
    acting, stream, idle, same = pair(config)
    acting.begin_trial(seed=1)
    act(acting, stream, 10)
    for _ in range(10):
        idle.observe(same.batch())
        idle.learn(1)
        idle.maintain_centers(same.number)
    decide(acting, acting=UNRANKED, control=0)
    assert not acting.end_trial()
    assert acting.trial is None
    assert acting.model_step > idle.model_step  # it counts the steps made
    arrays, expected = acting._parts.arrays(), idle._parts.arrays()
    assert arrays.keys() == expected.keys()
    for name in arrays:
        if not name.startswith(("identity.", "merging.")):  # the intents followed the learner that acted
            assert np.array_equal(arrays[name], expected[name]), name
    tensors, wanted = acting._parts.tensors(), idle._parts.tensors()
    for name in wanted:
        assert name == "steps" or np.array_equal(tensors[name].detach().numpy(), wanted[name].detach().numpy()), name
    assert acting.observe(stream.batch()).ranks.tolist() == idle.observe(same.batch()).ranks.tolist()
    assert acting.learn(1) == idle.learn(1)


def test_actions_that_pay_are_kept() -> None:
    acting, stream, _, _ = pair(CONFIG)
    acting.begin_trial(seed=1)
    act(acting, stream, 5)
    statistics, network = acting._parts.statistics, acting._parts.network
    table = network.table.clone()
    decide(acting, acting=0, control=UNRANKED)
    assert acting.end_trial()
    assert acting._parts.statistics is statistics
    assert bool((network.table == table).all())


def test_what_was_compared_on_too_few_events_is_not_kept() -> None:
    acting, stream, _, _ = pair(CONFIG)
    acting.begin_trial(seed=1)
    act(acting, stream, 2)
    assert acting.trial is not None and not acting.trial.lost
    assert not acting.end_trial()


def test_whoever_leads_answers() -> None:
    acting, stream, idle, same = pair(CONFIG)
    acting.begin_trial(seed=1)
    act(acting, stream, 4)
    for _ in range(4):
        idle.observe(same.batch())
        idle.learn(1)
    histories = stream.users()
    decide(acting, acting=0, control=UNRANKED)
    own = acting.recommend(histories, 10)
    decide(acting, acting=UNRANKED, control=0)
    decide(acting, acting=UNRANKED, control=0)
    without = acting.recommend(histories, 10)
    assert without.items.tolist() == idle.recommend(histories, 10).items.tolist()
    assert without.items.tolist() != own.items.tolist()
    # so do the ranks of the next events, up to the first update
    batch, again = stream.batch(), same.batch()
    assert acting.observe(batch).ranks.tolist() == idle.observe(again).ranks.tolist()


def test_a_learner_that_acts_badly_loses_its_trial() -> None:
    """Nothing has drifted: to throw the counts away does harm, which is seen in the stream itself."""
    acting, stream, _, _ = pair(CONFIG)
    run(acting, stream, 60)
    acting.begin_trial(seed=1)
    for _ in range(40):
        acting.fade_followers(1e-6)
        acting.observe(stream.batch())
        acting.learn(1)
    assert acting.trial is not None
    assert acting.trial.lost and acting.trial.control_leads and not acting.trial.won


@pytest.mark.parametrize("config", [CONFIG, TINY], ids=["default", "recycling"])
def test_a_trial_survives_a_checkpoint(tmp_path: Path, config: LearnerConfig) -> None:
    acting, stream, _, _ = pair(config)
    acting.begin_trial(seed=1)
    act(acting, stream, 5)
    acting.save(tmp_path / "learner")
    again = make(config)
    again.load(tmp_path / "learner")
    assert digest(again) == digest(acting)
    ends = []
    for learner in (acting, again):
        own = Stream(learner, seed=7)
        act(learner, own, 5)
        ends.append((digest(learner), learner.end_trial(), digest(learner)))
    assert ends[0] == ends[1]


def test_a_table_may_grow_in_a_trial(tmp_path: Path) -> None:
    config = LearnerConfig(**{name: getattr(CONFIG, name) for name in CONFIG.__struct_fields__} | {"capacity": 5000})
    learner = make(config)
    stream = Stream(learner)
    run(learner, stream, 5)
    learner.begin_trial(seed=1)
    learner.admit([f"more {number}" for number in range(3000)], np.arange(3000))
    act(learner, stream, 3)
    assert not learner.end_trial()
    run(learner, stream, 3)
    learner.save(tmp_path / "learner")
    again = make(config)
    again.load(tmp_path / "learner")
    assert digest(again) == digest(learner)


def test_to_forget_a_user_reaches_the_control() -> None:
    acting, stream, _, _ = pair(CONFIG)
    acting.begin_trial(seed=1)
    act(acting, stream, 2)
    assert acting.trial is not None
    refused = acting.trial.control.network.refused
    refused.append(RefusedStep(1, 1.0, 1.0, np.zeros((1, 8), dtype=np.int64), np.ones(1, dtype=np.int64)))
    acting.forget(3)
    assert not refused
