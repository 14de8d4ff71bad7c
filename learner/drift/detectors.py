"""River's change detectors behind one interface, and what a signal goes through before it reaches them.

A detector sees one number per bin of events, cleaned: the distance from what was to be expected, in usual deviations.
Its state is kept as plain data (numbers, and for ADWIN the bytes of its own `__getstate__`); nothing is unpickled.
"""

from __future__ import annotations

import base64
import collections
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from river import drift

from learner.drift.config import DetectorName
from learner.errors import LearnerStateError

_SCALE: Final = 10.0  # of what ADWIN sees: its bound has a term for values in 0 to 1, which would drown ours
_DATED: Final = 128  # newest values among which ADWIN's change is dated
_PRIOR_BINS: Final = 64  # values of 0 that Page-Hinkley starts with


class Detector(Protocol):
    """Watches one number per bin for a change that lasts."""

    name: DetectorName

    def update(self, value: float) -> bool:
        """Take the next value; true where a change is found, after which the detector starts anew."""

    @property
    def since(self) -> int:
        """Bins since the change last found is thought to have begun, the present one included."""

    def to_state(self) -> dict[str, Any]:
        """Everything that the next `update` depends on, JSON-able, exact."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what `to_state` gave."""


class Adwin:
    """ADWIN [1]: the longest window without two parts of different mean.

    delta: chance of a false cut per check; lower means fewer false alarms and later detection.

    [1] Bifet and Gavaldà, Learning from Time-Changing Data with Adaptive Windowing, SDM 2007.

    >>> detector = Adwin(delta=0.002)
    >>> any([detector.update(value) for value in [0.0, 0.3] * 50 + [3.0] * 20])
    True
    """

    name: DetectorName = "adwin"

    def __init__(self, delta: float) -> None:
        self._delta = delta
        self._newest: collections.deque[float] = collections.deque(maxlen=_DATED)
        self.since = 1
        self._start()

    def _start(self) -> None:
        self._river = drift.ADWIN(delta=self._delta, clock=1, min_window_length=3, grace_period=10)
        self._newest.clear()

    def update(self, value: float) -> bool:
        """Take the next value."""
        self._newest.append(value)
        self._river.update(value * _SCALE)
        found = bool(self._river.drift_detected)
        if found:
            # river's window loses whole buckets, the oldest first, and still holds much of what was before: its width
            # says nothing about when the change began, and what is left would alarm again
            self.since = _since(np.array(self._newest))
            self._start()
        return found

    def to_state(self) -> dict[str, Any]:
        """See `Detector`."""
        window = base64.b64encode(vars(self._river)["_helper"].__getstate__()).decode()
        return {"window": window, "newest": list(self._newest), "since": self.since}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See `Detector`."""
        vars(self._river)["_helper"].__setstate__(base64.b64decode(state["window"]))
        self._newest = collections.deque(state["newest"], maxlen=_DATED)
        self.since = int(state["since"])


def _since(values: NDArray[np.float64]) -> int:
    """Length of the newest part whose mean differs most, in standard errors, from that of the values before it."""
    n = len(values)
    old = np.arange(1, n)
    before = np.cumsum(values)[:-1]
    gap = (values.sum() - before) / (n - old) - before / old
    return n - 1 - int((np.abs(gap) * np.sqrt(old * (n - old))).argmax())


class PageHinkley:
    """Page-Hinkley [1], a cumulative sum of what lies beyond an allowance.

    allowance: deviations that are not yet suspicious. threshold: suspicion at which it is a change; the chance of a
    false alarm falls as exp(-2 allowance threshold).

    [1] E. S. Page, Continuous Inspection Schemes, Biometrika 41, 1954.

    >>> detector = PageHinkley(allowance=0.75, threshold=10, mode="up")
    >>> quiet = any([detector.update(value) for value in [-0.5, 0.5] * 50])
    >>> quiet, [detector.update(3.0) for _ in range(6)].index(True), detector.since
    (False, 4, 5)
    """

    name: DetectorName = "page_hinkley"

    def __init__(self, allowance: float, threshold: float, mode: Literal["up", "down", "both"]) -> None:
        self._settings: dict[str, Any] = {"delta": allowance, "threshold": threshold, "mode": mode}
        self.since = 1
        self._start()

    def _start(self) -> None:
        self._river = drift.PageHinkley(min_instances=5, alpha=1.0, **self._settings)
        # river measures from the mean of what it saw since its start: alone, the first values would be that mean, and
        # a change that follows another closely would hide itself; cleaned values are about 0 by construction
        vars(vars(self._river)["_x_mean"]).update(n=_PRIOR_BINS, _mean=0.0)
        self._up = self._down = 0  # bins since the sums were last at their turning points

    def update(self, value: float) -> bool:
        """Take the next value."""
        fields = vars(self._river)
        self._river.update(value)
        self._up = 0 if fields["_sum_increase"] <= fields["_min_increase"] else self._up + 1
        self._down = 0 if fields["_sum_decrease"] >= fields["_max_decrease"] else self._down + 1
        found = bool(self._river.drift_detected)
        if found:
            rise = fields["_sum_increase"] - fields["_min_increase"]
            fall = fields["_max_decrease"] - fields["_sum_decrease"]
            self.since = max(1, self._up if rise >= fall else self._down)
            self._start()
        return found

    def to_state(self) -> dict[str, Any]:
        """See `Detector`."""
        fields = vars(self._river)
        mean = fields["_x_mean"]
        lowest = fields["_min_increase"]
        return {
            "n": mean.n,
            "mean": mean.get(),
            "sums": [fields["_sum_increase"], fields["_sum_decrease"]],
            "turns": [None if math.isinf(lowest) else lowest, fields["_max_decrease"]],
            "since": [self._up, self._down, self.since],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See `Detector`."""
        fields = vars(self._river)
        vars(fields["_x_mean"]).update(n=state["n"], _mean=state["mean"])
        fields["_sum_increase"], fields["_sum_decrease"] = state["sums"]
        lowest, highest = state["turns"]
        fields["_min_increase"], fields["_max_decrease"] = math.inf if lowest is None else lowest, highest
        self._up, self._down, self.since = state["since"]


class Kswin:
    """KSWIN [1]: are the newest values distributed as a sample of the ones before them?

    alpha: chance of a false alarm per bin. window, recent: bins in all, and how many of them are the newest.

    [1] Raab, Heusinger and Schleif, Reactive Soft Prototype Computing for Concept Drift Streams, Neurocomputing 2020.

    >>> detector = Kswin(alpha=0.0001, window=60, recent=15, seed=1)
    >>> any([detector.update(value % 7 / 7) for value in range(100)] + [detector.update(3.0) for _ in range(15)])
    True
    """

    name: DetectorName = "kswin"

    def __init__(self, alpha: float, window: int, recent: int, seed: int) -> None:
        self._river = drift.KSWIN(alpha=alpha, window_size=window, stat_size=recent, seed=seed)

    def update(self, value: float) -> bool:
        """Take the next value."""
        self._river.update(value)
        return bool(self._river.drift_detected)

    @property
    def since(self) -> int:
        """See `Detector`; the test compares the newest values, so it can say no better."""
        return int(self._river.stat_size)

    def to_state(self) -> dict[str, Any]:
        """See `Detector`."""
        version, numbers, gauss = vars(self._river)["_rng"].getstate()
        return {
            "window": list(self._river.window),
            "n": self._river.n,
            "p": float(self._river.p_value),
            "found": bool(self._river.drift_detected),
            "random": [version, list(numbers), gauss],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See `Detector`."""
        fields = vars(self._river)
        self._river.window = collections.deque(state["window"], maxlen=self._river.window_size)
        self._river.n, self._river.p_value = state["n"], state["p"]
        fields["_drift_detected"] = bool(state["found"])
        version, numbers, gauss = state["random"]
        fields["_rng"].setstate((version, tuple(numbers), gauss))


def restored(load: Callable[[Mapping[str, Any]], None], state: Mapping[str, Any], what: str) -> None:
    """Call `load(state)`; whatever does not fit becomes a `LearnerStateError` that names `what`."""
    try:
        load(state)
    except (KeyError, TypeError, ValueError) as error:
        raise LearnerStateError(f"{what}: stored state does not fit ({error!r}): take an older checkpoint") from error


__all__ = ["Adwin", "Detector", "Kswin", "PageHinkley", "restored"]
