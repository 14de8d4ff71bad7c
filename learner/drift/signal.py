"""What a step of the stream shows, and the base of the numbers that are watched.

A step is added to every signal; whenever about `bin_events` events have come together, each signal gives one number,
which `SignalMonitor` normalizes and gives to the signal's detector.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learner.drift.config import DriftConfig

NAN: Final = float("nan")


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
        mean = self._sum / self._weight if self._weight else NAN
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


__all__ = ["NAN", "Observed", "Signal"]
