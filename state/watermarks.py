"""Event time so far in each partition. Users are forgotten by this clock, not by the time of one event.

A partition's clock depends only on the times and users of its own events in offset order: the size of the steps makes
no difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

BLOCK_EVENTS: Final = 256
WINDOW_BLOCKS: Final = 32


class Watermarks:
    """One clock per partition: the middle of the times of its newest blocks of events, by the users in them.

    A full block counts with the middle of its users' times, each user once, and weighs as much as it has users. The
    clock is the weighted median of the newest `window_blocks` blocks; until so many have come, the first one stands for
    those that are missing. So neither a block of events from the future nor any number of them by one user moves it,
    and a clock that was moved comes back. It never falls below `floor`, the earliest of the window's blocks so far:
    what is forgotten at the floor stays forgotten, and may be removed.

    Parameters
    ----------
    partitions
        Number of partitions.
    ttl_ms
        Time to live of a user, milliseconds; 0 = for ever, the clocks then stand at 0.
    block_events
        Events of a block; their times are kept until it is full.
    window_blocks
        Blocks that the clock is the median of.

    Examples
    --------
    >>> clocks = Watermarks(1, ttl_ms=400, block_events=1, window_blocks=3)
    >>> clocks.advance(np.zeros(6, dtype=np.int64), np.array([1000, 1010, 9000, 1020, 1030, 1040])).tolist()
    [0, 1000, 1000, 1010, 1020, 1030]
    """

    def __init__(
        self, partitions: int, ttl_ms: int, block_events: int = BLOCK_EVENTS, window_blocks: int = WINDOW_BLOCKS
    ) -> None:
        self.now = np.zeros(partitions, dtype=np.int64)  # (P,) epoch milliseconds, 0 before the first full block
        self.floor = np.zeros(partitions, dtype=np.int64)  # (P,) the clock never falls below it
        self._ttl_ms = ttl_ms
        self._block_events = block_events
        self._window_blocks = window_blocks
        self._windows = [_Window(window_blocks) for _ in range(partitions)]

    def advance(
        self, partitions: NDArray[np.int64], ts: NDArray[np.int64], users: NDArray[np.uint64] | None = None
    ) -> NDArray[np.int64]:
        """Take n events, those of a partition in offset order; returns (n,) the clock as each one came.

        Parameters
        ----------
        partitions, ts
            (n,) of the events.
        users
            (n,) stable keys of their users; None: every event is of another user.
        """
        found = np.zeros(len(ts), dtype=np.int64)
        if self._ttl_ms:
            for partition in np.unique(partitions).tolist():
                rows = np.flatnonzero(partitions == partition)
                found[rows] = self._advance(partition, ts[rows], None if users is None else users[rows])
        return found

    def to_state(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "now": self.now.tolist(),
            "floor": self.floor.tolist(),
            "windows": [window.to_state() for window in self._windows],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `to_state` returned; of a state without windows, only the clocks are kept."""
        self.now = np.array(state["now"], dtype=np.int64)
        self.floor = np.array(state.get("floor", [0] * len(self.now)), dtype=np.int64)
        kept = state.get("windows") or [
            {"times": [now] if now else [], "weights": [1] if now else [], "waiting": [], "users": []}
            for now in self.now.tolist()
        ]
        self._windows = [_Window.from_state(self._window_blocks, window) for window in kept]

    def _advance(self, partition: int, ts: NDArray[np.int64], users: NDArray[np.uint64] | None) -> NDArray[np.int64]:
        size, window = self._block_events, self._windows[partition]
        before = len(window.waiting)
        if users is None:  # numbers that no event of the block has
            users = np.arange(before, before + len(ts), dtype=np.uint64) % np.uint64(size)
        times, keys = np.concatenate([window.waiting, ts]), np.concatenate([window.users, users])
        marks = [int(self.now[partition])]
        floor = int(self.floor[partition])
        full = len(times) // size * size
        for start in range(0, full, size):
            window.add(times[start : start + size], keys[start : start + size])
            floor = max(floor, window.earliest)
            marks.append(max(floor, window.median))
        self.now[partition], self.floor[partition] = marks[-1], floor
        window.waiting, window.users = times[full:].copy(), keys[full:].copy()
        return np.array(marks, dtype=np.int64)[(before + np.arange(len(ts))) // size]


class _Window:
    """The newest blocks of a partition, and the events of the block that is not full."""

    def __init__(self, blocks: int) -> None:
        self._blocks = blocks
        self._times: list[int] = []  # of at most `blocks` blocks, the newest last
        self._weights: list[int] = []
        self.waiting = np.zeros(0, dtype=np.int64)
        self.users = np.zeros(0, dtype=np.uint64)

    def add(self, ts: NDArray[np.int64], users: NDArray[np.uint64]) -> None:
        """Add a full block of events."""
        first = np.unique(users, return_index=True)[1]
        self._times = [*self._times, int(np.sort(ts[first])[len(first) // 2])][-self._blocks :]
        self._weights = [*self._weights, len(first)][-self._blocks :]

    @property
    def earliest(self) -> int:
        """Time of the earliest block; 0 until the window is full."""
        return min(self._times) if len(self._times) == self._blocks else 0

    @property
    def median(self) -> int:
        """Weighted median of the blocks' times; the first block stands for those that have not come yet."""
        missing = self._blocks - len(self._times)
        times = np.array([self._times[0]] * missing + self._times)
        weights = np.array([self._weights[0]] * missing + self._weights)
        order = np.argsort(times, kind="stable")
        below = np.cumsum(weights[order])
        return int(times[order][np.searchsorted(2 * below, below[-1])])

    def to_state(self) -> dict[str, list[int]]:
        return {
            "times": self._times,
            "weights": self._weights,
            "waiting": self.waiting.tolist(),
            "users": self.users.tolist(),
        }

    @classmethod
    def from_state(cls, blocks: int, state: Mapping[str, Any]) -> _Window:
        window = cls(blocks)
        window._times, window._weights = list(state["times"]), list(state["weights"])
        window.waiting = np.array(state["waiting"], dtype=np.int64)
        window.users = np.array(state["users"], dtype=np.uint64)
        return window


__all__ = ["BLOCK_EVENTS", "WINDOW_BLOCKS", "Watermarks"]
