"""The newest events of several users, as the learner is given them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Histories:
    """The newest L events of each of B users: right-aligned, newest last, 0 where there is no item."""

    items: NDArray[np.int64]
    """(B, L) item handles"""
    actions: NDArray[np.uint8]
    """(B, L) action codes"""
    ts: NDArray[np.int64]
    """(B, L) epoch milliseconds"""

    @classmethod
    def of_records(cls, records: NDArray[Any]) -> Histories:
        """Histories of user records (B,) with the fields `items`, `actions` and `ts`."""
        return cls(*(np.ascontiguousarray(records[name]) for name in ("items", "actions", "ts")))

    @classmethod
    def of_items(cls, items: NDArray[np.int64]) -> Histories:
        """Histories of items (B, L) of which neither actions nor times are known: nothing is disliked."""
        return cls(items, np.zeros(items.shape, dtype=np.uint8), np.zeros(items.shape, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.items)

    def select(self, rows: NDArray[Any] | slice) -> Histories:
        """Histories of some of the users: indices, a mask or a slice; the same user may come several times."""
        return Histories(self.items[rows], self.actions[rows], self.ts[rows])

    def newest(self, width: int) -> Histories:
        """Only the newest `width` places of each history."""
        places = slice(max(0, self.items.shape[1] - width), None)
        return Histories(self.items[:, places], self.actions[:, places], self.ts[:, places])

    def before(self, events: NDArray[np.integer[Any]]) -> Histories:
        """Histories without the newest `events` (B,) entries, right-aligned again.

        >>> items = np.array([[0, 5, 6, 7]])
        >>> Histories(items, items.astype(np.uint8), items * 10).before(np.array([2])).items.tolist()
        [[0, 0, 0, 5]]
        """
        column = np.arange(self.items.shape[1]) - np.asarray(events)[:, None]  # (B, L) where each place is read from
        inside, column = column >= 0, np.maximum(column, 0)

        def shifted(values: NDArray[Any]) -> NDArray[Any]:
            taken = np.take_along_axis(values, column, axis=1)
            return np.where(inside, taken, np.zeros((), dtype=values.dtype))

        return Histories(shifted(self.items), shifted(self.actions), shifted(self.ts))


__all__ = ["Histories"]
