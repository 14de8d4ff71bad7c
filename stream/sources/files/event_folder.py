"""Events from a folder: its files in the order of their names, each in its own format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from stream.errors import SourceError
from stream.sources.files.containers import stem
from stream.sources.files.event_chunk import EventChunk
from stream.sources.files.event_file import EventFile
from stream.sources.files.options import DEFAULT_OPTIONS, ReadOptions
from stream.sources.files.parser import FileFormat

_SUFFIXES: Final = (
    *(".csv", ".tsv", ".txt", ".dat", ".data", ".inter", ".json", ".jsonl", ".ndjson", ".log", ".parquet", ".pq"),
    "",  # part-00000
)
_SHOWN: Final = 5


class EventFolder:
    """The event files of a folder and of those below it; each iteration reads them from the start.

    Files and folders whose names begin with a dot or an underscore, and empty files, are left out; so are files with
    the suffix of something else, which the notes of `format` name. A file with the suffix of an event file must be one.

    Parameters
    ----------
    path
        The folder.
    limit, options
        As of `EventFile`; the limit counts the records of all files.

    Raises
    ------
    SourceError
        There is no event file, or one cannot be read.
    """

    def __init__(self, path: Path, limit: int | None = None, options: ReadOptions = DEFAULT_OPTIONS) -> None:
        self.path, self.limit, self._options = path, limit, options
        found = [
            file
            for file in sorted(path.rglob("*"))
            if file.is_file() and not any(part[0] in "._" for part in file.relative_to(path).parts)
        ]
        filled = [file for file in found if file.stat().st_size]
        self._files = [file for file in filled if Path(stem(file)).suffix in _SUFFIXES]
        if not self._files:
            raise SourceError(f"{path}: no event file in this folder: expected .csv, .jsonl, .parquet, …")
        formats = [EventFile(file, limit, options=options).format for file in self._files]
        rule = formats[0].rule if len({one.rule for one in formats}) == 1 else ""
        notes = [*formats[0].notes, *self._notes([file for file in filled if file not in self._files], formats)]
        self.format = replace(formats[0], notes=notes, rule=rule)
        self.skipped = 0
        self._done, self._file = 0, EventFile(self._files[0], limit, options=options)

    def _notes(self, others: list[Path], formats: list[FileFormat]) -> list[str]:
        notes = [f"{len(self._files)} files in the order of their names"]
        for file, one in zip(self._files, formats, strict=True):
            if (one.columns, one.unit) != (formats[0].columns, formats[0].unit):
                notes.append(f"{file.name} is {one}")
        if others:
            named = ", ".join(file.name for file in others[:_SHOWN]) + (", …" if len(others) > _SHOWN else "")
            notes.append(f"left out: {named}")
        return notes

    @property
    def fraction(self) -> float:
        """Share of the files read so far, 0 to 1."""
        return min(1.0, (self._done + self._file.fraction) / len(self._files))

    def __iter__(self) -> Iterator[EventChunk]:
        self.skipped, left = 0, self.limit
        for done, path in enumerate(self._files):
            self._done = done
            self._file = EventFile(path, left, options=self._options)
            before = self.skipped
            for chunk in self._file:
                self.skipped = before + self._file.skipped
                left = None if left is None else left - len(chunk)
                yield chunk
            self.skipped = before + self._file.skipped
            if left is not None and left <= 0:
                return


def open_events(
    path: Path, limit: int | None = None, options: ReadOptions = DEFAULT_OPTIONS
) -> EventFile | EventFolder:
    """Open a file or a folder of events; see `EventFile` and `EventFolder`."""
    return EventFolder(path, limit, options) if path.is_dir() else EventFile(path, limit, options=options)


__all__ = ["EventFolder", "open_events"]
