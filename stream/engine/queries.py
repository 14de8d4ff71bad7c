"""What the state says about one user: the list, the intent, and what decided them. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learner.intents.shifts import strongest
from learner.intents.tracker import IntentView
from learner.online.histories import Histories
from learner.online.learner import Learner
from stream.engine.publishing import SOURCES


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


def answer(learner: Learner, record: NDArray[Any], user: bytes, k: int) -> Answer:
    """Recommend to one user, whose `record` (1,) is blank when they are unknown: they get the popular items."""
    known = _look_up(learner, record)
    return _answer(learner, user, known, k)


def explanation(learner: Learner, record: NDArray[Any], user: bytes, k: int) -> Explanation:
    """Recommend to one user, whose `record` (1,) this is, and say what decided it."""
    known = _look_up(learner, record)
    found = _answer(learner, user, known, k)
    history, view = known.history, known.view
    items = history.items[0]
    attraction = learner.attraction(history, view.runner_up, view.nearest)
    handles = strongest(history.items, attraction, 5)[0]
    pulls = [float(attraction[0][np.flatnonzero(items == handle)[-1]]) for handle in handles.tolist() if handle]
    decided = list(zip(learner.item_ids(handles[handles != 0]), pulls, strict=True))
    reasons = learner.reasons(history, learner.lookup(found.items))
    return Explanation(
        answer=found,
        held=None if known.held < 0 else known.held,
        held_for=known.held_for,
        confidence=float(view.confidence[0]),
        runner_up=None if view.runner_up[0] < 0 else int(view.runner_up[0]),
        decided=[(item, value) for item, value in decided if item],
        reasons=[[item for item in learner.item_ids(row) if item] for row in reasons],
    )


class _Known(NamedTuple):
    """One user's record, and where they stand among the intents."""

    history: Histories
    held: int
    held_for: int
    view: IntentView


def _look_up(learner: Learner, record: NDArray[Any]) -> _Known:
    history = Histories.of_records(record)
    held, span = learner.current_intents(record["intent"]), record["intent_events"].astype(np.int64)
    view = learner.intents(history, held, span)
    return _Known(history, int(held[0]), int(span[0]), view)


def _answer(learner: Learner, user: bytes, known: _Known, k: int) -> Answer:
    history = known.history
    ranking = learner.recommend(history, k)
    found = ranking.items[0] != 0
    return Answer(
        user=user.decode(),
        items=learner.item_ids(ranking.items[0][found]),
        scores=ranking.scores[0][found].tolist(),
        source=SOURCES[int(ranking.source[0])],
        because=[item for item in learner.item_ids(ranking.because[0]) if item],
        intent=None if known.view.nearest[0] < 0 else int(known.view.nearest[0]),
        history=[item for item in learner.item_ids(history.items[0]) if item],
    )
