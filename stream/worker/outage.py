"""One log line for something that fails again and again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

_REPEAT_S = 60.0


class Outage:
    """Logs a failure when it begins, once a minute while it lasts, and its end.

    Parameters
    ----------
    what
        What fails, such as "poll".
    """

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._clock = clock
        self._began: float | None = None
        self._logged = 0.0

    def failed(self, error: Exception) -> None:
        """Another attempt failed."""
        now = self._clock()
        if self._began is None:
            self._began = now
        elif now - self._logged < _REPEAT_S:
            return
        self._logged = now
        logger.warning("%s: %s; trying again until it succeeds", self._what, error)

    def over(self) -> None:
        """An attempt succeeded."""
        if self._began is not None:
            logger.info("%s: goes on after %.0f s", self._what, self._clock() - self._began)
            self._began = None


__all__ = ["Outage"]
