"""What the stream remembers outside the weights: how popular items are lately, and what was taken next to what.

Counts cost nothing to learn and are right at once, so on a stream they are strong. They are bounded: a few numbers and
two lists of fixed size per table row.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learner.online.config import ItemStatisticsConfig

_TAG_BITS = 8  # an entry is row << 8 | generation & 255, so there are at most 2**24 rows
_TAG = (1 << _TAG_BITS) - 1
_RESCALE_BITS = 200  # of float64's 1023: how far growing counts go before they are scaled back
DIRECTIONS = 2  # followers and predecessors


class Neighbors(NamedTuple):
    """Decayed followers and predecessors of users' newest items; one line per user, anchor, direction and neighbor."""

    users: NDArray[np.int64]
    """(T,) place of the user in the batch"""
    anchors: NDArray[np.int64]
    """(T,) which of the user's newest items, 0 = newest"""
    directions: NDArray[np.int64]
    """(T,) 0 = came after the anchor, 1 = came before it"""
    rows: NDArray[np.int64]
    """(T,) table row of the neighbor"""
    counts: NDArray[np.float32]
    """(2, T) decayed count at the short and the long half-life"""


class _Neighbors:
    """Decayed counts of the neighbors of each owner, in a fixed number of slots; who counts least makes room.

    Owner 2 row + direction: what came after the item of that row, then what came before it, so that one call does both.
    """

    def __init__(self, config: ItemStatisticsConfig, rows: int) -> None:
        self._fade = 0.5 ** (1 / np.array(config.neighbors))  # (2,) of a count, per neighbor that comes
        self._share = np.float32(config.share)
        self.entries = np.zeros((DIRECTIONS * rows, config.slots), dtype=np.uint32)
        self.counts = np.zeros((2, DIRECTIONS * rows, config.slots), dtype=np.float32)

    def grow(self, rows: int) -> None:
        used = self._used()
        entries = np.zeros((DIRECTIONS * rows, self.entries.shape[1]), dtype=np.uint32)
        counts = np.zeros((2, *entries.shape), dtype=np.float32)
        entries[used], counts[:, used] = self.entries[used], self.counts[:, used]
        self.entries, self.counts = entries, counts

    def _used(self) -> NDArray[np.int64]:
        """Owners with neighbors: zeros that nobody touches take no memory."""
        return np.flatnonzero(self.entries[:, 0])

    def fade(self, factor: float) -> None:
        """Let what is counted so far weigh `factor` of what it did."""
        self.counts[:, self._used()] *= np.float32(factor)

    def clear(self, rows: NDArray[np.int64]) -> None:
        owners = _owners(rows).ravel()
        used = owners[self.entries[owners, 0] > 0]
        self.entries[used] = 0
        self.counts[:, used] = 0

    def add(self, of: NDArray[np.int64], entries: NDArray[np.uint32], generations: NDArray[np.int64]) -> None:
        """Count entries (z,) as neighbors of owners `of` (z,), in order."""
        if not len(of):
            return
        order = np.argsort(of, kind="stable")
        first, lengths = runs(of[order])
        owners = of[order][first]
        later = np.repeat(lengths + first, lengths) - 1 - np.arange(len(of))  # neighbors of the same owner after each
        # one line per owner and distinct neighbor
        mine = np.repeat(np.arange(len(owners)), lengths)
        key: NDArray[np.int64] = np.bitwise_or(mine << 32, entries[order])
        by_key = np.argsort(key, kind="stable")
        start, _ = runs(key[by_key])
        added = np.add.reduceat((self._fade[:, None] ** later).take(by_key, axis=1), start, axis=1)  # (2, p)
        owner, entry = key[by_key][start] >> 32, key[by_key][start] & 0xFFFFFFFF
        held = self.entries[owners]  # (U, S)
        counts = self.counts.take(owners, axis=1) * (self._fade[:, None] ** lengths)[:, :, None]  # (2, U, S)
        counts *= _live(held, generations)
        same = held[owner] == entry[:, None]  # (p, S)
        known = same.any(axis=1)
        place = same.argmax(axis=1)
        counts[:, owner[known], place[known]] += added[:, known]
        new = np.flatnonzero(~known)
        new = new[np.lexsort((-added[1, new], owner[new]))]
        if len(new):  # they take the places of those who count least
            first, lengths = runs(owner[new])
            nth = np.arange(len(new)) - np.repeat(first, lengths)
            least = np.argsort(counts[1, owner[new][first]], axis=1, kind="stable")  # (a, S)
            asking = np.repeat(np.arange(len(first)), lengths)
            fits = nth < held.shape[1]
            new, place = new[fits], least[asking[fits], nth[fits]]
            held[owner[new], place] = entry[new]
            counts[:, owner[new], place] = added[:, new]
        self.entries[owners], self.counts[:, owners] = held, counts

    def read(
        self, owners: NDArray[np.int64], generations: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Neighbors of each of `owners` (U,), but for those that hardly count: how many (U,), their rows (z,), their
        counts (2, z).
        """
        entries = self.entries[owners]
        live = _live(entries, generations)
        counts = self.counts.take(owners, axis=1)  # (2, U, S)
        live &= (counts >= self._share * (counts * live).sum(axis=2, keepdims=True)).any(axis=0)  # at either half-life
        place = np.flatnonzero(live)  # `take` of places is several times as fast as numpy's other ways to choose
        counts = counts.reshape(2, -1).take(place, axis=1)
        return live.sum(axis=1), (entries.ravel().take(place) >> _TAG_BITS).astype(np.int64), counts


class ItemStatistics:
    """Decayed popularity and latest neighbors per table row.

    Parameters
    ----------
    config
        Half-lives and sizes.
    rows
        Table rows to hold, row 0 (padding) included.
    """

    def __init__(self, config: ItemStatisticsConfig, rows: int) -> None:
        self.config = config
        self._half_lives = np.array(config.popularity)
        self._events = 0  # positive events counted
        self._origin = 0  # event whose count is 1.0 as stored: later ones are stored larger, nothing is ever multiplied
        self._popularity = np.zeros((len(config.popularity), rows))
        self._totals = np.zeros(len(config.popularity))  # of all events, scaled alike
        self._seen = np.zeros(rows, dtype=np.int64)  # events per row, dislikes included
        self._first = np.zeros(rows, dtype=np.int64)  # event at which the row's item came
        self._last = np.zeros(rows, dtype=np.int64)  # event at which it was taken last
        self._near = _Neighbors(config, rows)

    def copy(self, size: int) -> ItemStatistics:
        """The same counts of rows 0 to size - 1, which go their own way from here."""
        other = ItemStatistics(self.config, self.rows)
        other.load_arrays(self.to_arrays(size))
        return other

    @property
    def rows(self) -> int:
        """Table rows there is room for."""
        return len(self._seen)

    @property
    def seen(self) -> NDArray[np.int64]:
        """(rows,) events of each row's item so far."""
        return self._seen

    def first_events(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which events (n,), of items in these rows, are the first of their item ever."""
        first = np.zeros(len(rows), dtype=bool)
        first[np.unique(rows, return_index=True)[1]] = True
        return np.asarray(first & (self._seen[rows] == 0) & (rows > 0))

    def grow(self, rows: int) -> None:
        """Make room for `rows` rows."""
        more = rows - self.rows
        blank = np.zeros(more, dtype=np.int64)
        self._popularity = np.concatenate([self._popularity, np.zeros((len(self._popularity), more))], axis=1)
        self._seen, self._first, self._last = (
            np.concatenate([old, blank]) for old in (self._seen, self._first, self._last)
        )
        self._near.grow(rows)

    def clear(self, rows: NDArray[np.int64]) -> None:
        """Forget what is known of rows that now belong to another item; others' lists tell it by the generation."""
        self._popularity[:, rows] = 0
        self._seen[rows] = 0
        self._first[rows] = self._events
        self._last[rows] = self._events
        self._near.clear(rows)

    def update(
        self,
        anchors: NDArray[np.int64],
        rows: NDArray[np.int64],
        generations: NDArray[np.int64],
        positive: NDArray[np.bool_],
        window: int = 0,
    ) -> None:
        """Take events in order.

        Parameters
        ----------
        anchors
            (n, A) rows of the user's newest items before each event, newest first, 0 = none; the first `window` count
        rows
            (n,) row of the item taken, 0 = given away meanwhile (ignored)
        generations
            generation by row, for all rows
        positive
            (n,) False = dislike: seen, but neither popular nor a neighbor
        window
            So many of the anchors count, 0 = `update_window` of the configuration
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
        near = anchors[:, : window or self.config.update_window][
            :, ::-1
        ]  # oldest first, so that the newest is written last
        event, place = np.nonzero((near > 0) & (near != rows[:, None]))
        pair = np.stack([near[event, place], rows[event]], axis=1)  # (p, 2) before, after
        self._near.add(
            (DIRECTIONS * pair + np.arange(DIRECTIONS)).ravel(),
            _entries(pair[:, ::-1].ravel(), generations),
            generations,
        )

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

    def fade_neighbors(self, factor: float) -> None:
        """Let the neighbors counted so far weigh `factor` of what they did, against those to come."""
        self._near.fade(factor)

    def popular(self, size: int, count: int) -> NDArray[np.int64]:
        """Rows below `size` that are popular at some half-life: `count` or more, in rising order, only seen ones."""
        share = -(-count // 2)  # of each half-life; they overlap
        found = [
            np.argpartition(counts[:size], max(size - share, 0))[max(size - share, 0) :] for counts in self._popularity
        ]
        rows = np.unique(np.concatenate(found))
        known: NDArray[np.int64] = rows[self._popularity[-1, rows] > 0]
        return known

    def most_popular(self, size: int, count: int) -> NDArray[np.int64]:
        """The most popular rows below `size`, over all half-lives, best first: `count`, or as many as there are."""
        rows = self.popular(size, 2 * count)
        return rows[np.argsort(-self.log_popularity(rows).mean(axis=0), kind="stable")[:count]]

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

    def neighbors(self, anchors: NDArray[np.int64], generations: NDArray[np.int64]) -> Neighbors:
        """Decayed neighbors of anchors (B, A), newest first, 0 = none."""
        anchors = anchors[:, : self.config.candidate_window]
        B, A = anchors.shape
        distinct, place = np.unique(anchors, return_inverse=True)
        held, rows, counts = self._near.read(_owners(distinct).ravel(), generations)
        starts = np.cumsum(held) - held
        owner = _owners(place.ravel()).ravel()  # (B * A * 2,) of each user, anchor and direction, among the distinct
        lengths = np.where(np.repeat(anchors.ravel() > 0, DIRECTIONS), held[owner], 0)
        end = np.cumsum(lengths)
        source = np.arange(end[-1] if len(end) else 0) + np.repeat(starts[owner] - (end - lengths), lengths)
        asked = np.repeat(np.arange(len(owner)), lengths)
        user, anchor = np.divmod(asked // DIRECTIONS, A)
        return Neighbors(user, anchor, asked % DIRECTIONS, rows.take(source), counts.take(source, axis=1))

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
        arrays["neighbors"] = self._near.entries[: DIRECTIONS * size]
        arrays["counts"] = self._near.counts[:, : DIRECTIONS * size]
        return arrays

    def load_arrays(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Continue from what `to_arrays` gave; the rows behind are empty."""
        size = len(arrays["seen"])
        self._events, self._origin = (int(number) for number in arrays["clock"])
        self._popularity[:, :size] = arrays["popularity"]
        self._totals = arrays["totals"].copy()
        self._seen[:size], self._first[:size], self._last[:size] = arrays["seen"], arrays["first"], arrays["last"]
        self._near.entries[: DIRECTIONS * size] = arrays["neighbors"]
        self._near.counts[:, : DIRECTIONS * size] = arrays["counts"]


def runs(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where runs of equal values begin, and how long they are.

    >>> runs(np.array([7, 7, 9]))
    (array([0, 2]), array([2, 1]))
    """
    first = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])[: len(values)])
    return first, np.diff(np.append(first, len(values)))


def _owners(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Both directions of rows (z,), (z, 2)."""
    return DIRECTIONS * rows[:, None] + np.arange(DIRECTIONS)


def _live(entries: NDArray[np.uint32], generations: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which entries name an item that is still the one in its row."""
    return np.asarray((generations[entries >> _TAG_BITS] & _TAG == entries & _TAG) & (entries > _TAG))


def _entries(rows: NDArray[np.int64], generations: NDArray[np.int64]) -> NDArray[np.uint32]:
    return (rows << _TAG_BITS | generations[rows] & _TAG).astype(np.uint32)


__all__ = ["DIRECTIONS", "ItemStatistics", "Neighbors", "runs"]
