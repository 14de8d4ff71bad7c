"""Signals that compare shares: of intents among users, of items among events."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from learner.drift.config import DriftConfig
from learner.drift.signal import NAN, Observed, Signal


class Shares(Signal):
    """How unlike the newest bins' shares are to those before, beside what chance alone would show.

    What users take in one bin is too little to tell a change from chance: one visit alone is several events. So the
    newest `share_window` bins together are compared with the bins before them, whose weight halves every `reference`
    bins. A daily rhythm moves shares slowly, and the reference follows it.

    The square of a cell's change over that of chance is about 1 where nothing changed, however many events there are on
    either side. The squares are added up, that of a large cell, which shows a change better, by the root of its share.

    Class attributes: `cells`, how many shares; `most`, what the square of one cell's change counts at most.
    """

    cells: ClassVar[int]
    most: ClassVar[float] = math.inf

    def __init__(self, config: DriftConfig) -> None:
        super().__init__(config)
        self._counts = np.zeros(self.cells)
        self._newest: deque[NDArray[np.float64]] = deque()  # counts of the newest bins, this one left out
        self._reference = np.zeros(self.cells)  # decayed counts of the bins before those
        self._squares = 0.0  # sum of the squared weights of the events in the reference
        self._decay = 0.5 ** (1.0 / config.reference)

    def value(self) -> tuple[float, float]:
        """See `Signal`."""
        self._newest.append(self._counts)
        self._counts = np.zeros(self.cells)
        while len(self._newest) > self.config.share_window:  # several, where the window was longer before a restart
            oldest = self._newest.popleft()
            self._reference = self._reference * self._decay + oldest
            self._squares = self._squares * self._decay**2 + float(oldest.sum())
        full = len(self._newest) == self.config.share_window
        counts, reference = self._grouped(np.sum(self._newest, axis=0)), self._grouped(self._reference)
        n, weight = float(counts.sum()), float(reference.sum())
        if not (full and n and weight >= 1):
            return NAN, 0.0
        # as many events of equal weight would say as much; few of them, where the reference has just begun anew
        known = weight * weight / self._squares
        old, new = reference / weight, counts / n
        share = (n * new + known * old) / (n + known)
        used = share > 0
        share, change = share[used], (new - old)[used]
        squared = change * change / (share * (1 / n + 1 / known))
        return self._summed(np.minimum(squared, self.most), np.sqrt(share)), 1.0

    def _summed(self, squared: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
        """The bin's value, of the cells' squared changes and their weights, whose squares sum to 1."""
        raise NotImplementedError

    def _grouped(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """The counts as they are compared."""
        return counts

    def begin_anew(self, since: int) -> bool:
        """What is new is the normal case from now on; the divergence itself is to be as small as ever.

        Of the window at most the newer half: what is older may be from before it, and would make it be found twice.
        """
        newer = list(self._newest)[-max(min(self.config.share_window // 2, since), 1) :]
        # there is none where an alarm has begun anew in the same bin; then the reference is made of those to come
        self._reference = np.sum([np.zeros(self.cells), *newer], axis=0)
        self._squares = float(self._reference.sum())
        self._newest.clear()
        return False

    def to_state(self) -> dict[str, Any]:
        """See `Signal`."""
        return {
            "counts": self._counts.tolist(),
            "newest": [counts.tolist() for counts in self._newest],
            "reference": self._reference.tolist(),
            "squares": self._squares,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See `Signal`."""
        arrays = [np.array(one, dtype=np.float64) for one in (state["counts"], state["reference"], *state["newest"])]
        for array in arrays:
            if array.shape != (self.cells,):
                raise ValueError(f"shares over {array.shape}, expected {(self.cells,)}")
        self._counts, self._reference = arrays[:2]
        self._newest = deque(arrays[2:])
        self._squares = float(state["squares"])


class IntentShares(Shares):
    """Shares of the intents among the users touched. Centers beyond 256 share cells.

    Counted by center and compared by intent as they are merged now: that two became one is no drift of the users.
    """

    name = "intent_shares"
    floor = 0.05
    allowance_factor = 2.5
    limit = 8.0
    kind = "shares"
    cells = 256
    _groups: NDArray[np.integer[Any]] | None = None

    def add(self, seen: Observed) -> None:
        """See `Signal`."""
        known = seen.intents[seen.intents >= 0]
        self._counts += np.bincount(known % self.cells, minlength=self.cells)
        # given with every step, so that it need not be kept
        self._groups = None if seen.groups is None or len(seen.groups) > self.cells else seen.groups

    def _summed(self, squared: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
        # a user is counted in every step, so that chance makes of it several times what it makes of independent events:
        # the logarithm of how many times
        return math.log(float(weight @ squared / weight.sum()) + 1.0)

    def _grouped(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        if self._groups is None:
            return counts
        return np.asarray(np.bincount(self._groups, counts[: len(self._groups)], self.cells), dtype=np.float64)


class Popularity(Shares):
    """Shares of the items among the events, items hashed into cells.

    That one item comes or goes is no drift of the users, whatever its share: hence `most`. Where many change theirs the
    value goes far beyond what chance brings, which is told from it by a high `limit`.
    """

    name = "popularity"
    floor = 0.9  # a little below what chance alone makes of it
    allowance_factor = 2.25
    limit = 8.0
    kind = "popularity"
    cells = 1024
    most = 15.0

    def add(self, seen: Observed) -> None:
        """See `Signal`."""
        self._counts += np.bincount(_cell(seen.items, self.cells), minlength=self.cells)

    def _summed(self, squared: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
        return float(weight @ (squared - 1)) / math.sqrt(2)  # the variance of a squared normal deviation is 2


def _cell(handles: NDArray[np.integer[Any]], cells: int) -> NDArray[np.int64]:
    """A cell for each handle, by Fibonacci hashing: the same on every machine."""
    spread = np.asarray(handles).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return np.asarray((spread >> np.uint64(40)) % np.uint64(cells)).astype(np.int64)


__all__ = ["IntentShares", "Popularity", "Shares"]
