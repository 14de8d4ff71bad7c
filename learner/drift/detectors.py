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

HOUR_MS: Final = 3_600_000
_SCALE: Final = 10.0  # of what ADWIN sees: its bound has a term for values in 0 to 1, which would drown ours
_DATED: Final = 128  # newest values among which ADWIN's change is dated
_PRIOR_BINS: Final = 64  # values of 0 that Page-Hinkley starts with
_KEPT: Final = 32  # newest values that can be taken back
_WINSOR: Final = 3.0  # deviations beyond count as this many when the usual deviation is measured
_WINSORED: Final = 1.0 / 0.9733  # mean square of a normal deviation cut at 3


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


class Normalizer:
    """How far a signal is from what was to be expected, in usual deviations.

    Expected is a level that follows the signal slowly, plus, where a rhythm is to be taken out, the profile of the
    hours of the day, once each of them has been seen on two days: a value is then compared with the same hour. The
    level follows outliers no further than `limit` deviations, so that a change stays visible until it has been judged.

    Parameters
    ----------
    half_life
        Of the level; bins.
    warm_up
        Bins before the first judgement; the first half of them is not remembered.
    floor
        Smallest usual deviation, in units of the signal.
    rhythm
        Whether hours of the day are compared.
    limit
        Largest result, either way; deviations.
    """

    def __init__(self, half_life: float, warm_up: int, floor: float, rhythm: bool, limit: float = 5.0) -> None:
        self._rate = 1.0 - 0.5 ** (1.0 / half_life)
        self._warm_up, self._floor, self._rhythm, self._limit = warm_up, floor, rhythm, limit
        self._n = 0
        self._level = 0.0
        self._variance = 0.0
        self._past: collections.deque[tuple[float, float]] = collections.deque(maxlen=_KEPT)  # both, before each value
        self._profile: NDArray[np.float64] = np.zeros(24)
        self._days: NDArray[np.int64] = np.zeros(24, dtype=np.int64)  # on how many days each hour was seen
        self._last_day: NDArray[np.int64] = np.full(24, -1, dtype=np.int64)

    @property
    def level(self) -> float:
        """What the signal, without rhythm, is about."""
        return self._level

    @property
    def deviation(self) -> float:
        """Usual deviation."""
        return max(math.sqrt(self._variance), self._floor)

    def clean(self, value: float, ts: int, weight: float = 1.0) -> float | None:
        """Deviations of the value at event time `ts` from what was expected; None while warming up.

        weight: how much was measured, relative to a usual bin; a value from more is a surer one.
        """
        self._past.append((self._level, self._variance))
        seasonal = self._season(ts) if self._rhythm else 0.0
        plain = value - seasonal
        if self._rhythm:
            self._learn_season(value, ts)
        start = self._warm_up // 2
        if self._n in (0, start):
            # a stream begins with a transient (every item is new, the loss falls fast); the usual deviation would long
            # remember it, so what the first half of the warm-up showed is dropped
            self._level, self._variance = plain, 0.0
        seen = self._n if self._n < start else self._n - start
        error = plain - self._level
        root = math.sqrt(min(weight, 16.0))
        deviation = self.deviation
        judged = self._n >= self._warm_up
        score = error * root / deviation
        checkpoint = max(-self._limit, min(self._limit, score)) if judged else score
        rate = max(self._rate, 1.0 / (seen + 1))
        self._level += rate * checkpoint * deviation / root if judged else rate * error
        squared = min(error * error * weight, (_WINSOR * deviation) ** 2) * _WINSORED if judged else error * error
        self._variance += max(self._rate / 2, 1.0 / (seen + 1)) * (squared - self._variance)
        self._n += 1
        return checkpoint if judged else None

    def take_back(self, values: int) -> None:
        """Let level and usual deviation be what they were before the newest so many values.

        After a change that was found: measured by a deviation that has the change in it, the next one would look small.
        """
        for _ in range(min(values, len(self._past))):
            self._level, self._variance = self._past.pop()

    def settle(self, value: float) -> None:
        """Take `value` as the level from now on: after a change that was found, the new level is the normal one."""
        self._level = value

    def _season(self, ts: int) -> float:
        """What the hour adds, by straight lines between the middles of the hours; 0 until all are known."""
        if int(self._days.min()) < 2:
            return 0.0
        hour = ts / HOUR_MS - 0.5
        retained = math.floor(hour)
        share = hour - retained
        mean = float(self._profile.mean())
        return float((1 - share) * self._profile[retained % 24] + share * self._profile[(retained + 1) % 24]) - mean

    def _learn_season(self, value: float, ts: int) -> None:
        hour, day = ts // HOUR_MS % 24, ts // (24 * HOUR_MS)
        if self._last_day[hour] != day:
            self._last_day[hour] = day
            self._days[hour] += 1
        rate = 0.05 if self._days[hour] > 1 else 0.2
        first = self._days[hour] == 1 and self._profile[hour] == 0.0
        self._profile[hour] = value if first else self._profile[hour] + rate * (value - self._profile[hour])

    def to_state(self) -> dict[str, Any]:
        """Everything that the next value's judgement depends on, JSON-able, exact."""
        return {
            "numbers": [self._n, self._level, self._variance],
            "past": [list(one) for one in self._past],
            "profile": self._profile.tolist(),
            "days": self._days.tolist(),
            "last_day": self._last_day.tolist(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what `to_state` gave."""
        self._n, self._level, self._variance = state["numbers"]
        self._past = collections.deque(((level, variance) for level, variance in state["past"]), maxlen=_KEPT)
        self._profile = np.array(state["profile"], dtype=np.float64)
        self._days = np.array(state["days"], dtype=np.int64)
        self._last_day = np.array(state["last_day"], dtype=np.int64)


def restored(load: Callable[[Mapping[str, Any]], None], state: Mapping[str, Any], what: str) -> None:
    """Call `load(state)`; whatever does not fit becomes a `LearnerStateError` that names `what`."""
    try:
        load(state)
    except (KeyError, TypeError, ValueError) as error:
        raise LearnerStateError(f"{what}: stored state does not fit ({error!r}): take an older checkpoint") from error


__all__ = ["Adwin", "Detector", "HOUR_MS", "Kswin", "Normalizer", "PageHinkley", "restored"]
