"""The events of one step as they arrived: decoded, as parallel columns, before anything is known of their users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from stream.engine import message_builders
from stream.log.base import Message, RecordBatch
from stream.schema.decoder import Decoder
from stream.schema.events import Rejection


@dataclass(frozen=True, slots=True)
class FileBatch(RecordBatch):
    """Records of a file: `values` is what they say in our form, `found` their own bytes, which a dead letter holds.

    rule: what a line of the file must be, to be said of one that is nothing; empty where that is JSON.
    """

    found: list[bytes | None]
    rule: str


@dataclass(slots=True)
class Arrivals:
    """The good events of a step as parallel columns, in arrival order: partition by partition, by offset within one."""

    users: list[bytes] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    ts: list[NDArray[np.int64]] = field(default_factory=list)
    actions: list[NDArray[np.uint8]] = field(default_factory=list)
    partitions: list[NDArray[np.int64]] = field(default_factory=list)
    offsets: list[NDArray[np.int64]] = field(default_factory=list)
    erasures: list[tuple[int, bytes, int, int, int]] = field(
        default_factory=list
    )  # before event, user, partition, offset, ts
    letters: list[Message] = field(default_factory=list)  # dead letters of the records that are no events
    unknown_fields: int = 0


def gather(decoder: Decoder, batches: Sequence[RecordBatch]) -> Arrivals:
    """Decode and validate the records of batches that are sorted by partition."""
    arrivals = Arrivals()
    for batch in batches:
        decoded = decoder.decode(batch.values, batch.keys)
        arrivals.unknown_fields += decoded.unknown_fields
        if decoded.bad:
            arrivals.letters += _letters(batch, decoded.bad)
        offsets = np.asarray(batch.offsets, dtype=np.int64)
        first = len(arrivals.users)
        for erasure in decoded.erasures:
            before = first + int(np.searchsorted(decoded.index, erasure.index))
            offset = batch.offsets[erasure.index]
            arrivals.erasures.append((before, erasure.user, batch.partition, offset, erasure.ts))
        arrivals.users += decoded.users
        arrivals.items += decoded.items
        arrivals.ts.append(decoded.ts)
        arrivals.actions.append(decoded.actions)
        arrivals.partitions.append(np.full(len(decoded.users), batch.partition, dtype=np.int64))
        arrivals.offsets.append(offsets[decoded.index])
    return arrivals


def _letters(batch: RecordBatch, refused: Sequence[Rejection]) -> list[Message]:
    if not isinstance(batch, FileBatch):
        return [message_builders.dead_letter(batch, bad) for bad in refused]
    own = replace(batch, values=batch.found)
    no_rows = ("not_json", "not_an_object") if batch.rule else ()
    said = [replace(bad, rule=batch.rule) if bad.reason in no_rows else bad for bad in refused]
    return [message_builders.dead_letter(own, bad) for bad in said]


def unique_users(
    arrivals: Arrivals, partitions: NDArray[np.int64]
) -> tuple[list[bytes], NDArray[np.int64], NDArray[np.int64]]:
    """Distinct (partition, user) pairs in order of partition and first arrival, the pair of each event, and the
    pairs' partitions.

    Arrivals come partition by partition, so the pairs of one partition are neighbours.
    """
    pairs = list(zip(arrivals.users, partitions.tolist(), strict=True))
    pairs += [(user, partition) for _, user, partition, _, _ in arrivals.erasures]
    distinct = sorted(dict.fromkeys(pairs), key=lambda pair: pair[1])
    index = {pair: row for row, pair in enumerate(distinct)}
    user_index = np.array([index[pair] for pair in pairs[: len(arrivals.users)]], dtype=np.int64)
    users = [user for user, _ in distinct]
    return users, user_index, np.array([partition for _, partition in distinct], dtype=np.int64)
