"""The fallback policy: does the learner still beat its own recent snapshot and the simple popular list?

Every `check_every` steps the events of that step, not learned yet, are ranked three times: by the learner, by its
snapshot and by popularity. The differences, event by event, make a rolling test. A learner that loses long enough is
taken off the air: the snapshot answers while learning goes on, until the learner has earned its place again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learner.digest import Hash
from learner.drift.config import FallbackConfig
from learner.drift.paired import PairedDifference
from learner.errors import LearnerStateError
from learner.metrics import UNRANKED

FORMAT: Final = 1
Serving = Literal["learner", "snapshot"]


class Verdict(NamedTuple):
    """What one comparison led to."""

    serving: Serving
    changed: bool
    """who serves is another than before"""
    renew: bool
    """the caller takes a new snapshot now"""
    against_snapshot: float
    """how far the learner leads its snapshot, standard errors; 0 while too little is known"""


class FallbackPolicy:
    """Who serves: the learner or its snapshot.

    Examples
    --------
    >>> policy = FallbackPolicy(FallbackConfig(check_every=1, least=8, patience=2, snapshot_every=10))
    >>> good, bad = np.full(64, 0.5) + np.arange(64) / 640, np.arange(64) / 640
    >>> [policy.compare(step, learner=bad, snapshot=good, popular=bad).serving for step in range(1, 4)]
    ['learner', 'snapshot', 'snapshot']
    """

    def __init__(self, config: FallbackConfig) -> None:
        self.config = config
        self.serving: Serving = "learner"
        self._snapshot_step = 0
        self._in_a_row = 0
        self._snapshot, self._popular, self._fallback = (PairedDifference(config.half_life) for _ in range(3))

    def due(self, step: int) -> bool:
        """Whether step `step` is one to compare in."""
        return self.config.enabled and step % self.config.check_every == 0

    def compare(
        self,
        step: int,
        learner: NDArray[np.floating[Any]],
        snapshot: NDArray[np.floating[Any]],
        popular: NDArray[np.floating[Any]],
        *,
        calm: bool = True,
    ) -> Verdict:
        """Take one comparison.

        Parameters
        ----------
        step
            Number of the engine step.
        learner, snapshot, popular
            (n,) gain of each, from 0 to 1, on the same events, which none of them has learned.
        calm
            Whether the snapshot may be renewed; not in a drift, which may be the learner's own fault.
        """
        config = self.config
        gains = [np.asarray(gain, dtype=np.float64)[: config.sample] for gain in (learner, snapshot, popular)]
        if len(gains[0]):
            self._snapshot.add(gains[0] - gains[1])
            self._popular.add(gains[0] - gains[2])
            self._fallback.add(gains[1] - gains[2])
        lead, simple = self._snapshot.lead(config.least), self._popular.lead(config.least)
        was = self.serving
        if self.serving == "learner":
            # worse than its past, or worse than what needs no learning while its past was not
            loses = lead < -config.worse or (simple < -config.worse and self._fallback.lead(config.least) > simple)
        else:
            loses = lead >= config.better and self._snapshot.weight >= config.least
        self._in_a_row = self._in_a_row + 1 if loses else 0
        if self._in_a_row >= config.patience:
            self.serving = "snapshot" if was == "learner" else "learner"
            self._in_a_row = 0
            if self.serving == "snapshot":
                self._snapshot = PairedDifference(config.half_life)  # it comes back by what it does from now on
        # one that was not compared enough stays, however few events a step brings: else nothing would ever be decided
        due = step - self._snapshot_step >= config.snapshot_every and self._snapshot.weight >= config.least
        renew = calm and self.serving == "learner" and due and lead > -1.0 and self._in_a_row == 0
        if renew:
            self._snapshot_step = step
            self._snapshot = PairedDifference(config.half_life)
        return Verdict(self.serving, self.serving != was, renew, lead)

    def rolled_back(self) -> None:
        """The learner took the snapshot's weights: what it did before says nothing of it any more."""
        self._snapshot = PairedDifference(self.config.half_life)
        self._in_a_row = 0

    # -- durable ----------------------------------------------------------------------------------------------------

    def to_state(self) -> dict[str, Any]:
        """Everything that the next comparison depends on, JSON-able, exact."""
        return {
            "format": FORMAT,
            "serving": self.serving,
            "snapshot_step": self._snapshot_step,
            "in_a_row": self._in_a_row,
            "paired": [one.to_list() for one in (self._snapshot, self._popular, self._fallback)],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what `to_state` gave.

        Raises
        ------
        LearnerStateError
            Another format.
        """
        if state.get("format") != FORMAT:
            raise LearnerStateError(f"fallback: state of format {state.get('format')!r}, expected {FORMAT}")
        # switched off since then: nobody would ask any more whether the learner may come back
        self.serving = state["serving"] if self.config.enabled else "learner"
        self._snapshot_step, self._in_a_row = state["snapshot_step"], state["in_a_row"]
        for paired, figures in zip((self._snapshot, self._popular, self._fallback), state["paired"], strict=True):
            paired.load_list(figures)

    def update_digest(self, digest: Hash) -> None:
        """Add the state to a hash."""
        digest.update(repr(self.to_state()).encode())


def gains(lists: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float64]:
    """What the lists (n, k) are worth for items (n,): 1 at the head, falling as in NDCG, 0 where it is not listed.

    >>> gains(np.array([[7, 8], [7, 8], [7, 8]]), np.array([7, 8, 9])).round(2).tolist()
    [1.0, 0.63, 0.0]
    """
    hit = lists == items[:, None]
    return gain_of(np.where(hit.any(axis=1), hit.argmax(axis=1), UNRANKED), lists.shape[1])


def gain_of(ranks: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """The same of ranks (n,) from 0: 0 from the k-th on, and where there is none.

    >>> gain_of(np.array([0, 1, 2, UNRANKED]), 2).round(2).tolist()
    [1.0, 0.63, 0.0, 0.0]
    """
    listed = (ranks >= 0) & (ranks < k)
    return np.where(listed, 1 / np.log2(np.where(listed, ranks, 0) + 2.0), 0.0)


def exclude_seen(best: NDArray[np.int64], histories: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """The first k of `best` (m,) that are not in each of the histories (n, L), (n, k); m must be at least k + L.

    >>> exclude_seen(np.array([5, 6, 7, 8]), np.array([[0, 6], [9, 0]]), 2).tolist()
    [[5, 7], [5, 6]]
    """
    taken = (best[None, :, None] == histories[:, None, :]).any(axis=2)  # (n, m)
    order = np.argsort(taken, axis=1, kind="stable")[:, :k]
    return best[order]


__all__ = ["FallbackPolicy", "Serving", "Verdict", "exclude_seen", "gain_of", "gains"]
