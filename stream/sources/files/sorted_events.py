"""A file of events in order of time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.errors import SourceError
from stream.sources.files.event_file import CHUNK_RECORDS, EventChunk, EventFile
from stream.sources.files.event_folder import EventFolder

MAX_RECORDS: Final = 20_000_000  # kept in memory, some 400 bytes each


@dataclass(frozen=True, slots=True)
class _Sorted:
    keys: list[bytes | None]
    values: list[bytes]
    originals: list[bytes]
    dropped_values: list[int]


class SortedEvents:
    """The records of a file, sorted by time in memory; records of equal time, and those without, keep their place.

    Parameters
    ----------
    file
        Read as a whole at the first iteration; its `limit` counts before sorting.

    Raises
    ------
    SourceError
        The file holds more than `MAX_RECORDS` records.
    """

    def __init__(self, file: EventFile | EventFolder) -> None:
        self._file = file
        self.path, self.limit, self.format = file.path, file.limit, file.format
        self._done = self._total = 0

    @property
    def skipped(self) -> int:
        """Records that are no events."""
        return self._file.skipped

    @property
    def fraction(self) -> float:
        """Share of the records given so far, 0 to 1."""
        return self._done / self._total if self._total else 0.0

    def __iter__(self) -> Iterator[_Sorted]:
        keys: list[bytes | None] = []
        values: list[bytes] = []
        originals: list[bytes] = []
        dropped: list[int] = []
        times = [np.zeros(0, dtype=np.int64)]
        error: SourceError | None = None
        try:
            for chunk in self._file:
                if len(values) + len(chunk) > MAX_RECORDS:
                    too_many = f"{self.path}: more than {MAX_RECORDS:,} records to sort"
                    raise SourceError(f"{too_many}: sort the file by time, or give --limit")
                dropped += chunk.dropped_values
                keys += chunk.keys
                values += chunk.values
                originals += chunk.originals
                times.append(_times(chunk, int(times[-1][-1]) if len(times[-1]) else 0))
        except SourceError as exc:
            error = exc  # raised behind the readable part
        order = np.argsort(np.concatenate(times), kind="stable")
        self._done, self._total = 0, len(order)
        for start in range(0, len(order), CHUNK_RECORDS):
            part = order[start : start + CHUNK_RECORDS].tolist()
            self._done += len(part)
            yield _Sorted(
                [keys[place] for place in part],
                [values[place] for place in part],
                [originals[place] for place in part],
                dropped if start == 0 else [],
            )
        if error is not None:
            raise error


def _times(chunk: EventChunk, before: int) -> NDArray[np.int64]:
    """Return the time of each record, (n,); one that is no event has that of the record in front of it."""
    ts = np.full(len(chunk), -1, dtype=np.int64)
    ts[chunk.index] = chunk.ts
    place = np.maximum.accumulate(np.where(ts >= 0, np.arange(len(ts)), -1))
    return np.where(place >= 0, ts[place], before)


__all__ = ["MAX_RECORDS", "SortedEvents"]
