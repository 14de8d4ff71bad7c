"""The first part of a step: records become events, requests to erase and dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stream.engine.message_builders import dead_letter
from stream.log.base import Message, RecordBatch
from stream.mapping.decoder import EventDecoder
from stream.schema.event_batch import EventBatch
from stream.schema.events import Erasure, Rejection


@dataclass(frozen=True, slots=True)
class FileBatch(RecordBatch):
    """Records of a file: `values` is what they say in our form, `found` their own bytes, which a dead letter holds.

    rule: what a line of the file must be; a dead letter of a line that cannot be parsed says so. Empty where the file
    holds JSON.
    """

    found: list[bytes | None]
    rule: str


@dataclass(frozen=True, slots=True)
class DecodedStep:
    """What the records of a step are."""

    events: EventBatch
    erasures: list[Erasure]
    dead_letters: list[Message]
    unknown_fields: int
    """fields that no version knows, over all good records"""
    values_dropped: int
    """events whose `value` is no finite number"""
    arrived_ms: NDArray[np.int64]
    """(n,) when the record of each event arrived, epoch milliseconds; empty when there are no erasures"""
    skipped: int = 0
    """records that the section `[events]` says are no events"""

    def kept(self) -> NDArray[np.bool_]:
        """Which events (n,) stay: those of a user before the request to erase that user go.

        Before is, in the request's partition, at a lower offset; in another one, arrived no later.
        """
        events, keep = self.events, np.ones(len(self.events), dtype=bool)
        rows: dict[bytes, list[int]] = {erasure.user: [] for erasure in self.erasures}
        if rows:
            for row, user in enumerate(events.users):
                if user in rows:
                    rows[user].append(row)
        for erasure in self.erasures:
            own = np.array(rows[erasure.user], dtype=np.int64)
            here = events.partitions[own] == erasure.partition
            before = np.where(here, own < erasure.events_before, self.arrived_ms[own] <= erasure.arrived_ms)
            keep[own[before]] = False
        return keep


def fetch_schemas(decoder: EventDecoder, batches: Sequence[RecordBatch]) -> None:
    """Fetch the schemas that decoding these records needs.

    Raises
    ------
    SchemasUnavailable
        The schema registry does not answer.
    """
    for batch in batches:
        decoder.prepare(batch.values)


def decode_batches(decoder: EventDecoder, batches: Sequence[RecordBatch]) -> DecodedStep:
    """Decode and validate the records of batches that are sorted by partition."""
    events: list[EventBatch] = []
    erasures: list[Erasure] = []
    dead_letters: list[Message] = []
    arrived: list[NDArray[np.int64]] = []
    unknown_fields = values_dropped = skipped = count = 0
    for batch in batches:
        decoded = decoder.decode(batch.values, batch.keys, batch.timestamps_ms)
        offsets = np.asarray(batch.offsets, dtype=np.int64)[decoded.index]
        partitions = np.full(len(offsets), batch.partition, dtype=np.int64)
        events.append(replace(decoded.events, partitions=partitions, offsets=offsets))
        erasures += [
            replace(
                erasure,
                events_before=count + erasure.events_before,
                partition=batch.partition,
                offset=batch.offsets[erasure.index],
                arrived_ms=batch.timestamps_ms[erasure.index],
            )
            for erasure in decoded.erasures
        ]
        dead_letters += _dead_letters(batch, decoded.rejections)
        unknown_fields += decoded.unknown_fields
        values_dropped += decoded.values_dropped
        skipped += decoded.skipped
        count += len(decoded.events)
        arrived.append(np.asarray(batch.timestamps_ms, dtype=np.int64)[decoded.index])
    return DecodedStep(
        EventBatch.concatenate(events),
        erasures,
        dead_letters,
        unknown_fields,
        values_dropped,
        np.concatenate(arrived) if erasures else np.zeros(0, dtype=np.int64),
        skipped,
    )


def _dead_letters(batch: RecordBatch, rejections: Sequence[Rejection]) -> list[Message]:
    if isinstance(batch, FileBatch):
        unparsable = ("not_json", "not_an_object") if batch.rule else ()
        rejections = [replace(one, rule=batch.rule) if one.reason in unparsable else one for one in rejections]
        batch = replace(batch, values=batch.found)
    return [dead_letter(batch, one) for one in rejections]


__all__ = ["DecodedStep", "FileBatch", "decode_batches", "fetch_schemas"]
