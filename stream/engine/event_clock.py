"""The stream's own time, as one number that no single user moves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream.schema.event_batch import EventBatch
from stream.schema.user_keys import user_keys

WINDOW_EVENTS: Final = 512


class EventClock:
    """The (lower) median time of the newest `WINDOW_EVENTS` events, each user once with the newest of them.

    A maximum would stay at the one event whose clock is a day ahead, and stand still until the stream catches up. The
    median follows the others, half a window behind the newest event, and goes back when wrong times have passed.

    >>> clock = EventClock()
    >>> clock.advance(EventBatch([b"anna", b"bert", b"cleo"], ["x"] * 3, np.array([10, 11, 99]), np.zeros(3, np.uint8)))
    >>> clock.now
    11
    """

    def __init__(self) -> None:
        self.now = 0
        """epoch milliseconds, 0 before the first event"""
        self._users = np.zeros(0, dtype=np.uint64)  # (W,) stable keys of the users of the newest events
        self._ts = np.zeros(0, dtype=np.int64)  # (W,) their times

    def advance(self, events: EventBatch) -> None:
        """Take the events of a step, input partition by input partition."""
        if not len(events):
            return
        newest = _interleaved(events.partitions, len(events))[-WINDOW_EVENTS:]
        keys = user_keys([events.users[row] for row in newest.tolist()])
        self._users = np.concatenate([self._users, keys])[-WINDOW_EVENTS:]
        self._ts = np.concatenate([self._ts, events.ts[newest]])[-WINDOW_EVENTS:]
        last = np.unique(self._users[::-1], return_index=True)[1]
        times = np.sort(self._ts[::-1][last])
        self.now = int(times[(len(times) - 1) // 2])

    def to_state(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {"now": self.now, "users": self._users.tolist(), "ts": self._ts.tolist()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `to_state` returned."""
        self.now = int(state["now"])
        self._users = np.array(state["users"], dtype=np.uint64)
        self._ts = np.array(state["ts"], dtype=np.int64)


def _interleaved(partitions: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Rows (n,) of the events as if those of each partition had come evenly over the step."""
    if not len(partitions):
        return np.arange(count)
    _, firsts, rows, counts = np.unique(partitions, return_index=True, return_inverse=True, return_counts=True)
    share = (np.arange(count) - firsts[rows]) / counts[rows]
    return np.argsort(share, kind="stable")


__all__ = ["WINDOW_EVENTS", "EventClock"]
