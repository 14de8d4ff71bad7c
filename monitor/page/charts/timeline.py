"""The time axis of the charts: windows, the worker's clock, fewer points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from monitor.view.records import Point
from monitor.view.view import View

WINDOWS: Final = {"15 min": 900_000, "1 hour": 3_600_000, "6 hours": 21_600_000, "2 days": 172_800_000}


class Timeline:
    """From steps and event numbers, which messages carry, to the worker's wall clock, which the curves run on."""

    def __init__(self, points: Sequence[Point]) -> None:
        self._ts = np.array([p.ts for p in points], dtype=np.float64)
        self._steps = np.array([p.step for p in points], dtype=np.float64)
        self._events = np.array([p.events for p in points], dtype=np.float64)

    def __bool__(self) -> bool:
        return len(self._ts) > 0

    def of_step(self, step: int) -> int:
        """When a step was made, epoch milliseconds."""
        return int(np.interp(step, self._steps, self._ts))

    def of_event(self, event: int) -> int:
        """When the event of this number was accepted, epoch milliseconds."""
        return int(np.interp(event, self._events, self._ts))


class Window(NamedTuple):
    """A worker's reports in a window of time."""

    points: list[Point]
    since: int  # epoch milliseconds
    until: int


def window_of(view: View, worker: str, window_ms: int) -> Window:
    """The worker's reports in the window before its newest one."""
    workers = view.reports.workers
    newest = workers[worker].ts if worker in workers else 0
    points = view.reports.series(worker, newest - window_ms)
    since = max(newest - window_ms, points[0].ts) if points else newest - window_ms
    return Window(points, since, newest)


def thin_out(points: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of the points, evenly spread, with the last one.

    >>> thin_out(range(10), 4)
    [0, 3, 6, 9]
    """
    if len(points) <= most:
        return list(points)
    step = math.ceil((len(points) - 1) / (most - 1))
    chosen = list(points[::step])
    return chosen if chosen[-1] == points[-1] else [*chosen, points[-1]]
