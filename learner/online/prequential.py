"""Test, then train: events in chunks, each ranked before statistics and ranker are updated with it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from learner.config import LearnerConfig
from learner.metrics import NOT_EVALUATED
from learner.online.item_statistics import ItemStatistics
from learner.online.network import Network
from learner.online.ranker import Ranker
from learner.online.recommender import HistoryRows, Recommender
from learner.online.vocabulary import Vocabulary


class Model(NamedTuple):
    """What learns from the stream: by gradients, by counts, and the mix of both."""

    network: Network
    statistics: ItemStatistics
    ranker: Ranker


class Events(NamedTuple):
    """n events as table rows."""

    histories: HistoryRows
    """of the users just before each event"""
    rows: NDArray[np.int64]
    """(n,) of the items taken, 0 = given away meanwhile"""
    gap: NDArray[np.float64]
    """(n,) seconds since the event before"""
    positive: NDArray[np.bool_]
    """(n,) False = dislike"""


class Opponent(Protocol):
    """A model that is compared with the one that answers; a `Trial`."""

    control: Model

    @property
    def control_leads(self) -> bool:
        """Whether the control answers."""

    def compare(self, acting: NDArray[np.int64], control: NDArray[np.int64]) -> None:
        """Add the ranks (m,) of the items taken in the same events, by both."""


class PrequentialModel:
    """One model over the chunks of a step.

    Parameters
    ----------
    config
        Sections `mix` and `item_statistics`.
    vocabulary
        Read only.
    model
        Its statistics and ranker learn.
    events
        All events of the step.
    update_window
        An event is a follower of so many of the newest items; 0 = as many as the configuration says.
    """

    def __init__(
        self, config: LearnerConfig, vocabulary: Vocabulary, model: Model, events: Events, update_window: int = 0
    ) -> None:
        self._model, self._events, self._window = model, events, update_window
        self._generations = vocabulary.generations
        self._recommender = Recommender(config, vocabulary, *model)
        self._h = model.network.encode(events.histories.liked)
        self._anchors = self._recommender.anchors(events.histories.liked)
        self._popular = model.statistics.popular(vocabulary.size + 1, config.mix.popular)

    def rank(self, places: NDArray[np.int64], known: NDArray[np.bool_]) -> tuple[NDArray[np.int64], float]:
        """Rank the items taken in the events at `places` (p,), then train the ranker on those that were `known` (p,).

        Returns the ranks, (p,), and the mean loss before training, nats.
        """
        events, model = self._events, self._model
        h = self._h[torch.from_numpy(places)]
        query = self._recommender.query(events.histories.select(places), events.gap[places], h)
        candidates = model.ranker.candidates(model.statistics, self._generations, query, self._popular)
        return model.ranker.learn(candidates, events.rows[places], known)

    def count(self, chunk: slice, new: NDArray[np.bool_]) -> None:
        """Count the events of a chunk; items that are `new` in it get their first vector."""
        events, model = self._events, self._model
        rows, positive = events.rows[chunk], events.positive[chunk]
        model.statistics.update(self._anchors[chunk], rows, self._generations, positive, self._window)
        model.network.warm_start(rows[new], events.histories.liked[chunk][new])


class ChunkResult(NamedTuple):
    """What the events of a step showed."""

    ranks: NDArray[np.int64]
    """(n,) as in `PrequentialResult.placed`"""
    loss: float
    """mean loss, nats; not a number where there was none"""
    new_items: int
    """events on an item never seen before"""


def learn_in_chunks(
    config: LearnerConfig,
    vocabulary: Vocabulary,
    model: Model,
    events: Events,
    trial: Opponent | None,
    update_window: int,
) -> ChunkResult:
    """Rank the events with the model, chunk by chunk, and let it learn each chunk; a trial's control does the same.

    The ranks are of the model, or of the control while that leads. Only the model counts with `update_window`.
    """
    acting = PrequentialModel(config, vocabulary, model, events, update_window)
    control = None if trial is None else PrequentialModel(config, vocabulary, trial.control, events)
    rows = events.rows
    ranks = np.full(len(rows), NOT_EVALUATED, dtype=np.int64)
    losses, learned, new_items = 0.0, 0, 0
    wanted = np.asarray((events.histories.liked > 0).any(axis=1)) & events.positive
    for start in range(0, len(rows), config.mix.chunk):
        chunk = slice(start, start + config.mix.chunk)
        new = model.statistics.first_events(rows[chunk])
        new_items += int(new.sum())
        places = start + np.flatnonzero(wanted[chunk])
        if len(places):
            known = (model.statistics.seen[rows[places]] > 0) | ~new[places - start]
            found, loss = acting.rank(places, known)
            if trial is not None and control is not None:
                other, other_loss = control.rank(places, known)
                leads = trial.control_leads
                trial.compare(found, other)
                found, loss = (other, other_loss) if leads else (found, loss)
            ranks[places] = found
            if np.isfinite(loss):
                losses, learned = losses + loss * len(places), learned + len(places)
        acting.count(chunk, new)
        if control is not None:
            control.count(chunk, new)
    return ChunkResult(ranks, losses / learned if learned else float("nan"), new_items)


__all__ = ["ChunkResult", "Events", "Model", "Opponent", "PrequentialModel", "learn_in_chunks"]
