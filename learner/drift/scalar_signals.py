"""Signals that are one figure of a bin: a rate, a mean, a count."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from learner.drift.config import DriftConfig
from learner.drift.signal import NAN, Observed, Signal


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
        return (math.log(mean), 1.0) if mean > 0 else (NAN, 0.0)


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
        return (math.log(count / took), 1.0) if took > 0 and count else (NAN, 0.0)

    def to_state(self) -> dict[str, Any]:
        """See `Signal`."""
        return super().to_state() | {"began": self._began}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See `Signal`."""
        super().load_state(state)
        self._began = int(state["began"])


def _root_count(mean: float, weight: float, usual: int) -> tuple[float, float]:
    """Root of the count that a usual bin would have."""
    return (math.sqrt(mean * usual), weight) if weight else (NAN, 0.0)


__all__ = [
    "ArrivalRate",
    "CenterSpeed",
    "DeadLetters",
    "Distance",
    "Loss",
    "NewItems",
    "Refusals",
    "ServedHits",
]
