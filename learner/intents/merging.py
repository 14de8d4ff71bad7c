"""Which centers are one intent: those from which users continue to the same places.

The configuration fixes the number of centers; the data decide the number of intents. Where a shop has fewer intents
than centers, several centers share one, and users move between them as freely as within one. Two centers are merged
when the items before and after theirs are spread over the centers alike: their rows in the table of transitions,
relative to chance, point the same way (chi-square geometry, as in correspondence analysis), and users stay within the
merged group. Sequences that lead from one center to the next, as in news, do not merge them. A merger can end again.
Numpy in, numpy out.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from learner.errors import LearnerStateError
from learner.intents.config import MergeConfig
from learner.intents.identity import Successor

MOST_CENTERS: Final = 512  # with more, none are merged: the table of transitions has K x K numbers
_FEW = 1e-9


class Merging:
    """Transitions between K centers, and which of them are one intent.

    Examples
    --------
    >>> merging = Merging(MergeConfig(every_events=1), count=4)
    >>> rng = np.random.default_rng(0)
    >>> here = rng.integers(0, 4, 4000)  # 0 and 1 are one intent, 2 and 3 another
    >>> merging.observe(here, here // 2 * 2 + rng.integers(0, 2, 4000))
    >>> merging.update(np.full(4, 0.25), event_number=4000).tolist(), merging.representatives.tolist()
    ([1, 3], [0, 0, 2, 2])
    """

    def __init__(self, config: MergeConfig, count: int) -> None:
        self.config = config
        self.representatives: NDArray[np.int64] = np.arange(count)
        """(K,) the center that gives its id to the intent of each center"""
        size = count if count <= MOST_CENTERS else 0
        # decayed counts: an item of the row's center, then one of the column's
        self._transitions = np.zeros((size, size))
        self._last_update = np.zeros(1, dtype=np.int64)  # event number

    @property
    def leaders(self) -> NDArray[np.int64]:
        """(G,) the centers that give the intents their ids, ascending."""
        return np.flatnonzero(self.representatives == np.arange(len(self.representatives)))

    @property
    def intent_of(self) -> NDArray[np.int64]:
        """(K,) the intent of each center, 0 to G - 1 in the order of `leaders`."""
        return np.searchsorted(self.leaders, self.representatives)

    @property
    def any_merged(self) -> bool:
        """Whether there are fewer intents than centers."""
        return bool((self.representatives != np.arange(len(self.representatives))).any())

    def observe(self, before: NDArray[np.integer[Any]], after: NDArray[np.integer[Any]]) -> None:
        """Count transitions between items: the center of the item before and of the one after, (n,) each."""
        if not len(before) or not self._transitions.size:
            return
        K = len(self._transitions)
        self._transitions *= 0.5 ** (len(before) / self.config.half_life_events)
        self._transitions += np.bincount(np.asarray(before) * K + after, minlength=K * K).reshape(K, K)

    def update(self, shares: NDArray[np.float64], event_number: int) -> NDArray[np.int64]:
        """Group the centers anew every `every_events`; of the intents that become one, the largest keeps its id.

        Parameters
        ----------
        shares
            (K,) share of users of each center
        event_number
            events so far

        Returns
        -------
        The centers that gave an id before and are part of another intent now.
        """
        if not self._transitions.size or event_number - self._last_update[0] < self.config.every_events:
            return np.zeros(0, dtype=np.int64)
        self._last_update[0] = event_number
        labels = merge_groups(self._transitions, self.representatives, self.config)
        was = self.representatives == np.arange(len(self.representatives))  # (K,) gave an id so far
        group_share = np.bincount(self.representatives, weights=shares, minlength=len(shares))[self.representatives]
        representatives = np.empty_like(self.representatives)
        for label in np.unique(labels).tolist():
            members = np.flatnonzero(labels == label)
            named = members[was[members]]
            chosen = named if len(named) else members
            representatives[members] = chosen[(group_share if len(named) else shares)[chosen].argmax()]
        self.representatives = representatives
        return np.flatnonzero(was & (representatives != np.arange(len(representatives))))

    def detach(self, place: int, shares: NDArray[np.float64]) -> Successor | None:
        """Take the center at `place`, which is placed anew, out of its intent and forget its transitions.

        Returns the center with which the intent continues: its representative or, where that is the one at `place`, the
        largest of the others by `shares` (K,). None where the center was alone.
        """
        representative = int(self.representatives[place])
        others = np.flatnonzero(
            (self.representatives == representative) & (np.arange(len(self.representatives)) != place)
        )
        successor = None
        if len(others):
            successor = Successor(representative, takes_id=False)
            if representative == place:
                successor = Successor(int(others[shares[others].argmax()]), takes_id=True)
                self.representatives[others] = successor.place
        self.representatives[place] = place
        if self._transitions.size:
            self._transitions[place], self._transitions[:, place] = 0, 0
        return successor

    # -- durable ----------------------------------------------------------------------------------------------------

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything, as arrays."""
        return {"heads": self.representatives, "moves": self._transitions, "looked": self._last_update}

    def load_arrays(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Continue from what `to_arrays` returned.

        Raises
        ------
        LearnerStateError
            Another number of centers.
        """
        for name, mine in self.to_arrays().items():
            if arrays[name].shape != mine.shape:
                raise LearnerStateError(f"merging: {name} is {arrays[name].shape}, expected {mine.shape}")
        self.representatives = arrays["heads"].copy()
        self._transitions, self._last_update = arrays["moves"].copy(), arrays["looked"].copy()


def transition_similarity(transitions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosines (g, g) between the rows of symmetric transitions (g, g) relative to chance, -1 on the diagonal.

    A row is its shares minus the shares of all rows, in standard deviations: behavior of all users counts as none.
    """
    total = transitions.sum(axis=1)  # (g,)
    chance = total / total.sum()
    rows = (transitions / total[:, None] - chance) / np.sqrt(chance)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    cosine = rows @ rows.T
    np.fill_diagonal(cosine, -1.0)
    return np.asarray(cosine)


def merge_groups(
    transitions: NDArray[np.float64], before: NDArray[np.integer[Any]], config: MergeConfig
) -> NDArray[np.int64]:
    """Label of each center's group, (K,), from transitions (K, K).

    Rounds merge the pairs of groups that are each other's most similar. Pairs with the same label `before` (K,) come
    first and need `slack` less similarity. Groups in which too few users stay are then split up. A center without
    transitions stays alone.
    """
    transitions = (transitions + transitions.T) / 2
    labels = np.arange(len(transitions))
    live = np.flatnonzero(transitions.sum(axis=1) > _FEW)
    small = transitions[np.ix_(live, live)]  # (g, g) of the groups in `live`
    before = np.asarray(before)[live]
    similarity, slack = config.similarity, config.slack
    for bound, needed in ((True, similarity - slack), (False, similarity)):
        while len(live) >= 3:  # two groups are each the complement of the other
            cosine = transition_similarity(small)
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
    transitions = np.zeros_like(transitions)
    transitions[np.ix_(live, live)] = small
    total = transitions.sum()
    share = transitions.sum(axis=1) / max(total, _FEW)  # (K,) of the groups, at their labels
    stays = np.diag(transitions) / np.maximum(transitions.sum(axis=1), _FEW)
    loyal = stays - share >= config.stay * (1 - share)
    return np.where(loyal[labels], labels, np.arange(len(labels)))


__all__ = ["MOST_CENTERS", "Merging", "transition_similarity", "merge_groups"]
