"""The stand-in: it answers as the learner did when it was copied, and the learner can go back to it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from learner.config import LearnerConfig
from learner.model.config import EncoderConfig, IntentConfig
from learner.online.histories import Histories
from learner.online.learner import Learner
from learner.online.step import Ranking, StepBatch

CONFIG = LearnerConfig(
    max_len=6,
    capacity=400,
    batch=32,
    replay=32,
    recent_pairs=200,
    uniform_pairs=200,
    encoder=EncoderConfig(hidden=16, layers=1, heads=2),
    intents=IntentConfig(count=4, queue=64),
)
ITEMS = 40
L = CONFIG.max_len


def drive(learner: Learner, start: int, stop: int, items: int = ITEMS, teach: bool = True) -> None:
    """Steps in which each of 32 users takes the next item but one of a ring."""
    for step in range(start, stop):
        walk = (np.arange(32)[:, None] + 2 * (step + np.arange(L + 1))) % items
        numbers = step * 1000 + np.arange(walk.size)
        handles = learner.admit([f"i{item}" for item in walk.ravel()], numbers).reshape(walk.shape)
        ts = np.full((32, L), step * 1000, dtype=np.int64)
        users, histories = np.arange(32, dtype=np.uint64), Histories(handles[:, :-1], np.zeros((32, L), np.uint8), ts)
        learner.observe(StepBatch(users, histories, handles[:, -1], np.ones(32, dtype=np.float32), ts[:, 0] + 500))
        if teach:
            learner.learn(2)


def ask(learner: Learner, by: Any = None) -> Ranking:
    histories = learner.lookup([f"i{item}" for item in range(8 * L)]).reshape(8, L)
    return learner.recommend(Histories.of_items(histories), 5, by=by)


def same(one: Ranking, other: Ranking) -> bool:
    return all(bool((np.asarray(a) == np.asarray(b)).all()) for a, b in zip(one, other, strict=True))


def digest(learner: Learner) -> str:
    found = hashlib.blake2b()
    learner.update_digest(found)
    return found.hexdigest()


@pytest.fixture
def learner() -> Learner:
    learner = Learner(CONFIG)
    drive(learner, 0, 12, items=8 * L)
    learner.keep_snapshot()
    return learner


def test_it_answers_as_the_learner_did_and_the_learner_goes_on(learner: Learner) -> None:
    kept, step = ask(learner), learner.model_step
    assert same(ask(learner, "snapshot"), kept)
    learner.learn(30)  # of what is replayed: the item statistics, which both share, stay as they are
    assert same(ask(learner, "snapshot"), kept)
    assert not same(ask(learner, "learner"), kept)
    assert same(ask(learner), ask(learner, "learner"))
    learner.serving = "snapshot"
    assert same(ask(learner), kept)
    assert (learner.serving_step, learner.model_step > step) == (step, True)


def test_without_one_the_learner_answers_and_there_is_nothing_to_go_back_to() -> None:
    learner = Learner(CONFIG)
    drive(learner, 0, 4, items=8 * L)
    before = digest(learner)
    assert same(ask(learner, "snapshot"), ask(learner, "learner"))
    assert not learner.roll_back()
    assert digest(learner) == before


def test_going_back_takes_its_weights_and_goes_on_learning(learner: Learner) -> None:
    kept = ask(learner)
    learner.learn(30)
    steps = learner.model_step
    assert learner.roll_back()
    assert same(ask(learner), kept)
    assert learner.model_step == steps  # a clock, not a version
    learner.learn(5)
    assert not same(ask(learner), kept)
    assert same(ask(learner, "snapshot"), kept)  # it did not move with the learner


def test_an_item_that_came_later_is_known_to_the_memories_alone_and_starts_anew_when_going_back(
    learner: Learner,
) -> None:
    (late,) = learner.admit(["late"], np.array([10**6])).tolist()
    stand_in = learner._parts.snapshot
    assert stand_in is not None
    (row,) = learner._parts.vocabulary.rows(np.array([late])).tolist()
    assert not stand_in.weights.table[row].any()
    assert not stand_in.known(learner.size + 1)[row]
    drive(learner, 12, 20, items=8 * L + 3)
    learned = learner._parts.network.table[row].clone()
    learner.roll_back()
    again = learner._parts.network.table[row]
    assert again.any() and not torch.equal(again, learned)


def test_a_recycled_row_is_forgotten_by_it_too_and_the_table_may_grow() -> None:
    learner = Learner(CONFIG)
    drive(learner, 0, 3, items=8 * L)
    learner.keep_snapshot()
    stand_in = learner._parts.snapshot
    assert stand_in is not None
    names = [f"n{number}" for number in range(CONFIG.capacity - 5)]  # more than remain: the oldest rows are given away
    handles = learner.admit(names, 10**6 + np.arange(len(names)))
    rows = np.unique(learner._parts.vocabulary.rows(handles))
    assert not stand_in.known(learner.size + 1)[rows].any()
    assert stand_in.weights.rows >= learner.size + 1
    assert learner.roll_back()
    assert torch.isfinite(learner._parts.network.table).all()
    assert not learner._parts.network.table[0].any()


@pytest.mark.parametrize("serving", ["learner", "snapshot"])
def test_saved_and_loaded_it_goes_on_bit_for_bit(tmp_path: Path, learner: Learner, serving: Any) -> None:
    drive(learner, 12, 15, items=8 * L + 5)
    learner.serving = serving
    learner.save(tmp_path / "saved")
    other = Learner(CONFIG)
    other.load(tmp_path / "saved")
    assert digest(other) == digest(learner)
    for one in (learner, other):
        drive(one, 15, 18, items=8 * L + 9)
        assert one.roll_back()
        drive(one, 18, 20, items=8 * L + 9)
    assert digest(other) == digest(learner)
    assert same(ask(other), ask(learner))
