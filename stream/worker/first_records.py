"""The first records of a topic, to check a mapping or to guess one."""

from __future__ import annotations

from stream.log.base import EventLog, OffsetRange, RecordBatch


def first_records(log: EventLog, topic: str, most: int) -> list[RecordBatch]:
    """Read the oldest records of every partition, at most `most` of all together.

    Raises
    ------
    LogError
        There is no such topic, or the log does not answer.
    """
    begins, ends = log.begin_offsets(topic), log.stable_offsets(topic)
    each = max(1, most // max(1, len(begins)))
    return [
        log.read(OffsetRange(topic, partition, begin, min(end, begin + each)))
        for partition, (begin, end) in enumerate(zip(begins, ends, strict=True))
        if begin < end
    ]


__all__ = ["first_records"]
