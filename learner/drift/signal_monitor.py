"""One signal under watch: its values, normalized, into its detector."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, Final

from learner.drift.config import DetectorName, DriftConfig
from learner.drift.detectors import Adwin, Detector, Kswin, PageHinkley
from learner.drift.normalizer import Normalizer
from learner.drift.signal import NAN, Signal

_RECENT: Final = 8  # newest values of a signal that are kept


class SignalMonitor:
    """A signal, its cleaner and its detector."""

    def __init__(self, signal: Signal, detector: DetectorName, config: DriftConfig, seed: int) -> None:
        self.signal = signal
        self.normalizer = Normalizer(config.half_life, config.warm_up, signal.floor, signal.rhythm, signal.limit)
        self.detector = _make_detector(detector, signal, config, seed)
        self.recent: deque[float] = deque(maxlen=_RECENT)  # newest values
        self.score = 0.0  # of the newest bin

    def end_bin(self, ts: int) -> bool:
        """End the bin; true where the signal has changed, either way."""
        value, weight = self.signal.value()
        if not (weight > 0 and math.isfinite(value)):
            return False
        self.recent.append(value)
        score = self.normalizer.normalize(value, ts, weight)
        self.score = 0.0 if score is None else score
        if score is None:
            return False
        return self.detector.update(score)

    def accept(self) -> None:
        """Take what was found for normal; an improvement too, or it would hide the next change for the worse."""
        self.normalizer.undo(self.detector.since)
        if self.signal.begin_anew(self.detector.since):
            self.normalizer.set_level(self.changed_to)

    @property
    def is_alarm(self) -> bool:
        """Only a change in the signal's own direction is an alarm."""
        rise = self.changed_to - self.before
        return self.signal.mode == "both" or (rise > 0) == (self.signal.mode == "up")

    @property
    def before(self) -> float:
        """Level that was expected."""
        return self.normalizer.level

    @property
    def changed_to(self) -> float:
        """Level since the change just found. The middle value: one from before the change, or from its beginning, would
        leave a mean short of the new level, and everything that follows would look like the same change.
        """
        return median(list(self.recent)[-self.detector.since :])

    @property
    def newly(self) -> float:
        """The same of the newer half alone, which is all of the change, though it may begin later than it is put."""
        return median(list(self.recent)[-((self.detector.since + 1) // 2) :])

    @property
    def level(self) -> float:
        """Level of the newest bins."""
        return sum(self.recent) / len(self.recent) if self.recent else NAN

    def to_state(self) -> dict[str, Any]:
        """Everything that the next bin depends on, JSON-able, exact."""
        return {
            "signal": self.signal.to_state(),
            "cleaner": self.normalizer.to_state(),
            "detector": self.detector.to_state(),
            "recent": list(self.recent),
            "score": self.score,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what `to_state` gave."""
        self.signal.load_state(state["signal"])
        self.normalizer.load_state(state["cleaner"])
        self.detector.load_state(state["detector"])
        self.recent = deque(state["recent"], maxlen=self.recent.maxlen)
        self.score = state["score"]


def _make_detector(name: DetectorName, signal: Signal, config: DriftConfig, seed: int) -> Detector:
    makers: dict[str, Callable[[], Detector]] = {
        "adwin": lambda: Adwin(config.adwin_delta),
        "page_hinkley": lambda: PageHinkley(config.allowance * signal.allowance_factor, config.threshold, "both"),
        "kswin": lambda: Kswin(config.kswin_alpha, config.kswin_window, config.kswin_recent, seed),
    }
    return makers[name]()


__all__ = ["SignalMonitor"]
