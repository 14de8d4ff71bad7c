"""How often events hit the lists published before them, and how high the learner ranks them before it learns them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learner.metrics import RankMetrics, WindowedRankMetrics

RECENT_RANKS: Final = 10_000  # newest scored events behind the accuracy gauges: a fall shows within minutes


class ServedScore(NamedTuple):
    """What the published lists were worth to the events of a step."""

    events: int
    """events whose user had a published list and whose action is no dislike"""
    hits: int
    """of those, on an item of the list"""


class Accuracy:
    """Served and prequential accuracy, since the start and of the newest events."""

    def __init__(self) -> None:
        self.served = RankMetrics()
        self.prequential = RankMetrics()
        # For the gauges only, so not in the checkpoint: recovery fills them again from the journal's steps.
        self._recent_served = WindowedRankMetrics(RECENT_RANKS)
        self._recent_prequential = WindowedRankMetrics(RECENT_RANKS)

    def score_published(
        self, lists: NDArray[np.int64], published: NDArray[np.bool_], items: NDArray[np.int64]
    ) -> ServedScore:
        """Count where the items of n events stand in the lists last published for their users.

        Parameters
        ----------
        lists
            (n, k) handles, 0 where there is no item.
        published
            (n,) whether the event counts: there is a list, and the action is no dislike.
        items
            (n,) handles, 0 for an item not known yet.
        """
        listed = lists[published]  # (m, k)
        hits = (listed == items[published, None]) & (listed != 0)
        hit = hits.any(axis=1)
        ranks = np.where(hit, hits.argmax(axis=1), lists.shape[1])
        self.served.add(ranks)
        self._recent_served.add(ranks)
        return ServedScore(len(hit), int(hit.sum()))

    def add_prequential(self, ranks: NDArray[np.int64]) -> None:
        """Count ranks (n,) from before the events were learned; negative ones were not evaluated."""
        self.prequential.add(ranks)
        self._recent_prequential.add(ranks)

    def gauges(self) -> dict[str, float]:
        """Accuracy of the newest `RECENT_RANKS` scored events, so that a fall shows however long the stream runs.

        Before the first one, after a restart too, it is left out: a 0 would look like a fall.
        """
        gauges: dict[str, float] = {}
        for kind, recent in (("served", self._recent_served), ("prequential", self._recent_prequential)):
            found = recent.result()
            if found["n"]:
                gauges |= {f"{kind}_{name}": round(value, 5) for name, value in found.items()}
        return gauges

    def to_state(self) -> dict[str, Any]:
        """The sums since the start."""
        return {"served": self.served.to_state(), "prequential": self.prequential.to_state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what `to_state` gave."""
        self.served = RankMetrics.from_state(state["served"])
        self.prequential = RankMetrics.from_state(state["prequential"])


__all__ = ["Accuracy", "RECENT_RANKS", "ServedScore"]
