"""Accuracy from ranks: hit rate and NDCG at several list lengths, cumulative and over a window of events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

CUTOFFS: Final = (5, 10, 20)
UNRANKED: Final = 1 << 40  # rank of an item that cannot be ranked: new, or in the user's own history
NOT_EVALUATED: Final = -1


class RankMetrics:
    """Cumulative HR@K and NDCG@K of ranks counted from 0.

    Examples
    --------
    >>> metrics = RankMetrics()
    >>> metrics.add(np.array([0, 7, UNRANKED]))
    >>> {name: round(value, 3) for name, value in metrics.result().items()}  # doctest: +NORMALIZE_WHITESPACE
    {'hr@5': 0.333, 'hr@10': 0.667, 'hr@20': 0.667, 'ndcg@5': 0.333, 'ndcg@10': 0.438, 'ndcg@20': 0.438, 'n': 3}
    """

    def __init__(self, cutoffs: Sequence[int] = CUTOFFS) -> None:
        self.cutoffs = tuple(cutoffs)
        self.n = 0
        self._hits = np.zeros(len(self.cutoffs), dtype=np.int64)
        self._gains = np.zeros(len(self.cutoffs), dtype=np.float64)

    def add(self, ranks: NDArray[np.integer[Any]]) -> None:
        """Count ranks (n,); negative ones, which were not evaluated, are left out."""
        ranks = ranks[ranks >= 0]
        self.n += len(ranks)
        ranks = ranks[ranks < max(self.cutoffs)]
        gains = 1 / np.log2(ranks + 2.0)
        for place, k in enumerate(self.cutoffs):
            hit = ranks < k
            self._hits[place] += int(hit.sum())
            self._gains[place] += float(gains[hit].sum())

    def result(self) -> dict[str, float]:
        """`hr@K` and `ndcg@K` for each K, and `n`; all 0 before the first rank."""
        n = max(self.n, 1)
        hr = {f"hr@{k}": float(hits / n) for k, hits in zip(self.cutoffs, self._hits, strict=True)}
        ndcg = {f"ndcg@{k}": float(gain / n) for k, gain in zip(self.cutoffs, self._gains, strict=True)}
        return {**hr, **ndcg, "n": self.n}

    def to_state(self) -> dict[str, Any]:
        """The sums, JSON-able; Python's JSON keeps every bit of a float."""
        return {
            "cutoffs": list(self.cutoffs),
            "n": self.n,
            "hits": self._hits.tolist(),
            "gains": self._gains.tolist(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> RankMetrics:
        """The metrics of a `to_state`."""
        metrics = cls(state["cutoffs"])
        metrics.n = int(state["n"])
        metrics._hits = np.array(state["hits"], dtype=np.int64)
        metrics._gains = np.array(state["gains"], dtype=np.float64)
        return metrics


class WindowedRankMetrics:
    """HR@K and NDCG@K of the newest `size` ranks."""

    def __init__(self, size: int, cutoffs: Sequence[int] = CUTOFFS) -> None:
        if size < 1:
            raise ValueError(f"size of the window must be >= 1 ranks, got {size}")
        self.size = size
        self.cutoffs = tuple(cutoffs)
        self._ranks = np.zeros(size, dtype=np.int64)
        self._added = 0

    def add(self, ranks: NDArray[np.integer[Any]]) -> None:
        """Count ranks (n,), over the oldest; negative ones, which were not evaluated, are left out."""
        ranks = ranks[ranks >= 0]
        kept = ranks[-self.size :]
        first = self._added + len(ranks) - len(kept)
        self._ranks[(first + np.arange(len(kept))) % self.size] = kept
        self._added += len(ranks)

    def result(self) -> dict[str, float]:
        """The same keys as `RankMetrics.result`."""
        metrics = RankMetrics(self.cutoffs)
        metrics.add(self._ranks[: min(self._added, self.size)])
        return metrics.result()


__all__ = ["CUTOFFS", "NOT_EVALUATED", "RankMetrics", "UNRANKED", "WindowedRankMetrics"]
