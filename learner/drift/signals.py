"""Signals of drift: what a step of the stream shows, and one class for each number that is watched.

A step is added to every signal; whenever about `bin_events` events have come together, each signal gives one number,
which `episodes.DriftMonitor` cleans of its rhythm and slow movement and gives to the signal's detector.

A new signal is one subclass of `Signal` and its place in `SIGNALS`; see CONTRIBUTING.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learner.drift.config import DriftConfig

_NAN: Final = float("nan")


class Observed(NamedTuple):
    """What one step of the stream showed. Counts and sums, so that steps of any size can be put together."""

    events: int
    """good events"""
    records: int
    """all records, bad ones included"""
    dead_letters: int
    """bad records"""
    ts: int
    """newest event time so far, epoch milliseconds"""
    served: int
    """events whose user had a published list"""
    hits: int
    """of those, on an item of the list"""
    loss: float
    """mean loss of the ranking on the step's fresh pairs, nats; not a number where there were none"""
    distance: float
    """mean squared distance of the users to their nearest center; not a number where nobody had a history"""
    intents: NDArray[np.integer[Any]]
    """(m,) place of the nearest center, per user touched, whatever intent it is part of"""
    items: NDArray[np.integer[Any]]
    """(n,) item handle of each event"""
    new_items: int
    """events on an item never seen before"""
    movement: float
    """mean distance that the centers moved since the last step"""
    updates: float
    """learning steps that moved them, one at twice the usual rate counted twice"""
    refused: int
    """learning steps that the guard refused since the last step"""
    groups: NDArray[np.integer[Any]] | None = None
    """(K,) by the place of a center, that of the center whose intent it is part of; None: each is its own"""


# -- signals ----------------------------------------------------------------------------------------------------------


class Signal:
    """One number per bin. A subclass says what it adds up, what the bin's value is, and how it is cleaned.

    Class attributes: `mode`, which direction is a drift; `rhythm`, whether hours of the day are compared; `floor`, the
    smallest usual deviation in the signal's own units, below which a change would not matter to anybody;
    `allowance_factor`, by which Page-Hinkley's allowance is multiplied: above 1 where one bin says much the same as the
    last; `limit`, usual deviations that a bin counts at most; `kind`, what kind of drift it is if nothing else alarms.
    """

    name: ClassVar[str]
    mode: ClassVar[Literal["up", "down", "both"]] = "up"
    rhythm: ClassVar[bool] = False
    floor: ClassVar[float] = 1e-6
    allowance_factor: ClassVar[float] = 1.0
    limit: ClassVar[float] = 5.0
    kind: ClassVar[str] = "unknown"

    def __init__(self, config: DriftConfig) -> None:
        self.config = config
        self._sum = 0.0
        self._weight = 0.0

    def add(self, seen: Observed) -> None:
        """Add a step to the bin."""
        raise NotImplementedError

    def value(self) -> tuple[float, float]:
        """Value and weight (1 for a usual bin) of the bin; an empty bin has weight 0. The next bin begins empty."""
        mean = self._sum / self._weight if self._weight else _NAN
        weight = self._weight / self.config.bin_events
        self._sum = self._weight = 0.0
        return mean, weight

    def begin_anew(self, since: int) -> bool:
        """The newest `since` bins are of a change that was found, and what it led to is normal now.

        Returns whether that is another level of the value.
        """
        return True

    def retained(self, before: float, after: float) -> float:
        """What share of that which could be foretold is left after a change from `before` to `after`; 1: all of it."""
        return 1.0

    def to_state(self) -> dict[str, Any]:
        """Everything kept between steps, JSON-able, exact."""
        return {"sum": self._sum, "weight": self._weight}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what `to_state` gave."""
        self._sum, self._weight = float(state["sum"]), float(state["weight"])

    def _mean(self, value: float, weight: float) -> None:
        if weight and math.isfinite(value):
            self._sum += value * weight
            self._weight += weight


class ServedHits(Signal):
    """Share of the events on an item of the list published for their user. A fall is a drift."""

    name = "served_hits"
    mode = "down"
    floor = 0.005

    def add(self, seen: Observed) -> None:
        """See `Signal`."""
        self._sum += seen.hits
        self._weight += seen.served

    def retained(self, before: float, after: float) -> float:
        """See `Signal`."""
        return after / before if before > 0 else 1.0


class Loss(Signal):
    """Loss of the ranking on pairs not learned yet. A rise is a drift."""

    name = "loss"
    floor = 0.01

    def add(self, seen: Observed) -> None:
        """See `Signal`."""
        self._mean(seen.loss, seen.events)

    def retained(self, before: float, after: float) -> float:
        """See `Signal`. A loss is the logarithm of a chance."""
        return math.exp(min(before - after, 0.0))


class Distance(Signal):
    """How far users are from their nearest center. A rise: they want what no intent stands for."""

    name = "distance"
    allowance_factor = 1.5
    floor = 0.002

    def add(self, seen: Observed) -> None:
        """See `Signal`."""
        self._mean(seen.distance, len(seen.intents))


class CenterSpeed(Signal):
    """How far a learning step moves the centers; logarithm, as that falls by powers while a model learns.

    Not how far they move per event: how many learning steps an event is worth depends on the size of the engine's
    steps, and so on the load, and on the actions. What is left of that, as more pairs at once say more clearly where to
    go, is below two `floor`.
    """

    name = "center_speed"
    allowance_factor = 1.5
    floor = 0.25

    def add(self, seen: Observed) -> None:
        """See `Signal`."""
        if math.isfinite(seen.movement):
            self._sum += seen.movement
            self._weight += seen.updates

    def value(self) -> tuple[float, float]:
        """See `Signal`."""
        mean, _ = super().value()
        return (math.log(mean), 1.0) if mean > 0 else (_NAN, 0.0)


class NewItems(Signal):
    """Events on items never seen before; the root of the count, whose deviation does not grow with it."""

    name = "new_items"
    floor = 0.5
    kind = "new_intent"

    def add(self, seen: Observed) -> None:
        """See `Signal`."""
        self._sum += seen.new_items
        self._weight += seen.events

    def value(self) -> tuple[float, float]:
        """See `Signal`."""
        return _root_count(*super().value(), self.config.bin_events)


class DeadLetters(Signal):
    """Records that are no valid events; the root of the count."""

    name = "dead_letters"
    floor = 0.5
    kind = "quality"

    def add(self, seen: Observed) -> None:
        """See `Signal`."""
        self._sum += seen.dead_letters
        self._weight += seen.records

    def value(self) -> tuple[float, float]:
        """See `Signal`."""
        return _root_count(*super().value(), self.config.bin_events)


class Refusals(Signal):
    """Learning steps that the guard refused; the root of the count."""

    name = "refusals"
    floor = 0.25
    kind = "learner"

    def add(self, seen: Observed) -> None:
        """See `Signal`."""
        self._sum += seen.refused
        self._weight += seen.events

    def value(self) -> tuple[float, float]:
        """See `Signal`."""
        return _root_count(*super().value(), self.config.bin_events)


class ArrivalRate(Signal):
    """Events per second of event time; logarithm, compared with the same hour of earlier days."""

    name = "arrival_rate"
    allowance_factor = 2.0
    mode = "both"
    rhythm = True
    floor = 0.1
    kind = "traffic"

    def __init__(self, config: DriftConfig) -> None:
        super().__init__(config)
        self._began = 0

    def add(self, seen: Observed) -> None:
        """See `Signal`."""
        if self._began == 0:
            self._began = seen.ts
            return
        self._sum = float(seen.ts - self._began)
        self._weight += seen.records

    def value(self) -> tuple[float, float]:
        """See `Signal`."""
        took, count = self._sum, self._weight
        self._began += int(took)
        self._sum = self._weight = 0.0
        return (math.log(count / took), 1.0) if took > 0 and count else (_NAN, 0.0)

    def to_state(self) -> dict[str, Any]:
        """See `Signal`."""
        return super().to_state() | {"began": self._began}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See `Signal`."""
        super().load_state(state)
        self._began = int(state["began"])


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
            return _NAN, 0.0
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


def _root_count(mean: float, weight: float, usual: int) -> tuple[float, float]:
    """Root of the count that a usual bin would have."""
    return (math.sqrt(mean * usual), weight) if weight else (_NAN, 0.0)


SIGNALS: Final[dict[str, type[Signal]]] = {
    kind.name: kind
    for kind in (
        ServedHits,
        Loss,
        Distance,
        IntentShares,
        Popularity,
        CenterSpeed,
        NewItems,
        ArrivalRate,
        DeadLetters,
        Refusals,
    )
}


__all__ = ["Observed", "SIGNALS", "Signal"]
