"""Which centers are one intent: those from which users go on to the same places.

There are as many centers as the configuration says, and the data has as many intents as it has. Where a shop has fewer,
several centers share one: a user goes back and forth between them as freely as within one. So two centers are merged
when the items that come after (and before) theirs are spread over the centers alike: when their rows in the table of
transitions, relative to chance, point the same way (chi-square geometry, as in correspondence analysis), and when users
then stay in what was merged. Sequences that lead from one center to the next, as in news, do not make them one. Merging
can end again. Numpy in, numpy out.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from learner.errors import LearnerStateError
from learner.intents.config import MergeConfig
from learner.intents.identity import Successor

MOST_CENTERS: Final = 512  # above, none are merged: the table of transitions has K x K numbers
_FEW = 1e-9


class Merging:
    """Transitions between K centers, and which of them are one intent.

    Examples
    --------
    >>> merging = Merging(MergeConfig(every_events=1), count=4)
    >>> rng = np.random.default_rng(0)
    >>> here = rng.integers(0, 4, 4000)  # 0 and 1 are one intent, 2 and 3 another
    >>> merging.observe(here, here // 2 * 2 + rng.integers(0, 2, 4000))
    >>> merging.look(np.full(4, 0.25), event_number=4000).tolist(), merging.representatives.tolist()
    ([1, 3], [0, 0, 2, 2])
    """

    def __init__(self, config: MergeConfig, count: int) -> None:
        self.config = config
        self.representatives: NDArray[np.int64] = np.arange(count)
        """(K,) the center whose id each center's intent has"""
        size = count if count <= MOST_CENTERS else 0
        self._moves = np.zeros((size, size))  # decayed counts of an item of the row's center before one of the column's
        self._looked = np.zeros(1, dtype=np.int64)  # event of the last look

    @property
    def own(self) -> NDArray[np.int64]:
        """(G,) the centers whose ids the intents have, rising."""
        return np.flatnonzero(self.representatives == np.arange(len(self.representatives)))

    @property
    def rows(self) -> NDArray[np.int64]:
        """(K,) which of the G intents, in the order of `own`, each center is part of."""
        return np.searchsorted(self.own, self.representatives)

    @property
    def merged(self) -> bool:
        """Whether there are fewer intents than centers."""
        return bool((self.representatives != np.arange(len(self.representatives))).any())

    def observe(self, before: NDArray[np.integer[Any]], after: NDArray[np.integer[Any]]) -> None:
        """Count transitions of users from an item of one center to one of another, (n,) each."""
        if not len(before) or not self._moves.size:
            return
        K = len(self._moves)
        self._moves *= 0.5 ** (len(before) / self.config.half_life_events)
        self._moves += np.bincount(np.asarray(before) * K + after, minlength=K * K).reshape(K, K)

    def look(self, shares: NDArray[np.float64], event_number: int) -> NDArray[np.int64]:
        """Group the centers anew where it is time; of those that become one, the largest intent (K,) keeps its id.

        Returns the centers that had an id before and are part of another intent now.
        """
        if not self._moves.size or event_number - self._looked[0] < self.config.every_events:
            return np.zeros(0, dtype=np.int64)
        self._looked[0] = event_number
        labels = merge(self._moves, self.representatives, self.config)
        was = self.representatives == np.arange(len(self.representatives))  # (K,) who gives the id so far
        group_share = np.bincount(self.representatives, weights=shares, minlength=len(shares))[self.representatives]
        representatives = np.empty_like(self.representatives)
        for label in np.unique(labels).tolist():
            members = np.flatnonzero(labels == label)
            named = members[was[members]]
            chosen = named if len(named) else members
            representatives[members] = chosen[(group_share if len(named) else shares)[chosen].argmax()]
        self.representatives = representatives
        return np.flatnonzero(was & (representatives != np.arange(len(representatives))))

    def leave(self, place: int, shares: NDArray[np.float64]) -> Successor | None:
        """Forget what is known of the center at `place`, which goes elsewhere.

        Returns the center that goes on as its intent: the one that gives the id, or where that is the one that goes, by
        `shares` (K,) the largest of the others in it; None where the center was alone.
        """
        head = int(self.representatives[place])
        others = np.flatnonzero((self.representatives == head) & (np.arange(len(self.representatives)) != place))
        rest = None
        if len(others):
            rest = Successor(head, takes_id=False)
            if head == place:
                rest = Successor(int(others[shares[others].argmax()]), takes_id=True)
                self.representatives[others] = rest.place
        self.representatives[place] = place
        if self._moves.size:
            self._moves[place], self._moves[:, place] = 0, 0
        return rest

    # -- durable ----------------------------------------------------------------------------------------------------

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything, as arrays."""
        return {"heads": self.representatives, "moves": self._moves, "looked": self._looked}

    def load_arrays(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Continue from what `to_arrays` gave.

        Raises
        ------
        LearnerStateError
            Another number of centers.
        """
        for name, mine in self.to_arrays().items():
            if arrays[name].shape != mine.shape:
                raise LearnerStateError(f"merging: {name} is {arrays[name].shape}, expected {mine.shape}")
        self.representatives = arrays["heads"].copy()
        self._moves, self._looked = arrays["moves"].copy(), arrays["looked"].copy()


def likeness(moves: NDArray[np.float64]) -> NDArray[np.float64]:
    """How alike what follows each of g groups is, cosines (g, g), -1 on the diagonal; `moves` (g, g) is symmetric.

    A row's shares minus those of all, in units of their standard deviation: what all users do says nothing.
    """
    total = moves.sum(axis=1)  # (g,)
    chance = total / total.sum()
    rows = (moves / total[:, None] - chance) / np.sqrt(chance)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    cosine = rows @ rows.T
    np.fill_diagonal(cosine, -1.0)
    return np.asarray(cosine)


def merge(moves: NDArray[np.float64], before: NDArray[np.integer[Any]], config: MergeConfig) -> NDArray[np.int64]:
    """Label of each center's group, (K,), from transitions (K, K): pairs that are each other's most alike, in rounds.

    Those with the same label `before` (K,) come first and need `slack` less. Then groups in which too few
    users stay come apart. A center without transitions stays alone.
    """
    moves = (moves + moves.T) / 2
    labels = np.arange(len(moves))
    live = np.flatnonzero(moves.sum(axis=1) > _FEW)
    small = moves[np.ix_(live, live)]  # (g, g) of the groups in `live`
    before = np.asarray(before)[live]
    similarity, slack = config.similarity, config.slack
    for bound, needed in ((True, similarity - slack), (False, similarity)):
        while len(live) >= 3:  # of two groups each is what the other is not
            cosine = likeness(small)
            if bound:
                cosine[before[:, None] != before] = -1.0
            best, order = cosine.argmax(axis=1), np.arange(len(live))
            pairs = np.flatnonzero((best[best] == order) & (order < best) & (cosine[order, best] >= needed))
            if not len(pairs):
                break
            gone = best[pairs]
            small[pairs] += small[gone]
            small[:, pairs] += small[:, gone]
            for one, other in zip(live[pairs].tolist(), live[gone].tolist(), strict=True):
                labels[labels == other] = one
            stay = np.ones(len(live), dtype=bool)
            stay[gone] = False
            small, live, before = small[stay][:, stay], live[stay], before[stay]
    moves = np.zeros_like(moves)
    moves[np.ix_(live, live)] = small
    total = moves.sum()
    share = moves.sum(axis=1) / max(total, _FEW)  # (K,) of the groups, at their labels
    stays = np.diag(moves) / np.maximum(moves.sum(axis=1), _FEW)
    loyal = stays - share >= config.stay * (1 - share)
    return np.where(loyal[labels], labels, np.arange(len(labels)))


__all__ = ["MOST_CENTERS", "Merging", "likeness", "merge"]
