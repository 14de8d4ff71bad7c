"""What a signal goes through before its detector sees it: how far it is from what was expected."""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

HOUR_MS: Final = 3_600_000
_KEPT: Final = 32  # newest values that can be taken back
_WINSOR: Final = 3.0  # deviations beyond count as this many when the usual deviation is measured
_WINSORED: Final = 1.0 / 0.9733  # mean square of a normal deviation cut at 3


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

    def normalize(self, value: float, ts: int, weight: float = 1.0) -> float | None:
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
        clipped = max(-self._limit, min(self._limit, score)) if judged else score
        rate = max(self._rate, 1.0 / (seen + 1))
        self._level += rate * clipped * deviation / root if judged else rate * error
        squared = min(error * error * weight, (_WINSOR * deviation) ** 2) * _WINSORED if judged else error * error
        self._variance += max(self._rate / 2, 1.0 / (seen + 1)) * (squared - self._variance)
        self._n += 1
        return clipped if judged else None

    def undo(self, values: int) -> None:
        """Restore level and usual deviation from before the newest so many values.

        After a change that was found: measured by a deviation that has the change in it, the next one would look small.
        """
        for _ in range(min(values, len(self._past))):
            self._level, self._variance = self._past.pop()

    def set_level(self, value: float) -> None:
        """Set the level to `value`: after a change that was found, the new level is the normal one."""
        self._level = value

    def _season(self, ts: int) -> float:
        """What the hour adds, by straight lines between the middles of the hours; 0 until all are known."""
        if int(self._days.min()) < 2:
            return 0.0
        hour = ts / HOUR_MS - 0.5
        whole = math.floor(hour)
        share = hour - whole
        mean = float(self._profile.mean())
        return float((1 - share) * self._profile[whole % 24] + share * self._profile[(whole + 1) % 24]) - mean

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


__all__ = ["HOUR_MS", "Normalizer"]
