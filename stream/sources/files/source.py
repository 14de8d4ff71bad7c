"""What a replay needs of a file of events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from stream.sources.files.parser import FileFormat


class RecordChunk(Protocol):
    """Some records, as parallel lists."""

    @property
    def keys(self) -> list[bytes | None]:
        """User of each; None for one that could not be parsed."""

    @property
    def values(self) -> list[bytes]:
        """Each in the form of the event topic."""

    @property
    def originals(self) -> list[bytes]:
        """Each as the file has it."""

    @property
    def dropped_values(self) -> list[int]:
        """One entry per optional number that was left out."""


class EventSource(Protocol):
    """The records of a file, in its order or sorted."""

    path: Path
    limit: int | None
    format: FileFormat

    @property
    def skipped(self) -> int:
        """Records that are no events, in the last iteration."""

    @property
    def fraction(self) -> float:
        """Share of the records read so far, 0 to 1."""

    def __iter__(self) -> Iterator[RecordChunk]:
        """Yield all records, from the start."""


__all__ = ["EventSource", "RecordChunk"]
