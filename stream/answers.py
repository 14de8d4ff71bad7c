"""What the state says about one user: the list, the intent, and what decided them. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from learner import Learner, strongest
from state import UserStore
from stream import outputs
from stream.log.murmur2 import partitions_of


@dataclass(frozen=True, slots=True)
class Answer:
    """One user's list as of the state; `history` oldest first, ids of recycled items left out."""

    user: str
    items: list[str]
    scores: list[float]
    source: str
    because: list[str]
    intent: int | None
    history: list[str]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What decided an answer."""

    answer: Answer
    held: int | None  # intent that the user is held to have, None before the first
    held_for: int  # the user's events since then
    confidence: float  # probability of the nearest intent
    runner_up: int | None
    decided: list[tuple[str, float]]  # items of the history that draw to the nearest and away from the runner-up
    reasons: list[list[str]]  # items of the history that led to each item of the list


def answer(learner: Learner, store: UserStore, user: bytes, k: int) -> Answer:
    """Recommend to one user. An unknown one gets the popular items."""
    records = store.read(int(partitions_of([user], store.partitions)[0]), [user])
    histories, actions = np.ascontiguousarray(records["items"]), np.ascontiguousarray(records["actions"])
    ranking = learner.recommend(histories, actions, np.ascontiguousarray(records["ts"]), k)
    found = ranking.items[0] != 0
    view = learner.intents(histories, actions)
    return Answer(
        user=user.decode(),
        items=learner.item_ids(ranking.items[0][found]),
        scores=ranking.scores[0][found].tolist(),
        source=outputs.SOURCES[int(ranking.source[0])],
        because=[item for item in learner.item_ids(ranking.because[0]) if item],
        intent=None if view.nearest[0] < 0 else int(view.nearest[0]),
        history=[item for item in learner.item_ids(histories[0]) if item],
    )


def explanation(learner: Learner, store: UserStore, user: bytes, k: int) -> Explanation:
    """Recommend to one user and say what decided it."""
    found = answer(learner, store, user, k)
    record = store.read(int(partitions_of([user], store.partitions)[0]), [user])
    history, actions = np.ascontiguousarray(record["items"]), np.ascontiguousarray(record["actions"])
    view = learner.intents(history, actions)
    handles = strongest(history, pull := learner.pull(history, actions, view.runner_up, view.nearest), 5)[0]
    pulls = [float(pull[0][np.flatnonzero(history[0] == handle)[-1]]) for handle in handles.tolist() if handle]
    decided = list(zip(learner.item_ids(handles[handles != 0]), pulls, strict=True))
    reasons = learner.reasons(
        history[0], actions[0], np.ascontiguousarray(record["ts"])[0], learner.lookup(found.items)
    )
    held = int(record["intent"][0])
    return Explanation(
        answer=found,
        held=None if held < 0 else held,
        held_for=int(record["intent_events"][0]),
        confidence=float(view.confidence[0]),
        runner_up=None if view.runner_up[0] < 0 else int(view.runner_up[0]),
        decided=[(item, value) for item, value in decided if item],
        reasons=[[item for item in learner.item_ids(row) if item] for row in reasons],
    )
