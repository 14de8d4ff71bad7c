"""Lists for users: candidates, their scores and the items behind them, from one set of weights. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from learner.config import LearnerConfig
from learner.online.item_statistics import ItemStatistics
from learner.online.network import Weights
from learner.online.ranker import Ranker, RankingQuery
from learner.online.step import SOURCE_MODEL, SOURCE_POPULAR, Ranking
from learner.online.vocabulary import Vocabulary

_RANKED_AT_ONCE: Final = 256  # users; bounds the memory of a matrix of users by items, and of users by intents
_SOON: Final = 30.0  # seconds after a user's newest event at which a list is used, if no time is given
_REASONS: Final = 3  # recent items named as reasons


class HistoryRows(NamedTuple):
    """Table rows of B users' histories of L items, right-aligned, 0 = none."""

    liked: NDArray[np.int64]
    """(B, L) without the items that the user dislikes"""
    all: NDArray[np.int64]
    """(B, L) dislikes included: none of them is recommended"""

    def select(self, users: NDArray[np.int64]) -> HistoryRows:
        """The histories of some of the users."""
        return HistoryRows(self.liked[users], self.all[users])


class Recommender:
    """Ranks items for users with one network and one ranker, over shared item statistics.

    Parameters
    ----------
    config
        Sections `mix` and `item_statistics`.
    vocabulary, statistics
        Read only.
    weights, ranker
        Whose scores the lists hold: those that learn, or a snapshot's.
    """

    def __init__(
        self,
        config: LearnerConfig,
        vocabulary: Vocabulary,
        weights: Weights,
        statistics: ItemStatistics,
        ranker: Ranker,
    ) -> None:
        self._config = config
        self._vocabulary, self._statistics = vocabulary, statistics
        self._weights, self._ranker = weights, ranker

    def query(self, histories: HistoryRows, gap: NDArray[np.float64], h: Tensor) -> RankingQuery:
        """The ranker's view of users with these histories, user vectors h (B, d) and seconds since the newest (B,)."""
        network = None
        if self._config.mix.parts != "item_statistics":
            network = self._weights.log_probabilities(h, self._vocabulary.size + 1)
        liked = histories.liked
        return RankingQuery(self.anchors(liked), histories.all, (liked > 0).sum(axis=1), gap, network)

    def anchors(self, liked: NDArray[np.int64]) -> NDArray[np.int64]:
        """The newest items of histories (B, L), newest first, (B, A)."""
        depth = max(self._config.item_statistics.candidate_window, self._config.item_statistics.update_window)
        return np.ascontiguousarray(liked[:, ::-1][:, :depth])

    def recommend(
        self, histories: HistoryRows, ts: NDArray[np.int64], k: int, now: NDArray[np.int64] | None = None
    ) -> Ranking:
        """Top-k of all items but those in the histories.

        Parameters
        ----------
        histories
            Of B users.
        ts
            (B, L) epoch milliseconds of the events in the histories.
        k
            Length of the lists.
        now
            (B,) when the lists are to be used, epoch milliseconds; None = right after the newest event.
        """
        liked, excluded = histories
        B = len(liked)
        items, scores = np.zeros((B, k), dtype=np.int64), np.zeros((B, k), dtype=np.float32)
        cold = np.asarray(~(liked > 0).any(axis=1))
        source = np.where(cold, SOURCE_POPULAR, SOURCE_MODEL).astype(np.uint8)
        because = _newest(liked, _REASONS)
        if B and self._vocabulary.size:
            gap = np.full(B, _SOON) if now is None else np.maximum(now - ts[:, -1], 0) / 1000.0
            query = self.query(histories, gap, self._weights.encode(liked))
            rows, scores, reasons = self._listed(query, cold, k, self._config.mix.popular)
            short = np.flatnonzero((rows == 0).any(axis=1) | cold)
            if len(short):  # so many popular ones that k remain when the whole history is taken out
                most = 2 * (k + int((excluded[short] > 0).sum(axis=1).max()))
                rows[short], scores[short], reasons[short] = self._listed(query.of(short), cold[short], k, most)
            items = self._vocabulary.handles(rows)
            because = np.where((reasons > 0).any(axis=1, keepdims=True), reasons, because)
        return Ranking(items, scores, source, self._vocabulary.handles(because))

    def _listed(
        self, query: RankingQuery, cold: NDArray[np.bool_], k: int, popular: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
        """Rows of the best items of B users, (B, k), 0 where there are too few candidates, their scores, (B, k), and
        rows of the items that led to them, (B, 3).
        """
        everybody = self._statistics.popular(self._vocabulary.size + 1, popular)
        candidates = self._ranker.candidates(self._statistics, self._vocabulary.generations, query, everybody)
        best, scores = self._ranker.best(candidates, cold, k)  # (B, k) places, -1 = none
        rows = np.where(best >= 0, candidates.rows[best], 0) if len(candidates.rows) else np.zeros_like(best)
        return rows, scores, self._ranker.reasons(candidates, best, query.anchors, _REASONS)

    def reasons(self, histories: HistoryRows, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Handles of the newest items in one user's history that led to each of `items` (k,) most, (k, 3)."""
        popular = self._statistics.popular(self._vocabulary.size + 1, self._config.mix.popular)
        found = np.zeros((len(items), _REASONS), dtype=np.int64)
        query = self.query(histories, np.full(1, _SOON), self._weights.encode(histories.liked))
        candidates = self._ranker.candidates(self._statistics, self._vocabulary.generations, query, popular)
        for place, row in enumerate(self._vocabulary.rows(items).tolist()):
            best = np.flatnonzero(candidates.rows == row)[None, :1]
            if best.size:
                found[place] = self._ranker.reasons(candidates, best, query.anchors, _REASONS)[0]
        return self._vocabulary.handles(found)


def _newest(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The newest `count` items of each history (B, L), holes left out, newest first, (B, count)."""
    reverse = rows[:, ::-1]
    order = np.argsort(reverse == 0, axis=1, kind="stable")[:, :count]
    newest = np.take_along_axis(reverse, order, axis=1)
    return np.pad(newest, ((0, 0), (0, count - newest.shape[1])))


def batches_of(users: int) -> Iterator[slice]:
    """Parts of so many users that are ranked at once; one, an empty one, of nobody."""
    for start in range(0, max(users, 1), _RANKED_AT_ONCE):
        yield slice(start, start + _RANKED_AT_ONCE)


__all__ = ["HistoryRows", "Recommender", "batches_of"]
