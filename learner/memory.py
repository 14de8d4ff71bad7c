"""What the stream remembers outside the weights: how popular items are lately, and what was taken next to what.

Counts cost nothing to learn and are right at once, so on a stream they are strong. They are bounded: a few numbers and
two rings of fixed size per table row.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

_TAG_BITS = 8  # a ring entry is row << 8 | generation & 255, so there are at most 2**24 rows
_TAG = (1 << _TAG_BITS) - 1
_AGE_BITS = 12  # places in a ring, at most 4096
_RESCALE_BITS = 200  # of float64's 1023: how far growing counts go before they are scaled back
DIRECTIONS = 2  # followers and predecessors


class MemoryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the memories last."""

    popularity: Annotated[
        tuple[Annotated[float, Meta(ge=1)], ...],
        Meta(
            min_length=1, max_length=8, description="half-lives of the decayed popularity, rising; events of the stream"
        ),
    ] = (100.0, 500.0, 3000.0, 20_000.0)
    neighbours: Annotated[
        tuple[Annotated[float, Meta(ge=1)], Annotated[float, Meta(ge=1)]],
        Meta(description="short and long half-life of an item's decayed followers; followers of that item"),
    ] = (50.0, 1000.0)
    ring: Annotated[
        int, Meta(ge=1, le=4096, description="latest followers, and latest predecessors, kept per item; count")
    ] = 512
    written: Annotated[
        int, Meta(ge=1, le=50, description="newest items of a history that an event is a follower of; count")
    ] = 3
    read: Annotated[
        int, Meta(ge=1, le=50, description="newest items of a history whose neighbours are candidates; count")
    ] = 10


class Neighbours(NamedTuple):
    """Decayed followers and predecessors of users' newest items; one line per user, anchor, direction and neighbour."""

    users: NDArray[np.int64]
    """(T,) place of the user in the batch"""
    anchors: NDArray[np.int64]
    """(T,) which of the user's newest items, 0 = newest"""
    directions: NDArray[np.int64]
    """(T,) 0 = came after the anchor, 1 = came before it"""
    rows: NDArray[np.int64]
    """(T,) table row of the neighbour"""
    counts: NDArray[np.float64]
    """(2, T) decayed count at the short and the long half-life"""


class _Rings:
    """The latest neighbours of each row, newest over oldest."""

    def __init__(self, rows: int, size: int) -> None:
        self.entries = np.zeros((rows, size), dtype=np.uint32)
        self.written = np.zeros(rows, dtype=np.int64)  # ever, per ring

    def grow(self, rows: int) -> None:
        used = np.flatnonzero(self.written)
        entries = np.zeros((rows, self.entries.shape[1]), dtype=np.uint32)
        entries[used] = self.entries[used]  # zeros that nobody writes to take no memory
        self.entries = entries
        self.written = np.concatenate([self.written, np.zeros(rows - len(self.written), dtype=np.int64)])

    def clear(self, rows: NDArray[np.int64]) -> None:
        used = rows[self.written[rows] > 0]
        self.entries[used] = 0
        self.written[used] = 0

    def write(self, rows: NDArray[np.int64], entries: NDArray[np.uint32]) -> None:
        """Append entries (z,) to the rings of `rows` (z,), in order."""
        if not len(rows):
            return
        order = np.argsort(rows, kind="stable")
        rows, entries = rows[order], entries[order]
        first = _starts(rows)
        counts = np.diff(np.append(first, len(rows)))
        nth = np.arange(len(rows)) - np.repeat(first, counts)
        # where more than a ring's worth comes at once, the later ones stand: numpy assigns repeated places in order
        self.entries[rows, (self.written[rows] + nth) % self.entries.shape[1]] = entries
        self.written[rows[first]] += counts

    def read(
        self, rows: NDArray[np.int64], generations: NDArray[np.int64], weights: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Distinct neighbours of each of `rows` (U,): ends of the lists (U,), their rows (z,), their counts (2, z)."""
        written, size = self.written[rows], self.entries.shape[1]
        width = int(min(written.max(initial=0), size))
        age = (written[:, None] - 1 - np.arange(width)) % size  # (U, width) of each place in use
        entries = self.entries[rows, :width].astype(np.int64)
        neighbours = entries >> _TAG_BITS
        live = (age < written[:, None]) & (generations[neighbours] & _TAG == entries & _TAG) & (neighbours > 0)
        ring, place = np.nonzero(live)
        key = ring << 44 | neighbours[ring, place] << _AGE_BITS | age[ring, place]
        key.sort()
        pair = key >> _AGE_BITS
        first = _starts(pair)
        counts = (
            np.add.reduceat(weights[:, key & (1 << _AGE_BITS) - 1], first, axis=1) if len(first) else weights[:, :0]
        )
        ends = np.searchsorted(pair[first] >> 32, np.arange(len(rows)), side="right")
        return ends, pair[first] & 0xFFFFFFFF, counts


class Memories:
    """Decayed popularity and latest neighbours per table row.

    Parameters
    ----------
    config
        Half-lives and sizes.
    rows
        Table rows to hold, row 0 (padding) included.
    """

    def __init__(self, config: MemoryConfig, rows: int) -> None:
        self.config = config
        self._half_lives = np.array(config.popularity)
        self._events = 0  # positive events counted
        self._origin = 0  # event whose count is 1.0 as stored: later ones are stored larger, nothing is ever multiplied
        self._popularity = np.zeros((len(config.popularity), rows))
        self._totals = np.zeros(len(config.popularity))  # of all events, scaled alike
        self._seen = np.zeros(rows, dtype=np.int64)  # events per row, dislikes included
        self._first = np.zeros(rows, dtype=np.int64)  # event at which the row's item came
        self._last = np.zeros(rows, dtype=np.int64)  # event at which it was taken last
        self._rings = tuple(_Rings(rows, config.ring) for _ in range(DIRECTIONS))
        self._age_weights = 2.0 ** (-np.arange(config.ring) / np.array(config.neighbours)[:, None])  # (2, ring)

    @property
    def rows(self) -> int:
        """Table rows there is room for."""
        return len(self._seen)

    @property
    def seen(self) -> NDArray[np.int64]:
        """(rows,) events of each row's item so far."""
        return self._seen

    def grow(self, rows: int) -> None:
        """Make room for `rows` rows."""
        more = rows - self.rows
        blank = np.zeros(more, dtype=np.int64)
        self._popularity = np.concatenate([self._popularity, np.zeros((len(self._popularity), more))], axis=1)
        self._seen, self._first, self._last = (
            np.concatenate([old, blank]) for old in (self._seen, self._first, self._last)
        )
        for rings in self._rings:
            rings.grow(rows)

    def clear(self, rows: NDArray[np.int64]) -> None:
        """Forget what is known of rows that now belong to another item; others' rings tell it by the generation."""
        self._popularity[:, rows] = 0
        self._seen[rows] = 0
        self._first[rows] = self._events
        self._last[rows] = self._events
        for rings in self._rings:
            rings.clear(rows)

    def update(
        self,
        anchors: NDArray[np.int64],
        rows: NDArray[np.int64],
        generations: NDArray[np.int64],
        positive: NDArray[np.bool_],
    ) -> None:
        """Take events in order.

        Parameters
        ----------
        anchors
            (n, A) rows of the user's newest items before each event, newest first, 0 = none; the first `written` count
        rows
            (n,) row of the item taken, 0 = given away meanwhile (ignored)
        generations
            generation by row, for all rows
        positive
            (n,) False = dislike: seen, but neither popular nor a neighbour
        """
        np.add.at(self._seen, rows, 1)
        self._seen[0] = 0
        wanted = positive & (rows > 0)
        if not wanted.all():
            anchors, rows = anchors[wanted], rows[wanted]
        if not len(rows):
            return
        self._last[rows] = self._events + 1 + np.arange(len(rows))
        self._count(rows)
        near = anchors[:, : self.config.written][:, ::-1]  # oldest first, so that the newest is written last
        event, place = np.nonzero((near > 0) & (near != rows[:, None]))
        before, after = near[event, place], rows[event]
        self._rings[0].write(before, _entries(after, generations))
        self._rings[1].write(after, _entries(before, generations))

    def _count(self, rows: NDArray[np.int64]) -> None:
        age = (self._events + 1 - self._origin) + np.arange(len(rows))
        if age[-1] / self._half_lives.min() > _RESCALE_BITS:
            shrink = 2.0 ** ((age[0] - 1) / self._half_lives)
            self._popularity /= shrink[:, None]
            self._totals /= shrink
            self._origin = self._events
            age -= age[0] - 1
        added = 2.0 ** (age / self._half_lives[:, None])  # (H, n)
        for counts, amounts in zip(self._popularity, added, strict=True):
            np.add.at(counts, rows, amounts)
        self._totals += added.sum(axis=1)
        self._events += len(rows)

    def age(self, events: float) -> None:
        """Let the popularity decay as if so many events had passed; an item's followers decay by its own events."""
        shrink = 0.5 ** (events / self._half_lives)
        self._popularity *= shrink[:, None]
        self._totals *= shrink

    def popular(self, size: int, count: int) -> NDArray[np.int64]:
        """Rows below `size` that are popular at some half-life: `count` or more, in rising order, only seen ones."""
        share = -(-count // 2)  # of each half-life; they overlap
        found = [
            np.argpartition(counts[:size], max(size - share, 0))[max(size - share, 0) :] for counts in self._popularity
        ]
        rows = np.unique(np.concatenate(found))
        known: NDArray[np.int64] = rows[self._popularity[-1, rows] > 0]
        return known

    def log_popularity(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logarithm of the decayed share of rows (z,) per half-life, (H, z); a hundredth of an event for nothing."""
        if len(rows) > self.rows:  # candidates of many users repeat: each row's logarithm once
            return self.log_popularity(np.arange(self.rows))[:, rows]
        scale = 2.0 ** ((self._events - self._origin) / self._half_lives)[:, None]
        totals = self._totals[:, None] / scale + 0.01
        # single precision is enough for a logarithm and takes a quarter of the time
        shares: NDArray[np.float32] = np.log(((self._popularity[:, rows] / scale + 0.01) / totals).astype(np.float32))
        return shares

    def ages(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Events since the item of each of `rows` (z,) came and since it was taken last, (2, z)."""
        ages: NDArray[np.int64] = self._events - np.stack([self._first[rows], self._last[rows]])
        return ages

    def neighbours(self, anchors: NDArray[np.int64], generations: NDArray[np.int64]) -> Neighbours:
        """Decayed neighbours of anchors (B, A), newest first, 0 = none."""
        anchors = anchors[:, : self.config.read]
        B, A = anchors.shape
        distinct, place = np.unique(anchors, return_inverse=True)
        place = np.where(anchors > 0, place.reshape(B, A), -1).ravel()
        parts = []
        for direction, rings in enumerate(self._rings):
            ends, rows, counts = rings.read(distinct, generations, self._age_weights)
            starts = np.append(0, ends)[:-1]
            lengths = np.where(place >= 0, (ends - starts)[place], 0)  # (B * A,) lines of each anchor
            total = int(lengths.sum())
            source = np.arange(total) + np.repeat(starts[place] - (np.cumsum(lengths) - lengths), lengths)
            anchor = np.repeat(np.arange(B * A), lengths)
            parts.append((anchor // A, anchor % A, np.full(total, direction), rows[source], counts[:, source]))
        return Neighbours(*(np.concatenate(part, axis=-1) for part in zip(*parts, strict=True)))

    def to_arrays(self, size: int) -> dict[str, NDArray[Any]]:
        """Everything known of rows 0 to size - 1, as arrays."""
        arrays: dict[str, NDArray[Any]] = {
            "clock": np.array([self._events, self._origin], dtype=np.int64),
            "popularity": self._popularity[:, :size],
            "totals": self._totals,
            "seen": self._seen[:size],
            "first": self._first[:size],
            "last": self._last[:size],
        }
        for direction, rings in enumerate(self._rings):
            arrays[f"ring.{direction}"] = rings.entries[:size]
            arrays[f"written.{direction}"] = rings.written[:size]
        return arrays

    def load_arrays(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Continue from what `to_arrays` gave; the rows behind are empty."""
        size = len(arrays["seen"])
        self._events, self._origin = (int(number) for number in arrays["clock"])
        self._popularity[:, :size] = arrays["popularity"]
        self._totals = arrays["totals"].copy()
        self._seen[:size], self._first[:size], self._last[:size] = arrays["seen"], arrays["first"], arrays["last"]
        for direction, rings in enumerate(self._rings):
            rings.entries[:size] = arrays[f"ring.{direction}"]
            rings.written[:size] = arrays[f"written.{direction}"]


def _starts(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where runs of equal values begin."""
    return np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])[: len(values)])


def _entries(rows: NDArray[np.int64], generations: NDArray[np.int64]) -> NDArray[np.uint32]:
    return (rows << _TAG_BITS | generations[rows] & _TAG).astype(np.uint32)


__all__ = ["DIRECTIONS", "Memories", "MemoryConfig", "Neighbours"]
