"""Kafka's murmur2 and the partition of a key, for one key and for many at once.

A log that moves from the embedded store to Kafka (or back) keeps the partition of every key, so both implementations
use these functions and never a client's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stream.log.base import LogError, TopicSpec

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF
_VECTOR_FROM = 24  # below this many keys the plain loop is faster than numpy's fixed cost


def murmur2(key: bytes) -> int:
    """Hash of one key as an unsigned 32-bit number, as `org.apache.kafka.common.utils.Utils.murmur2` computes it.

    >>> murmur2(b"foobar") - 2**32
    -790332482
    """
    length = len(key)
    h = _SEED ^ length
    whole = length & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(key[i : i + 4], "little") * _M & _MASK
        k = (k ^ (k >> 24)) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    if length > whole:
        h = (h ^ int.from_bytes(key[whole:], "little")) * _M & _MASK
    h = (h ^ (h >> 13)) * _M & _MASK
    return h ^ (h >> 15)


def murmur2_many(keys: Sequence[bytes]) -> npt.NDArray[np.uint32]:
    """Hashes of many keys, (n,) uint32: one numpy pass per four bytes of the longest key."""
    lengths = np.fromiter(map(len, keys), dtype=np.int64, count=len(keys))  # (n,)
    padded = b"".join(keys) + b"\0\0\0\0"
    data = np.frombuffer(padded, dtype=np.uint8)
    starts = np.cumsum(lengths) - lengths  # (n,)
    # Longest first, so that the keys that still have a word at step i are a prefix.
    order = np.argsort(-lengths, kind="stable")
    sorted_lengths, sorted_starts = lengths[order], starts[order]
    h = np.uint32(_SEED) ^ sorted_lengths.astype(np.uint32)  # (n,)
    m = np.uint32(_M)
    words = sorted_lengths >> 2
    longest = int(words[0]) if len(words) else 0
    reach = np.searchsorted(-words, -np.arange(longest), side="left") if longest else np.zeros(0, dtype=np.int64)
    lanes = np.arange(4)
    for step in range(longest):
        n = int(reach[step])  # keys with more than `step` whole words
        at = sorted_starts[:n, None] + (4 * step + lanes)  # (n, 4)
        k = data[at].view("<u4")[:, 0] * m
        k ^= k >> np.uint32(24)
        k *= m
        h[:n] = (h[:n] * m) ^ k
    left = sorted_lengths & 3
    rest = np.flatnonzero(left)
    if len(rest):
        at = (sorted_starts[rest] + (sorted_lengths[rest] & ~3))[:, None] + lanes  # (r, 4)
        tail = data[at] * (lanes < left[rest, None])  # bytes of the next key masked
        k = tail.astype(np.uint8).view("<u4")[:, 0]
        h[rest] = (h[rest] ^ k) * m
    h ^= h >> np.uint32(13)
    h *= m
    h ^= h >> np.uint32(15)
    hashes = np.empty_like(h)
    hashes[order] = h
    return hashes


def partition_of(key: bytes | None, partitions: int) -> int:
    """Partition of one key as Kafka's default partitioner gives it; a record without a key goes to partition 0."""
    return 0 if key is None else (murmur2(key) & 0x7FFFFFFF) % partitions


def partitions_of(keys: Sequence[bytes | None], partitions: int) -> npt.NDArray[np.int64]:
    """Partitions of many keys, (n,) int64."""
    if partitions == 1:
        return np.zeros(len(keys), dtype=np.int64)
    if len(keys) < _VECTOR_FROM:
        return np.array([partition_of(key, partitions) for key in keys], dtype=np.int64)
    present: list[bytes] = [key for key in keys if key is not None]
    found = (murmur2_many(present) & np.uint32(0x7FFFFFFF)).astype(np.int64) % partitions
    if len(present) == len(keys):
        return found
    result = np.zeros(len(keys), dtype=np.int64)
    result[[i for i, key in enumerate(keys) if key is not None]] = found
    return result


def rows_by_partition(
    spec: TopicSpec, keys: Sequence[bytes | None], partitions: Sequence[int | None] | None
) -> list[tuple[int, list[int] | None]]:
    """Each partition that gets messages, with the rows of its messages in order; None: all rows.

    Parameters
    ----------
    partitions
        Partition that a message names, None where its key decides; None: every key decides.

    Raises
    ------
    LogError
        A message names a partition that the topic does not have.
    """
    if spec.partitions == 1 and (partitions is None or not any(partitions)):
        return [(0, None)] if len(keys) else []
    found = partitions_of(keys, spec.partitions)  # (n,)
    if partitions is not None:
        for i, given in enumerate(partitions):
            if given is not None:
                if not 0 <= given < spec.partitions:
                    raise LogError(f"message for {spec.name}[{given}]: the topic has {spec.partitions} partitions")
                found[i] = given
    order = np.argsort(found, kind="stable")
    edges = np.searchsorted(found[order], np.arange(spec.partitions + 1))
    return [(p, order[edges[p] : edges[p + 1]].tolist()) for p in range(spec.partitions) if edges[p] < edges[p + 1]]
