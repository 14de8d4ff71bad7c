"""The journal: the decisions of each step. The state is a function of these entries and of the input they name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from stream.errors import JournalError
from stream.log.base import EventLog, Message, OffsetOutOfRange, OffsetRange, RecordBatch, TopicPartition
from stream.schema import topics
from stream.schema.messages import JournalEntry

_PAGE = 10_000  # journal offsets read at a time in recovery
_MAX_PARTITIONS: Final = 1 << 20  # far beyond Kafka's; a worker makes a folder for each
_decode = msgspec.json.Decoder(JournalEntry).decode


def entry_message(entry: JournalEntry, timestamp_ms: int) -> Message:
    """The entry as a record of the journal topic."""
    return Message(topics.JOURNAL, entry.worker.encode(), msgspec.json.encode(entry), timestamp_ms)


def journal_end(log: EventLog) -> int:
    """Position after the newest journal record."""
    return log.end_offsets(topics.JOURNAL)[0]


def read_entries(log: EventLog, worker: str, after_step: int, start: int = 0) -> Iterator[JournalEntry]:
    """Yield the worker's entries after `after_step`, without a gap, in order.

    Parameters
    ----------
    start
        A journal offset at or before the first entry; a checkpoint holds one, so that a restart does not read the whole
        journal.

    Raises
    ------
    JournalError
        An entry is missing (retention removed it, or the state folder belongs to another log) or of another version.
    """
    begin, end = log.begin_offsets(topics.JOURNAL)[0], journal_end(log)
    position, expected = max(start, begin), after_step + 1
    own = worker.encode()
    while position < end:
        batch = log.read(OffsetRange(topics.JOURNAL, 0, position, min(position + _PAGE, end)))
        for key, value, offset in zip(batch.keys, batch.values, batch.offsets, strict=True):
            if key != own or value is None:
                continue
            entry = _entry(value, offset)
            if entry.step < expected:
                continue
            if entry.step != expected:
                raise JournalError(
                    f"journal of worker {worker!r}: step {entry.step} at {topics.JOURNAL}[0] offset {offset}, expected "
                    f"step {expected}: the entries between were removed by retention; start from a newer "
                    "checkpoint, or "
                    "begin anew with an empty state folder and another `engine.worker`"
                )
            expected += 1
            yield entry
        position = max(batch.next_offset, position + 1)


def last_entry(log: EventLog, worker: str, start: int = 0, *, decided: bool = False) -> JournalEntry | None:
    """Return the newest entry of the worker at or after journal offset `start`; None when there is none.

    `decided`: look only before the first open transaction instead of waiting for it.
    """
    begin = log.begin_offsets(topics.JOURNAL)[0]
    end = log.stable_offsets(topics.JOURNAL)[0] if decided else journal_end(log)
    position, newest, own = max(start, begin), None, worker.encode()
    while position < end:
        batch = log.read(OffsetRange(topics.JOURNAL, 0, position, min(position + _PAGE, end)))
        for key, value, offset in zip(
            reversed(batch.keys), reversed(batch.values), reversed(batch.offsets), strict=True
        ):
            if key == own and value is not None:
                newest = _entry(value, offset)
                break
        position = max(batch.next_offset, position + 1)
    return newest


def _entry(value: bytes, offset: int) -> JournalEntry:
    try:
        entry = _decode(value)
    except msgspec.MsgspecError as exc:
        raise JournalError(
            f"{topics.JOURNAL}[0] offset {offset}: not a journal entry of this version ({exc}): go on with the version "
            "that wrote it"
        ) from exc
    if not _is_step(entry):
        raise JournalError(
            f"{topics.JOURNAL}[0] offset {offset}: step {entry.step}, {entry.learn_steps} learning steps, "
            f"{entry.records} records, {entry.messages} messages with checksum {entry.checksum} and ranges "
            f"{str(entry.ranges)[:200]} are of no step: no worker of ours wrote this entry"
        )
    return entry


def _is_step(entry: JournalEntry) -> bool:
    if entry.step < 1 or entry.learn_steps < 0 or entry.messages < 0 or not 0 <= entry.checksum < 1 << 32:
        return False
    offsets = sum(stop - start for _, start, stop in entry.ranges)
    return all(map(_is_range, entry.ranges)) and -1 <= entry.records <= offsets


def _is_range(span: tuple[int, int, int]) -> bool:
    partition, start, stop = span
    return 0 <= partition < _MAX_PARTITIONS and 0 <= start <= stop


def last_step(log: EventLog, worker: str, start: int = 0) -> int:
    """Return the newest journalled step of the worker at or after journal offset `start`; 0 when there is none."""
    entry = last_entry(log, worker, start)
    return 0 if entry is None else entry.step


def read_input(log: EventLog, entry: JournalEntry, topic: str = topics.EVENTS) -> tuple[list[RecordBatch], int]:
    """The input of the entry's step, from `topic`, and how many of its records are gone.

    Retention may remove the begin of a range without any record: offsets there can be marks of transactions.
    """
    spans = [OffsetRange(topic, partition, start, stop) for partition, start, stop in entry.ranges]
    try:
        return [log.read(span) for span in spans], 0
    except OffsetOutOfRange:
        begins = log.begin_offsets(topic)
        batches = [_remaining(log, span, begins[span.partition]) for span in spans]
    taken = entry.records if entry.records >= 0 else sum(span.stop - span.start for span in spans)
    return batches, taken - sum(map(len, batches))


def _remaining(log: EventLog, span: OffsetRange, begin: int) -> RecordBatch:
    if begin >= span.stop:
        return RecordBatch(span.topic, span.partition, [], [], [], [], [], span.stop)
    return log.read(OffsetRange(span.topic, span.partition, max(span.start, begin), span.stop))


def log_positions(positions: Mapping[int, int], topic: str = topics.EVENTS) -> dict[TopicPartition, int]:
    """Engine positions (next offset by partition) as log positions in the topic of the events."""
    return {TopicPartition(topic, partition): offset for partition, offset in positions.items()}
