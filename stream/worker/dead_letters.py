"""Dead letters: read them, and send them again once each.

A replay appends the letters' own bytes to the event topic and, in the same commit, a mark to the dead-letter topic
that names them. So after a kill at any moment a letter was sent and is marked, or neither; the next replay reads the
marks first. Letters and marks share one partition and retention takes the oldest first: a mark, which always
comes after its letters, never goes before them. A letter that is refused again is a new letter.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from stream.errors import DeadLetterError
from stream.log.base import CommitOutcomeUnknown, EventLog, Headers, Message, OffsetRange
from stream.schema import topics
from stream.schema.dead_letters import REPLAYED, DeadLetterHeaders, decode_headers, encode_headers, is_mark

logger = logging.getLogger(__name__)

WORKER: Final = "dead-letters"  # the writer's name: a second replay fences the first
PARTITION: Final = 0  # the topic has one, so that letters and marks have one order
_PAGE: Final = 200  # records read at a time; one may have 128 KiB
_CHUNK: Final = 500  # letters in one commit
_CHUNK_BYTES: Final = 4 * 1024 * 1024
_FRAME_BYTES: Final = 256  # what a record takes beside key and value, generously
_LARGEST: Final = next(spec for spec in topics.topic_specs(1) if spec.name == topics.EVENTS).max_message_bytes


class DeadLetter(msgspec.Struct, frozen=True):
    """A refused record: its own key and bytes, why, and where it came from."""

    offset: int  # in the dead-letter topic
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    reason: str
    field: str
    found: str
    rule: str
    origin: str  # topic[partition] offset
    truncated: bool = False  # the record was too large for the dead-letter topic: these are its first bytes
    replayed: bool = False

    @property
    def size(self) -> int:
        """Bytes of key and value."""
        return len(self.key or b"") + len(self.value or b"")


class Mark(msgspec.Struct, frozen=True):
    """What a mark says: these offsets of the dead-letter topic, as half-open ranges, were sent again."""

    ranges: list[tuple[int, int]]


class Replayed(msgspec.Struct, frozen=True):
    """The outcome of a replay."""

    sent: int
    left: int  # larger than the event topic takes, or cut down: not the record's own bytes


class _Record(msgspec.Struct, frozen=True):
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: Headers


_decode_mark = msgspec.json.Decoder(Mark).decode


def read_letters(log: EventLog, reason: str | None = None, *, waiting: bool = False) -> Iterator[DeadLetter]:
    """Yield the letters that are there now, oldest first.

    Parameters
    ----------
    reason
        Only those refused for this reason.
    waiting
        Only those that were not sent again.
    """
    end = _end(log)
    yield from _letters(log, end, marked(log, end), reason, waiting=waiting)


def newest_dead_letters(
    log: EventLog, limit: int, reason: str | None = None, *, waiting: bool = False
) -> list[DeadLetter]:
    """At most `limit` of `read_letters`, the newest, oldest of them first."""
    return list(deque(read_letters(log, reason, waiting=waiting), maxlen=limit))


def find_dead_letter(log: EventLog, offset: int) -> DeadLetter:
    """Return the letter at this offset of the dead-letter topic; `DeadLetterError` when there is none."""
    begin, end = log.begin_offsets(topics.DEAD_LETTERS)[PARTITION], _end(log)
    if begin <= offset < end:
        for record in _records(log, offset, offset + 1):
            if not is_mark(record.headers):
                return _letter(record, marked(log, end))
    raise DeadLetterError(
        f"no letter at {PARTITION}:{offset}: {topics.DEAD_LETTERS} holds offsets {begin} to {end}, "
        "see `intentstream dead-letters list`"
    )


def marked(log: EventLog, end: int | None = None) -> set[int]:
    """Offsets of the letters that were sent again, as the marks say."""
    done: set[int] = set()
    begin = log.begin_offsets(topics.DEAD_LETTERS)[PARTITION]
    for record in _records(log, begin, _end(log) if end is None else end):
        if is_mark(record.headers):
            for start, stop in _decode_mark(record.value or b"").ranges:
                done.update(range(max(start, begin), stop))
    return done


def replay_dead_letters(
    log: EventLog,
    *,
    now_ms: int,
    reason: str | None = None,
    limit: int | None = None,
    on_sent: Callable[[int], None] = lambda _: None,
) -> Replayed:
    """Append to the event topic again, byte for byte and once each, the letters that were not yet.

    1. claim: a replay that was cut off is decided, one that runs is fenced;
    2. read the marks;
    3. per chunk one commit of the letters and their mark.

    A kill between any two leaves what is committed marked, and the rest to the next call. When the answer to a commit
    is lost, begin again at 1: the marks tell.

    Parameters
    ----------
    log
        Opened as owner.
    reason
        Only those refused for this reason.
    limit
        At most so many, oldest first.
    on_sent
        Called after each commit with the number sent so far.
    """
    before: set[int] | None = None
    log.check_topics(topics.topic_specs(log.partition_count(topics.EVENTS)))
    while True:
        log.claim(WORKER)
        end = _end(log)  # what is refused from now on waits for the next replay
        done = marked(log, end)
        before = done.copy() if before is None else before
        left = 0
        chunk: list[DeadLetter] = []
        try:
            for letter in _letters(log, end, done.copy(), reason, waiting=True):
                if limit is not None and len(done) - len(before) + len(chunk) >= limit:
                    break
                if letter.truncated or letter.size + _FRAME_BYTES > _LARGEST:
                    left += 1
                    continue
                if len(chunk) == _CHUNK or (chunk and sum(x.size for x in chunk) + letter.size > _CHUNK_BYTES):
                    _send(log, chunk, now_ms, done)
                    on_sent(len(done) - len(before))
                    chunk = []
                chunk.append(letter)
            if chunk:
                _send(log, chunk, now_ms, done)
                on_sent(len(done) - len(before))
            return Replayed(len(done) - len(before), left)
        except CommitOutcomeUnknown as exc:
            logger.warning("%s; reading the marks", exc)


def _send(log: EventLog, chunk: Sequence[DeadLetter], now_ms: int, done: set[int]) -> None:
    mark = Mark(_as_ranges([letter.offset for letter in chunk]))
    messages = [Message(topics.EVENTS, letter.key, letter.value, letter.timestamp_ms) for letter in chunk]
    headers = DeadLetterHeaders(
        reason=REPLAYED.decode(),
        value=f"{len(chunk)} letters",
        rule="a mark: these letters were sent again",
        topic=topics.DEAD_LETTERS,
        partition=PARTITION,
        offset=chunk[0].offset,
    )
    mark_message = Message(
        topics.DEAD_LETTERS, None, msgspec.json.encode(mark), now_ms, encode_headers(headers), PARTITION
    )
    messages.append(mark_message)
    log.commit(messages, {})
    done.update(letter.offset for letter in chunk)


def _as_ranges(offsets: Sequence[int]) -> list[tuple[int, int]]:
    """Sorted offsets as half-open ranges.

    >>> _as_ranges([3, 4, 5, 9])
    [(3, 6), (9, 10)]
    """
    ranges: list[tuple[int, int]] = []
    for offset in offsets:
        if ranges and ranges[-1][1] == offset:
            ranges[-1] = (ranges[-1][0], offset + 1)
        else:
            ranges.append((offset, offset + 1))
    return ranges


def _letters(log: EventLog, end: int, done: set[int], reason: str | None, *, waiting: bool) -> Iterator[DeadLetter]:
    for record in _records(log, log.begin_offsets(topics.DEAD_LETTERS)[PARTITION], end):
        if not is_mark(record.headers):
            letter = _letter(record, done)
            if reason in (None, letter.reason) and not (waiting and letter.replayed):
                yield letter


def _letter(record: _Record, done: set[int]) -> DeadLetter:
    headers = decode_headers(record.headers)
    return DeadLetter(
        record.offset,
        record.key,
        record.value,
        record.timestamp_ms,
        headers.reason,
        headers.field,
        headers.value,
        headers.rule,
        headers.origin,
        headers.size is not None,
        record.offset in done,
    )


def _records(log: EventLog, start: int, end: int) -> Iterator[_Record]:
    while start < end:
        batch = log.read(OffsetRange(topics.DEAD_LETTERS, PARTITION, start, min(start + _PAGE, end)))
        rows = zip(batch.offsets, batch.keys, batch.values, batch.timestamps_ms, batch.headers, strict=True)
        yield from (_Record(*row) for row in rows)
        start = batch.next_offset


def _end(log: EventLog) -> int:
    return log.end_offsets(topics.DEAD_LETTERS)[PARTITION]
