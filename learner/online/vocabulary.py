"""Item ids to table rows and back, bounded: when the table is full the longest-unseen row is given to the new item.

A row alone does not say which item it means, because it may have been given away. What is stored in histories is a
**handle**: generation << 32 | row. The generation of a row goes up each time it is given away, so an old handle is
recognised as stale and reads as nothing. Row 0 is padding and handle 0 means "no item".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

ROW_BITS = 32
_ROW_MASK = (1 << ROW_BITS) - 1


class Admission(NamedTuple):
    """What `Vocabulary.admit` did."""

    handles: NDArray[np.int64]
    """(n,) handle of each event's item"""
    new_rows: NDArray[np.int64]
    """rows given to new items, in order; a row given away twice in one call stands here once"""


class Vocabulary:
    """A bounded map between item ids and handles.

    Parameters
    ----------
    capacity
        Most items held at once; one more gives the longest-unseen row away.

    Examples
    --------
    >>> vocabulary = Vocabulary(capacity=2)
    >>> vocabulary.admit(["a", "b", "a"], np.arange(3)).handles.tolist()
    [1, 2, 1]
    >>> vocabulary.admit(["c"], np.array([3])).handles.tolist() == [1 << 32 | 2]  # "b" was unseen for longest
    True
    >>> vocabulary.lookup(["a", "b"]).tolist(), vocabulary.rows(np.array([1, 2])).tolist()
    ([1, 0], [1, 0])
    """

    def __init__(self, capacity: int) -> None:
        if not 1 <= capacity <= _ROW_MASK:
            raise ValueError(f"capacity of the vocabulary must be 1 to {_ROW_MASK} items, got {capacity}")
        self.capacity = capacity
        self._handles: OrderedDict[str, int] = OrderedDict()  # longest unseen first
        self._ids: list[str] = [""]  # by row
        self._generations = np.zeros(1024, dtype=np.int64)  # by row
        self._last_seen = np.zeros(1024, dtype=np.int64)  # by row, event number
        self._turns = np.zeros(1024, dtype=np.int64)  # by row, rising in the order of `_handles`
        self._turn = 1

    @property
    def size(self) -> int:
        """Items held."""
        return len(self._handles)

    @property
    def last_seen(self) -> NDArray[np.int64]:
        """(size + 1,) event number of the last event of each row's item; row 0 means nothing."""
        return self._last_seen[: self.size + 1]

    @property
    def generations(self) -> NDArray[np.int64]:
        """(size + 1,) how often each row was given away."""
        return self._generations[: self.size + 1]

    def lookup(self, items: Sequence[str]) -> NDArray[np.int64]:
        """Handles of the items, (n,), 0 where unknown; changes nothing."""
        get = self._handles.get
        return np.fromiter((get(item, 0) for item in items), dtype=np.int64, count=len(items))

    def admit(self, items: Sequence[str], numbers: NDArray[np.int64]) -> Admission:
        """Handles of the items, event by event; unknown ones are taken in and known ones are now the latest seen.

        Parameters
        ----------
        items
            n item ids, in event order
        numbers
            (n,) number of each event in the stream
        """
        handles, known = self._handles, self._handles.get
        found = np.zeros(len(items), dtype=np.int64)
        new_rows: dict[int, None] = {}
        for position, item in enumerate(items):
            handle = known(item)
            if handle is None:
                handle = self._place(item)
                new_rows[handle & _ROW_MASK] = None
            else:
                handles.move_to_end(item)
            found[position] = handle
        self._last_seen[found & _ROW_MASK] = numbers  # repeated rows: the last assignment stands
        self._turns[found & _ROW_MASK] = self._turn + np.arange(len(items))
        self._turn += len(items)
        return Admission(found, np.fromiter(new_rows, dtype=np.int64, count=len(new_rows)))

    def _place(self, item: str) -> int:
        if len(self._handles) < self.capacity:
            row = len(self._ids)
            self._ids.append(item)
            if row >= len(self._generations):
                self._grow()
        else:
            _, old = self._handles.popitem(last=False)
            row = old & _ROW_MASK
            self._ids[row] = item
            self._generations[row] += 1
        handle = int(self._generations[row]) << ROW_BITS | row
        self._handles[item] = handle
        return handle

    def _grow(self) -> None:
        more = np.zeros(len(self._generations), dtype=np.int64)
        self._generations, self._last_seen, self._turns = (
            np.concatenate([old, more]) for old in (self._generations, self._last_seen, self._turns)
        )

    def rows(self, handles: NDArray[np.int64]) -> NDArray[np.int64]:
        """Table rows of handles of any shape; 0 where there is none or its row was given away."""
        rows = handles & _ROW_MASK
        known = rows < len(self._generations)
        if not known.all():
            rows = np.where(known, rows, 0)
        return np.where(self._generations[rows] == handles >> ROW_BITS, rows, 0)

    def handles(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The current handles of rows of any shape; 0 for row 0."""
        current: NDArray[np.int64] = self._generations[rows] << ROW_BITS | rows
        return current

    def ids(self, handles: NDArray[np.int64]) -> list[str]:
        """Item ids of handles (n,); the empty string where there is none or its row was given away."""
        ids = self._ids
        return [ids[row] for row in self.rows(handles).tolist()]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything, as arrays that a file can hold without pickling."""
        return self.begin_arrays()()

    def begin_arrays(self) -> Callable[[], dict[str, NDArray[Any]]]:
        """Copy everything; the function returned makes the arrays, in any thread, while this vocabulary goes on."""
        used = slice(self.size + 1)
        # by row, since going through an ordered dictionary of 100,000 items takes 50 ms
        ids = self._ids.copy()
        generations, turns, last_seen = (a[used].copy() for a in (self._generations, self._turns, self._last_seen))

        def arrays() -> dict[str, NDArray[Any]]:
            rows = np.argsort(turns[1:]) + 1  # longest unseen first
            encoded = [ids[row].encode() for row in rows.tolist()]
            return {
                "bytes": np.frombuffer(b"".join(encoded), dtype=np.uint8),
                "lengths": np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded)),
                "handles": generations[rows] << ROW_BITS | rows,
                "last_seen": last_seen,
            }

        return arrays

    @classmethod
    def from_arrays(cls, capacity: int, arrays: dict[str, NDArray[Any]]) -> Vocabulary:
        """The vocabulary that `to_arrays` described."""
        vocabulary = cls(capacity)
        raw, ends = arrays["bytes"].tobytes(), np.cumsum(arrays["lengths"]).tolist()
        items = [raw[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]
        handles = arrays["handles"]
        rows = handles & _ROW_MASK
        while len(vocabulary._generations) < len(items) + 1:
            vocabulary._grow()
        vocabulary._generations[rows] = handles >> ROW_BITS
        vocabulary._last_seen[: len(items) + 1] = arrays["last_seen"]
        vocabulary._turns[rows] = 1 + np.arange(len(items))
        vocabulary._turn = 1 + len(items)
        vocabulary._handles = OrderedDict(zip(items, handles.tolist(), strict=True))
        vocabulary._ids = [""] * (len(items) + 1)
        for item, row in zip(items, rows.tolist(), strict=True):
            vocabulary._ids[row] = item
        return vocabulary


__all__ = ["Admission", "ROW_BITS", "Vocabulary"]
