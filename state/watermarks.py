"""Event time so far in each partition. Users are forgotten by this clock, not by the time of one event.

A partition's clock depends only on the times of its own events in offset order: the size of the steps makes no
difference.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

BLOCK_EVENTS: Final = 256
_BLOCKS_PER_TTL: Final = 4  # eight blocks with wrong times make a clock forget all users, not one


class Watermarks:
    """One clock per partition. A full block of events moves it to their median time, never back.

    Wrong times in the future must not empty all histories at once: one block moves a clock by at most a quarter of the
    time to live. The first block sets it.

    Parameters
    ----------
    partitions
        Number of partitions.
    ttl_ms
        Time to live of a user, milliseconds; 0 = for ever, the clocks then stand at 0.
    block_events
        Events of a block; their times are kept until it is full.

    Examples
    --------
    >>> clocks = Watermarks(1, ttl_ms=400, block_events=2)
    >>> clocks.advance(np.zeros(5, dtype=np.int64), np.array([1000, 1010, 9000, 9000, 1020])).tolist()
    [0, 0, 1010, 1010, 1110]
    """

    def __init__(self, partitions: int, ttl_ms: int, block_events: int = BLOCK_EVENTS) -> None:
        self.now = np.zeros(partitions, dtype=np.int64)  # (P,) epoch milliseconds, 0 before the first full block
        self._ttl_ms = ttl_ms
        self._most_ms = max(1, ttl_ms // _BLOCKS_PER_TTL)
        self._block_events = block_events
        self._waiting = [np.zeros(0, dtype=np.int64) for _ in range(partitions)]  # times of the block that is not full

    def advance(self, partitions: NDArray[np.int64], ts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Pass n events, in offset order within a partition; returns (n,) the clock at each event."""
        found = np.zeros(len(ts), dtype=np.int64)
        if self._ttl_ms:
            for partition in np.unique(partitions).tolist():
                rows = np.flatnonzero(partitions == partition)
                found[rows] = self._advance_one(partition, ts[rows])
        return found

    def to_state(self) -> dict[str, Any]:
        """The clocks and open blocks as plain data."""
        return {"now": self.now.tolist(), "waiting": [times.tolist() for times in self._waiting]}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from `to_state`."""
        self.now = np.array(state["now"], dtype=np.int64)
        self._waiting = [np.array(times, dtype=np.int64) for times in state["waiting"]]

    def _advance_one(self, partition: int, ts: NDArray[np.int64]) -> NDArray[np.int64]:
        size, before = self._block_events, len(self._waiting[partition])
        times = np.concatenate([self._waiting[partition], ts])
        full = len(times) // size
        blocks = times[: full * size].reshape(full, size)
        marks = [int(self.now[partition])]
        for middle in np.partition(blocks, size // 2, axis=1)[:, size // 2].tolist():
            clock = marks[-1]
            marks.append(max(clock, min(middle, clock + self._most_ms)) if clock else middle)
        self.now[partition] = marks[-1]
        self._waiting[partition] = times[full * size :].copy()
        return np.array(marks, dtype=np.int64)[(before + np.arange(len(ts))) // size]


__all__ = ["BLOCK_EVENTS", "Watermarks"]
