"""The records of a file as steps of the engine."""

from __future__ import annotations

from collections.abc import Iterator

from stream.engine.decoding import FileBatch
from stream.errors import SourceError
from stream.schema import topics
from stream.sources.files.source import EventSource


class FileSteps:
    """The records of a file as batches of exactly `step_records`; the last one may be shorter.

    A file that breaks off gives the readable part; `error` then says why.
    """

    def __init__(self, file: EventSource, step_records: int, now_ms: int = 0) -> None:
        self.file = file
        self.step_records = step_records
        self._now_ms = now_ms  # the arrival of all records; 0: unknown
        self._rule = file.format.rule
        self.error: SourceError | None = None
        self.read = 0  # records so far
        self.values_dropped = 0  # optional numbers that were none

    def __iter__(self) -> Iterator[FileBatch]:
        keys: list[bytes | None] = []
        values: list[bytes | None] = []
        found: list[bytes | None] = []
        size = self.step_records
        try:
            for chunk in self.file:
                self.values_dropped += len(chunk.dropped_values)
                keys += chunk.keys
                values += chunk.values
                found += chunk.originals
                while len(values) >= size:
                    yield self._batch(keys[:size], values[:size], found[:size])
                    del keys[:size], values[:size], found[:size]
        except SourceError as exc:
            self.error = exc
        if values:
            yield self._batch(keys, values, found)

    def _batch(self, keys: list[bytes | None], values: list[bytes | None], found: list[bytes | None]) -> FileBatch:
        n, start = len(values), self.read
        self.read += n
        offsets = list(range(start, start + n))
        return FileBatch(
            topics.EVENTS, 0, offsets, keys, values, [self._now_ms] * n, [()] * n, start + n, found, self._rule
        )


__all__ = ["FileSteps"]
