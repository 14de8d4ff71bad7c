"""The events of one step as parallel columns: the form that they keep from the decoder to the publisher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


def _empty() -> NDArray[np.int64]:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class EventBatch:
    """n events in order of arrival: partition by partition, by offset within one; `stream.engine.keying` sorts those
    that are in another partition than their user's.

    The decoder fills users, items, times and actions; the columns behind them are empty until the engine knows them.
    """

    users: list[bytes]
    """(n,) user ids"""
    items: list[str]
    """(n,) item ids"""
    ts: NDArray[np.int64]
    """(n,) event times, epoch milliseconds"""
    actions: NDArray[np.uint8]
    """(n,) action codes"""
    partitions: NDArray[np.int64] = field(default_factory=_empty)
    """(n,) input partition"""
    offsets: NDArray[np.int64] = field(default_factory=_empty)
    """(n,) offset in the partition"""
    user_rows: NDArray[np.int64] = field(default_factory=_empty)
    """(n,) row of the event's user among the users of the step"""
    clock: NDArray[np.int64] = field(default_factory=_empty)
    """(n,) where the clock of the user's state partition stood as the event came, see `state.Watermarks`"""
    handles: NDArray[np.int64] = field(default_factory=_empty)
    """(n,) item handles"""

    def __len__(self) -> int:
        return len(self.users)

    def select(self, mask: NDArray[np.bool_]) -> EventBatch:
        """Only the events for which `mask` (n,) is true; the same batch when that are all."""
        return self if mask.all() else self.take(np.flatnonzero(mask))

    def take(self, chosen: NDArray[np.int64]) -> EventBatch:
        """The events in these places, in this order."""

        def column(values: NDArray[Any]) -> NDArray[Any]:
            return values[chosen] if len(values) else values

        return EventBatch(
            [self.users[row] for row in chosen.tolist()],
            [self.items[row] for row in chosen.tolist()],
            self.ts[chosen],
            self.actions[chosen],
            column(self.partitions),
            column(self.offsets),
            column(self.user_rows),
            column(self.clock),
            column(self.handles),
        )

    @classmethod
    def concatenate(cls, batches: Sequence[EventBatch]) -> EventBatch:
        """Batches of several partitions as one, with the columns that the decoder and the log know."""
        return cls(
            [user for batch in batches for user in batch.users],
            [item for batch in batches for item in batch.items],
            np.concatenate([np.zeros(0, dtype=np.int64), *(batch.ts for batch in batches)]),
            np.concatenate([np.zeros(0, dtype=np.uint8), *(batch.actions for batch in batches)]),
            np.concatenate([_empty(), *(batch.partitions for batch in batches)]),
            np.concatenate([_empty(), *(batch.offsets for batch in batches)]),
        )


__all__ = ["EventBatch"]
