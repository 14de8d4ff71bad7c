"""From arrays to messages: what the engine found, in the form in which it is published."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import crc32c
import msgspec
import numpy as np
from numpy.typing import NDArray

from learner import Ranking
from learner.drift.fallback import Serving
from stream.log.base import Message, RecordBatch
from stream.schema import topics
from stream.schema.dead_letters import DeadLetterHeaders, encode_headers
from stream.schema.events import Rejection
from stream.schema.messages import AsOf, ErasureReceipt, IntentShift, Recommendations, Recommended, Source

SOURCES: Final[tuple[Source, ...]] = ("model", "intent", "popular")
LETTER_BYTES: Final = 768 * 1024  # of key and value in a dead letter; its topic takes 1 MiB with the headers
LETTER_KEY_BYTES: Final = 64 * 1024  # what is left of the key of one that is cut down
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Where each touched user's newest event of the step came from: arrays of length U."""

    users: list[bytes]
    partitions: NDArray[np.int64]
    offsets: NDArray[np.int64]
    ts: NDArray[np.int64]  # epoch milliseconds

    def as_of(self, row: int) -> AsOf:
        """Return the coordinates of user `row` as they are published."""
        return AsOf(partition=int(self.partitions[row]), offset=int(self.offsets[row]), ts=int(self.ts[row]))


def latest_coordinates(
    users: list[bytes],
    user_index: NDArray[np.int64],
    partitions: NDArray[np.int64],
    offsets: NDArray[np.int64],
    ts: NDArray[np.int64],
    depth: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[Coordinates]]:
    """Where each user's newest event of a step came from, the one before that, and so on.

    Parameters
    ----------
    users
        All that `user_index` may point at.
    user_index, partitions, offsets, ts
        (n,) of the events in order of arrival.
    depth
        Most events to go back.

    Returns
    -------
    Indices (U,) of the users touched, rising; their numbers of events (U,); coordinates by events back, at least one
    entry. A user with fewer events has the first one again.
    """
    order = np.argsort(user_index, kind="stable")
    touched, start, events = np.unique(user_index[order], return_index=True, return_counts=True)
    named = [users[u] for u in touched.tolist()]
    back = []
    for later in range(max(1, min(depth, int(events.max(initial=0))))):
        place = order[start + np.maximum(events - 1 - later, 0)]
        back.append(Coordinates(named, partitions[place], offsets[place], ts[place]))
    return touched, events, back


def recommendation_messages(
    where: Coordinates,
    rows: NDArray[np.int64],
    ranking: Ranking,
    items: Sequence[Sequence[str]],
    because: Sequence[Sequence[str]],
    intents: NDArray[np.int64],
    step: int,
    model_step: int,
    serving: Serving,
) -> list[Message]:
    """Build one message per user in `rows` (indices into `where` and `ranking`).

    `items` and `because` hold the ids of those rows, in their order; `intents` (U,) is -1 for a cold user.
    """
    scores = np.round(ranking.scores[rows].astype(np.float64), 4).tolist()
    sources = ranking.source[rows].tolist()
    messages = []
    for row, ids, score, source, reasons in zip(rows.tolist(), items, scores, sources, because, strict=True):
        listed = [Recommended(item=item, score=value) for item, value in zip(ids, score, strict=False)]
        intent = int(intents[row])
        body = Recommendations(
            user=where.users[row].decode(),
            items=listed,
            intent=None if intent < 0 else intent,
            source=SOURCES[source],
            because=list(reasons),
            step=step,
            model_step=model_step,
            serving="snapshot" if serving == "snapshot" else None,
            as_of=where.as_of(row),
        )
        messages.append(Message(topics.RECOMMENDATIONS, where.users[row], _encode(body), int(where.ts[row])))
    return messages


def shift_message(where: Coordinates, row: int, shift: IntentShift) -> Message:
    """Wrap a shift of user `row`."""
    return Message(topics.INTENT_SHIFTS, where.users[row], _encode(shift), int(where.ts[row]))


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


def erasure_messages(user: bytes, step: int, as_of: AsOf) -> list[Message]:
    """Build the tombstone of the user's list and the receipt."""
    kept = {spec.name: spec.retention_ms or 0 for spec in topics.topic_specs(1)}

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
            topics.EVENTS: until("the user's events and the request", topics.EVENTS),
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
