"""A copy of the model, read from the newest checkpoint beside the worker that writes them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np

from learner.errors import LearnerError
from learner.online.histories import Histories
from learner.online.learner import Learner
from state.errors import StateError
from stream.config import StreamConfig
from stream.engine.publishing import SOURCES
from stream.engine.read_only import load_learner, newest_step
from stream.errors import StreamError
from stream.schema.ranked_items import RankedItems, RankerNotReady, SessionEvent

logger = logging.getLogger(__name__)

REFRESH_S: Final = 5.0


class _Model(NamedTuple):
    learner: Learner
    step: int


class CheckpointRanker:
    """Ranks with the newest checkpoint of a state folder; a thread looks for a newer one and loads it.

    A context manager: the thread lives while it is open. It never reads the worker's live state, so a list is as old as
    the newest checkpoint, which its `step` names. The events that it ranks for come with the request and are as new as
    the caller's.

    Parameters
    ----------
    config
        The worker's.
    state
        The worker's state folder; it may not exist yet.
    """

    def __init__(self, config: StreamConfig, state: Path) -> None:
        self._config = config
        self._state = state
        self._model: _Model | None = None
        self._problem = f"no checkpoint in {state} yet"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_fresh, name="ranker-refresh", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def refresh(self) -> None:
        """Load the newest checkpoint if it is newer than the model; a problem is logged once and keeps the model."""
        try:
            step = newest_step(self._state)
            if step is None or (self._model is not None and self._model.step >= step):
                return
            self._model = _Model(*load_learner(self._config, self._state))
        except (StateError, StreamError, LearnerError, OSError) as exc:  # the worker may just have removed it
            if str(exc) != self._problem:
                self._problem = str(exc)
                logger.warning("lists on request are not made from a newer model: %s", exc)

    @property
    def ready(self) -> bool:
        """Whether a checkpoint is loaded."""
        return self._model is not None

    def _keep_fresh(self) -> None:
        while not self._stop.is_set():
            self.refresh()
            self._stop.wait(REFRESH_S)

    def rank(self, events: Sequence[SessionEvent], k: int, exclude: Collection[str] = ()) -> RankedItems:
        """The k best items for somebody with these events, oldest first; popular ones where there are none."""
        model = self._loaded()
        return _rank(model, self._config, events, k, exclude)

    def similar(self, item: str, k: int, exclude: Collection[str] = ()) -> RankedItems | None:
        """The k best items for somebody who took this one alone; None where the model does not know it."""
        model = self._loaded()
        if not model.learner.lookup([item])[0]:
            return None
        return _rank(model, self._config, [SessionEvent(item, 0, 0)], k, exclude)

    def _loaded(self) -> _Model:
        if self._model is None:
            raise RankerNotReady(self._problem)
        return self._model


def _rank(
    model: _Model, config: StreamConfig, events: Sequence[SessionEvent], k: int, exclude: Collection[str]
) -> RankedItems:
    learner, unwanted = model.learner, set(exclude)
    history = _history(learner, config.learner.max_len, events)
    # An excluded item takes one place at most: behind as many more there are k others.
    ranking = learner.recommend(history, k + len(unwanted))
    found = [
        (item, score)
        for item, score in zip(learner.item_ids(ranking.items[0]), ranking.scores[0].tolist(), strict=True)
        if item and item not in unwanted
    ][:k]
    nearest = int(learner.intents(history).nearest[0])
    return RankedItems(
        items=[item for item, _ in found],
        scores=[score for _, score in found],
        source=SOURCES[int(ranking.source[0])],
        intent=None if nearest < 0 else nearest,
        because=[item for item in learner.item_ids(ranking.because[0]) if item],
        step=model.step,
        model_step=learner.serving_step,
    )


def _history(learner: Learner, length: int, events: Sequence[SessionEvent]) -> Histories:
    """The newest events whose items the model knows, as the history of one user."""
    handles = learner.lookup([event.item for event in events])
    known = np.flatnonzero(handles)[-length:]
    items, actions, ts = (np.zeros((1, length), dtype=kind) for kind in (np.int64, np.uint8, np.int64))
    if len(known):
        items[0, -len(known) :] = handles[known]
        actions[0, -len(known) :] = [events[place].action for place in known]
        ts[0, -len(known) :] = [events[place].ts for place in known]
    return Histories(items, actions, ts)


__all__ = ["CheckpointRanker"]
