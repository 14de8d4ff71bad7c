"""The baselines of reports: popular items and item-to-item counts, updated with each event.

Both rank all items seen so far except those of the user's history, as counted just before the event: they test, then
train, event by event: `rank_then_count` ranks the item of each event, then counts the event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from learner.metrics import NOT_EVALUATED, UNRANKED

WINDOW: Final = 20_000  # events that popularity is counted over
FOLLOWERS: Final = 200  # latest followers kept per item
ANCHORS: Final = 3  # newest items of a history that vote, weighted 1, 1/2, 1/3


class PopularBaseline:
    """Rank by the number of events among the last `window` ones.

    Examples
    --------
    >>> baseline = PopularBaseline()
    >>> contexts = np.array([[0, 0], [0, 1], [0, 7]])
    >>> baseline.rank_then_count(contexts, np.array([1, 2, 1])).tolist() == [NOT_EVALUATED, UNRANKED, 0]
    True
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._places: dict[int, int] = {0: 0}  # item handle -> place, in order of first event
        self._counts = np.zeros(1024, dtype=np.int64)
        self._events = np.zeros(window, dtype=np.int64)  # ring of places
        self._taken = 0

    def rank_then_count(self, contexts: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ranks from 0 of items (n,) for users with histories contexts (n, L), as handles; counts each event after it.

        NOT_EVALUATED without history, UNRANKED for an item never seen or in the history.
        """
        ranks = np.full(len(items), NOT_EVALUATED, dtype=np.int64)
        for event, (history, item) in enumerate(zip(contexts, items.tolist(), strict=True)):
            places = self._known(history)
            if history.any():
                place = self._places.get(item)
                ranks[event] = UNRANKED if place is None or place in places else self._rank(places, place)
            self._count(places, self._place(item))
        return ranks

    def _rank(self, history: NDArray[np.int64], place: int) -> int:
        counts = self._counts[1 : len(self._places)]
        own = self._counts[place]
        above = int((counts > own).sum()) - int((self._counts[history] > own).sum())
        # ties: half of them stand before it, so that neither luck nor order of arrival helps
        ties = int((counts == own).sum()) - 1 - int((self._counts[history] == own).sum())
        return above + ties // 2

    def _known(self, history: NDArray[np.int64]) -> NDArray[np.int64]:
        """Distinct places of a history, newest first, those of items never counted left out."""
        get = self._places.get
        found = dict.fromkeys(place for place in map(get, history[history > 0].tolist()[::-1]) if place is not None)
        return np.fromiter(found, dtype=np.int64, count=len(found))

    def _place(self, item: int) -> int:
        place = self._places.setdefault(item, len(self._places))
        if place >= len(self._counts):
            self._grow()
        return place

    def _grow(self) -> None:
        self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])

    def _count(self, history: NDArray[np.int64], place: int) -> None:
        slot = self._taken % len(self._events)
        if self._taken >= len(self._events):
            self._counts[self._events[slot]] -= 1
        self._events[slot] = place
        self._counts[place] += 1
        self._taken += 1


class ItemToItemBaseline(PopularBaseline):
    """Rank by how often items were among the last 200 followers of the user's last 3 items, then by popularity."""

    def __init__(self, window: int = WINDOW, followers: int = FOLLOWERS) -> None:
        super().__init__(window)
        self._rings = np.zeros((1024, followers), dtype=np.int64)
        self._written = np.zeros(1024, dtype=np.int64)

    def _grow(self) -> None:
        super()._grow()
        self._rings = np.concatenate([self._rings, np.zeros_like(self._rings)])
        self._written = np.concatenate([self._written, np.zeros_like(self._written)])

    def _rank(self, history: NDArray[np.int64], place: int) -> int:
        votes = np.zeros(len(self._places))
        size = self._rings.shape[1]
        for order, anchor in enumerate(history[:ANCHORS].tolist()):
            followers = self._rings[anchor, : min(self._written[anchor], size)]
            np.add.at(votes, followers, 1 / (order + 1))
        votes[0] = votes[history] = -1
        counts, own = self._counts[: len(votes)], self._counts[place]
        same = votes == votes[place]
        above = int((votes > votes[place]).sum()) + int((same & (counts > own)).sum())
        return above + (int((same & (counts == own)).sum()) - 1) // 2

    def _count(self, history: NDArray[np.int64], place: int) -> None:
        size = self._rings.shape[1]
        for anchor in history[:ANCHORS].tolist():
            if anchor != place:
                self._rings[anchor, self._written[anchor] % size] = place
                self._written[anchor] += 1
        super()._count(history, place)


BASELINES: Final[dict[str, Callable[[], PopularBaseline]]] = {
    "popular": PopularBaseline,
    "item_to_item": ItemToItemBaseline,
}

__all__ = ["BASELINES", "ItemToItemBaseline", "PopularBaseline"]
