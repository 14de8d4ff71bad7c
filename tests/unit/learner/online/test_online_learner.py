"""The learner in five lines: what it remembers, and that it is the `Learner` with histories kept by hand."""

from __future__ import annotations

import numpy as np
import pytest

from learner.config import LearnerConfig
from learner.model.config import EncoderConfig, IntentConfig
from learner.online.histories import Histories
from learner.online.learner import Learner
from learner.online.online_learner import OnlineLearner
from learner.online.step import StepBatch

SMALL = LearnerConfig(
    max_len=4, replay=16, recent_pairs=100, encoder=EncoderConfig(hidden=8), intents=IntentConfig(count=3, queue=16)
)
USERS = [f"u{n % 5}" for n in range(60)]
ITEMS = [f"i{(n * 7 + n // 5) % 11}" for n in range(60)]


def learned(**options: int) -> OnlineLearner:
    learner = OnlineLearner(SMALL, **options)
    learner.learn(USERS, ITEMS, range(60))
    return learner


def test_it_is_the_learner_with_histories_kept_by_hand() -> None:
    ours, plain = learned(step_events=16), Learner(SMALL)
    history: dict[str, list[int]] = {user: [0, 0, 0, 0] for user in USERS}
    for start in range(0, 60, 16):
        users, items = USERS[start : start + 16], ITEMS[start : start + 16]
        handles = plain.admit(items, np.arange(start, start + len(items)))
        contexts = np.zeros((len(users), 4), np.int64)
        for event, user in enumerate(users):
            contexts[event] = history[user][-4:]
            history[user].append(int(handles[event]))
        plain.observe(
            StepBatch(
                users=np.array([int(user[1:]) for user in users], np.uint64),
                histories=Histories.of_items(contexts),
                items=handles,
                weights=np.ones(len(users), np.float32),
                ts=np.arange(start, start + len(users)),
            ),
            evaluate=False,
        )
        plain.learn(1)
    own = Histories.of_items(np.array([history["u3"][-4:]]))
    ranking = plain.recommend(own, 5)
    assert ours.recommend("u3", k=5) == [item for item in plain.item_ids(ranking.items[0]) if item]
    assert ours.intent("u3") == int(plain.intents(own).nearest[0])


def test_answers_change_nothing_and_leave_out_the_newest_history() -> None:
    learner = learned()
    newest = [item for user, item in zip(USERS, ITEMS, strict=True) if user == "u2"][-4:]
    listed = learner.recommend("u2", k=20)
    assert listed and not set(listed) & set(newest)
    assert learner.recommend("u2", k=20) == listed and learner.recommend("u2", k=3) == listed[:3]
    assert learner.intent("u2") is not None


def test_an_unknown_user_gets_the_popular_items_and_no_intent() -> None:
    learner = learned()
    assert len(learner.recommend("nobody", k=4)) == 4
    assert learner.intent("nobody") is None
    assert OnlineLearner(SMALL).recommend("nobody") == []


def test_a_forgotten_user_is_unknown() -> None:
    learner = learned()
    learner.forget("u1")
    learner.forget("never there")
    assert learner.intent("u1") is None
    assert learner.recommend("u1", k=4) == learner.recommend("nobody", k=4)


def test_the_longest_unseen_user_leaves_when_there_are_too_many() -> None:
    learner = OnlineLearner(SMALL, max_users=2)
    learner.learn(["a", "b", "a", "c"], ["x", "y", "z", "x"], range(4))
    assert learner.intent("b") is None
    assert learner.intent("a") is not None and learner.intent("c") is not None


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="equally long, got 1, 2, 1"):
        OnlineLearner(SMALL).learn(["a"], ["x", "y"], [1])
    with pytest.raises(ValueError, match="got 0 and 256"):
        OnlineLearner(SMALL, max_users=0)
