"""Dead letters: read them, and send them again once each.

A replay appends the bytes of dead letters to the event topic and, in the same commit, a mark to the dead-letter topic
that names them. So after a kill at any moment a dead letter was sent and is marked, or neither; the next replay reads
the marks first. Dead letters and marks share one partition and retention takes the oldest first: a mark, which always
comes after its dead letters, never goes before them. One that is refused again is a new dead letter.
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
PARTITION: Final = 0  # the topic has one, so that dead letters and marks have one order
_PAGE: Final = 200  # records read at a time; one may have 128 KiB
_CHUNK: Final = 500  # dead letters in one commit
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


def read_dead_letters(log: EventLog, reason: str | None = None, *, waiting: bool = False) -> Iterator[DeadLetter]:
    """Yield the dead letters that are there now, oldest first.

    Parameters
    ----------
    reason
        Only those refused for this reason.
    waiting
        Only those that were not sent again.
    """
    end = _end(log)
    yield from _dead_letters(log, end, replayed_offsets(log, end), reason, waiting=waiting)


def newest_dead_letters(
    log: EventLog, limit: int, reason: str | None = None, *, waiting: bool = False
) -> list[DeadLetter]:
    """At most `limit` of `read_dead_letters`, the newest, oldest of them first."""
    return list(deque(read_dead_letters(log, reason, waiting=waiting), maxlen=limit))


def find_dead_letter(log: EventLog, offset: int) -> DeadLetter:
    """Return the dead letter at this offset of the dead-letter topic; `DeadLetterError` when there is none."""
    begin, end = log.begin_offsets(topics.DEAD_LETTERS)[PARTITION], _end(log)
    if begin <= offset < end:
        for record in _records(log, offset, offset + 1):
            if not is_mark(record.headers):
                return _dead_letter(record, replayed_offsets(log, end))
    raise DeadLetterError(
        f"no letter at {PARTITION}:{offset}: {topics.DEAD_LETTERS} holds offsets {begin} to {end}, "
        "see `intentstream dead-letters list`"
    )


def replayed_offsets(log: EventLog, end: int | None = None) -> set[int]:
    """Offsets of the dead letters that were sent again, as the marks say."""
    done: set[int] = set()
    begin = log.begin_offsets(topics.DEAD_LETTERS)[PARTITION]
    for record in _records(log, begin, _end(log) if end is None else end):
        if is_mark(record.headers):
            try:
                ranges = _decode_mark(record.value or b"").ranges
            except msgspec.MsgspecError as exc:
                raise DeadLetterError(
                    f"{topics.DEAD_LETTERS}[{PARTITION}] offset {record.offset}: not a mark of this version ({exc}): "
                    "go on with the version that wrote it"
                ) from exc
            for start, stop in ranges:
                done.update(range(max(start, begin), min(stop, record.offset)))  # a mark comes after what it names
    return done


def replay_dead_letters(
    log: EventLog,
    *,
    now_ms: int,
    reason: str | None = None,
    limit: int | None = None,
    on_sent: Callable[[int], None] = lambda _: None,
    topic: str = topics.EVENTS,
) -> Replayed:
    """Append dead letters to the event topic again, byte for byte and once each.

    1. claim: a replay that was cut off is decided, one that runs is fenced;
    2. read the marks;
    3. per chunk one commit of the dead letters and their mark.

    A kill between any two leaves what is committed marked, and the rest to the next call. When the answer to a commit
    is lost, begin again at 1: the marks tell.

    Parameters
    ----------
    log
        Opened as owner.
    now_ms
        Wall clock, the time of the marks; epoch milliseconds.
    reason, limit
        Only those refused for this reason, and at most so many, oldest first.
    on_sent
        Called after each commit with the number sent so far.
    topic
        The topic of the events.
    """
    before: int | None = None
    log.check_topics(topics.topic_specs(log.partition_count(topic), topic))
    while True:
        log.claim(WORKER)
        end = _end(log)  # what is refused from now on waits for the next replay
        done = replayed_offsets(log, end)
        before = len(done) if before is None else before
        sent, left = len(done) - before, 0
        try:
            chunk: list[DeadLetter] = []
            for letter in _dead_letters(log, end, done, reason, waiting=True):
                if limit is not None and sent + len(chunk) >= limit:
                    break
                if letter.truncated or letter.size + _FRAME_BYTES > _LARGEST:
                    left += 1
                    continue
                if len(chunk) == _CHUNK or (chunk and sum(x.size for x in chunk) + letter.size > _CHUNK_BYTES):
                    _send(log, chunk, now_ms, topic)
                    sent += len(chunk)
                    on_sent(sent)
                    chunk = []
                chunk.append(letter)
            if chunk:
                _send(log, chunk, now_ms, topic)
                on_sent(sent + len(chunk))
            return Replayed(sent + len(chunk), left)
        except CommitOutcomeUnknown as exc:
            logger.warning("%s; reading the marks", exc)


def _send(log: EventLog, chunk: Sequence[DeadLetter], now_ms: int, topic: str) -> None:
    """Append the dead letters to the event topic and their mark, in one commit."""
    mark = Mark(_as_ranges([letter.offset for letter in chunk]))
    messages = [Message(topic, letter.key, letter.value, letter.timestamp_ms) for letter in chunk]
    headers = DeadLetterHeaders(
        reason=REPLAYED.decode(),
        value=f"{len(chunk)} letters",
        rule="a mark: these letters were sent again",
        topic=topics.DEAD_LETTERS,
        partition=PARTITION,
        offset=chunk[0].offset,
    )
    messages.append(
        Message(topics.DEAD_LETTERS, None, msgspec.json.encode(mark), now_ms, encode_headers(headers), PARTITION)
    )
    log.commit(messages, {})


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


def _dead_letters(
    log: EventLog, end: int, done: set[int], reason: str | None, *, waiting: bool
) -> Iterator[DeadLetter]:
    for record in _records(log, log.begin_offsets(topics.DEAD_LETTERS)[PARTITION], end):
        if not is_mark(record.headers):
            letter = _dead_letter(record, done)
            if reason in (None, letter.reason) and not (waiting and letter.replayed):
                yield letter


def _dead_letter(record: _Record, done: set[int]) -> DeadLetter:
    said = decode_headers(record.headers)
    return DeadLetter(
        offset=record.offset,
        key=record.key,
        value=record.value,
        timestamp_ms=record.timestamp_ms,
        reason=said.reason,
        field=said.field,
        found=said.value,
        rule=said.rule,
        origin=said.origin,
        truncated=said.size is not None,
        replayed=record.offset in done,
    )


def _records(log: EventLog, start: int, end: int) -> Iterator[_Record]:
    while start < end:
        batch = log.read(OffsetRange(topics.DEAD_LETTERS, PARTITION, start, min(start + _PAGE, end)))
        rows = zip(batch.offsets, batch.keys, batch.values, batch.timestamps_ms, batch.headers, strict=True)
        yield from (_Record(*row) for row in rows)
        start = batch.next_offset


def _end(log: EventLog) -> int:
    return log.end_offsets(topics.DEAD_LETTERS)[PARTITION]
