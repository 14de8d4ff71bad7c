"""Dead letters, receipts of erasures, and the checksum over all messages of a step."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import crc32c
import msgspec

from stream.log.base import Message, RecordBatch
from stream.schema import topics
from stream.schema.dead_letters import DeadLetterHeaders, encode_headers
from stream.schema.events import Erasure, Rejection
from stream.schema.messages import AsOf, ErasureReceipt

LETTER_BYTES: Final = 768 * 1024  # of key and value in a dead letter; its topic takes 1 MiB with the headers
LETTER_KEY_BYTES: Final = 64 * 1024  # what is left of the key of one that is cut down
_encode = msgspec.json.Encoder().encode


def dead_letter(batch: RecordBatch, bad: Rejection) -> Message:
    """Build the dead letter of one bad record: its own bytes, and in the headers why and where it came from.

    A record that the dead-letter topic would not take is cut down, with its size in a header: it must not hold the
    stream up for ever.
    """
    key, value = batch.keys[bad.index], batch.values[bad.index]
    size = len(key or b"") + len(value or b"")
    shortened = size > LETTER_BYTES
    headers = DeadLetterHeaders(
        reason=bad.reason,
        field=bad.field,
        value=bad.value,
        rule=bad.rule,
        topic=batch.topic,
        partition=batch.partition,
        offset=batch.offsets[bad.index],
        size=size if shortened else None,
    )
    if shortened:
        key = key[:LETTER_KEY_BYTES] if key is not None else None
        value = value[: LETTER_BYTES - LETTER_KEY_BYTES] if value is not None else None
    return Message(topics.DEAD_LETTERS, key, value, batch.timestamps_ms[bad.index], encode_headers(headers))


def erasure_messages(erasure: Erasure, step: int, events: str = topics.EVENTS) -> list[Message]:
    """Build the tombstone of the user's list and the receipt; `events` is the topic of the events."""
    user, as_of = erasure.user, AsOf(partition=erasure.partition, offset=erasure.offset, ts=erasure.ts)
    kept = {spec.name: spec.retention_ms or 0 for spec in topics.topic_specs(1, events)}

    def until(what: str, topic: str) -> str:
        return (
            f"{what}: {kept[topic] // topics.DAY_MS} days after they were written, or as the topic is set on the broker"
        )

    receipt = ErasureReceipt(
        user=user.decode(),
        erased=["history", "recommendations", "replay memory", "refused mini-batches", "pending evaluation", "intent"],
        remains={
            "weights and item counts": "not stored per user; they fade as the model goes on learning",
            "checkpoints made before": "each is removed, its copy too, when `engine.keep_checkpoints` newer "
            "ones are finished",
            "deleted rows in database files": "until RocksDB next merges those files",
            events: until("the user's events and the request", events),
            topics.RECOMMENDATIONS: "earlier lists, behind the tombstone: until the log next compacts the topic",
            topics.INTENT_SHIFTS: until("earlier shifts", topics.INTENT_SHIFTS),
            topics.DEAD_LETTERS: until("refused records, if there were any", topics.DEAD_LETTERS),
            topics.ERASURES: until("this receipt", topics.ERASURES).replace("they were", "it was"),
        },
        step=step,
        as_of=as_of,
    )
    return [
        Message(topics.RECOMMENDATIONS, user, None, as_of.ts),
        Message(topics.ERASURES, user, _encode(receipt), as_of.ts),
    ]


def checksum(messages: Sequence[Message]) -> int:
    """CRC-32C over topic, key and value of every message, in order; the lengths are part of it."""
    crc = 0
    for message in messages:
        key, value = message.key or b"", message.value or b""
        head = struct.pack("<iii", len(message.topic), len(key), len(value) if message.value is not None else -1)
        crc = crc32c.crc32c(head + message.topic.encode() + key + value, crc)
    return crc
