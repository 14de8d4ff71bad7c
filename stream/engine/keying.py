"""Repartitioning by user: whatever partition a record is in, its event goes to the one history of its user.

Histories and clocks are kept by *state partition*, murmur2 of the user modulo the number of partitions that the stream
began with. That is the partition of the record too when a producer places it as Kafka's default partitioner does, and
then nothing here changes anything. A record with another key or none, placed by another partitioner, or in a partition
that was added since, is in another one: its event joins those of its user in the same step. The input ranges of a
step say all about it, so a recovery from the journal repeats it, and a crash loses no more than without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stream.log.partitioner import partitions_of
from stream.schema.event_batch import EventBatch
from stream.schema.events import Erasure


@dataclass(frozen=True, slots=True)
class KeyedEvents:
    """The events of a step by user."""

    events: EventBatch
    """(n,) by state partition, with the rows of their users"""
    keep: NDArray[np.bool_]
    """(n,) of the events, as `key_by_user` was given it"""
    names: list[bytes]
    """(U,) users, by state partition and in order of first arrival"""
    partitions: NDArray[np.int64]
    """(U,) their state partitions"""

    def misplaced(self, later_counts: Sequence[int]) -> int:
        """How many events are in none of the input partitions of their users, present or past.

        later_counts: the numbers of partitions that the topic has had since the stream began.
        """
        rows, found = self.events.user_rows, self.events.partitions
        placed = self.partitions[rows] == found
        for count in later_counts:
            placed |= partitions_of(self.names, count)[rows] == found
        return len(found) - int(np.count_nonzero(placed))


def key_by_user(
    events: EventBatch, keep: NDArray[np.bool_], erasures: Sequence[Erasure], partitions: int
) -> KeyedEvents:
    """Bring the events of a step to the state partitions of their users.

    A state partition takes its events from the input partitions by time, the partition whose next event is the
    earliest first, and never changes the order within one.

    Parameters
    ----------
    events
        (n,) input partition by input partition, by offset within one.
    keep
        (n,) which of them no request to erase concerns.
    erasures
        The requests of the step; their users are among those returned.
    partitions
        Number of state partitions.
    """
    order: dict[bytes, int] = {}
    arrivals = np.array([order.setdefault(user, len(order)) for user in events.users], dtype=np.int64)
    for erasure in erasures:
        order.setdefault(erasure.user, len(order))
    arrived = list(order)
    by_arrival = partitions_of(arrived, partitions)
    by_partition = np.argsort(by_arrival, kind="stable")
    rows = np.empty(len(arrived), dtype=np.int64)
    rows[by_partition] = np.arange(len(arrived))
    events = replace(events, user_rows=rows[arrivals])
    names, found = [arrived[row] for row in by_partition.tolist()], by_arrival[by_partition]
    if np.array_equal(events.partitions, found[events.user_rows]):
        return KeyedEvents(events, keep, names, found)
    merged = np.lexsort((_latest_so_far(events), found[events.user_rows]))
    return KeyedEvents(events.take(merged), keep[merged], names, found)


def _latest_so_far(events: EventBatch) -> NDArray[np.int64]:
    """Latest time up to each event (n,) in its input partition: sorted by it, a partition keeps its order."""
    latest = np.empty_like(events.ts)
    for partition in np.unique(events.partitions).tolist():
        rows = np.flatnonzero(events.partitions == partition)
        latest[rows] = np.maximum.accumulate(events.ts[rows])
    return latest


__all__ = ["KeyedEvents", "key_by_user"]
