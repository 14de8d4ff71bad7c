"""The interface of all parsers, and the description of a file's format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from stream.sources.files.columns import EventField
from stream.sources.files.event_chunk import EventChunk

FormatName = Literal["csv", "jsonl", "parquet", "movielens", "elcrec"]

SAMPLE_RECORDS: Final = 1000  # records from which the format of a file is found


@dataclass(frozen=True, slots=True)
class FileFormat:
    """What a file was found to be."""

    name: FormatName
    gzipped: bool
    columns: dict[EventField, str]  # field of an event -> column of the file
    unit: str  # of the times: seconds, milliseconds, …, or "none"
    notes: list[str] = field(default_factory=list)
    rule: str = ""  # what a line must be, for dead letters; empty for JSON, for which the decoder has a rule

    def __str__(self) -> str:
        columns = ", ".join(f"{field_name} = {name}" for field_name, name in self.columns.items())
        parts = [self.name + (", gzipped" if self.gzipped else ""), columns, f"times in {self.unit}", *self.notes]
        return "; ".join(part for part in parts if part)


class Parser:
    """Turns lines into chunks; one subclass per format."""

    format: FileFormat
    rows: int | None = None  # where known before reading

    def chunks(self, lines: Iterator[bytes], n: int) -> Iterator[EventChunk]:
        """Yield chunks of `n` records, the last one smaller; `lines` begins at the start of the file."""
        raise NotImplementedError


__all__ = ["FileFormat", "FormatName", "Parser", "SAMPLE_RECORDS"]
