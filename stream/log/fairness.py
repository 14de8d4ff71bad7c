"""How many records of each partition one poll returns."""

from __future__ import annotations

from collections.abc import Mapping

from stream.log.base import TopicPartition


def split_fairly(waiting: Mapping[TopicPartition, int], max_records: int, turn: int) -> dict[TopicPartition, int]:
    """Split `max_records` evenly over the partitions; what one does not need goes to the others.

    Parameters
    ----------
    waiting
        Records that wait, per partition; at least one for each.
    turn
        Rises from call to call: with fewer records than partitions it decides which partitions get one.

    Returns
    -------
    Records per partition, in the order of the partitions; partitions that get none are left out.

    >>> a, b, c = (TopicPartition("t", p) for p in range(3))
    >>> [n for n in split_fairly({a: 9, b: 1, c: 9}, 11, 0).values()]
    [5, 1, 5]
    """
    shares: dict[TopicPartition, int] = {}
    left = max_records
    order = sorted(waiting, key=waiting.__getitem__)  # those that need least first
    for i, tp in enumerate(order):
        shares[tp] = min(waiting[tp], left // (len(order) - i))
        left -= shares[tp]
    names = sorted(waiting)
    for i in range(len(names)):
        tp = names[(turn + i) % len(names)]
        if left > 0 and not shares[tp]:
            shares[tp], left = 1, left - 1
    return {tp: shares[tp] for tp in names if shares[tp]}
