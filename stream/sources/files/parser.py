"""The interface of all parsers, and the description of a file's format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from stream.mapping.columns import EventField
from stream.sources.files.containers import Container
from stream.sources.files.event_chunk import EventChunk

FormatName = Literal["csv", "jsonl", "parquet", "movielens", "elcrec"]

SAMPLE_RECORDS: Final = 1000  # records from which the format of a file is found
FIRST_TS: Final = 946_684_800_000  # 2000-01-01, of the first event of a file without times
_SHOWN: Final = 20
_NAME_SHOWN: Final = 60


@dataclass(frozen=True)
class FileFormat:
    """What a file was found to be."""

    name: FormatName
    container: Container
    columns: dict[EventField, str]  # field of an event -> column of the file
    unit: str = "none"  # of the times: seconds, milliseconds, ISO 8601, …
    actions: dict[str, str] = field(default_factory=dict)  # translations seen in the sample
    unused: list[str] = field(default_factory=list)  # columns
    notes: list[str] = field(default_factory=list)
    rule: str = ""  # what a line must be, for dead letters; empty for JSON, for which the decoder has a rule
    encoding: str = ""  # empty for UTF-8

    def __str__(self) -> str:
        columns = ", ".join(f"{field_name} = {_cut(column)}" for field_name, column in self.columns.items())
        if self.actions:
            columns += f" ({', '.join(f'{old} = {new}' for old, new in self.actions.items())})"
        shown = ", ".join(_cut(name) for name in self.unused[:_SHOWN]) + (", …" if len(self.unused) > _SHOWN else "")
        parts = [
            ", ".join(filter(None, [self.name, self._container(), self.encoding])),
            columns,
            f"times in {self.unit}" if self.unit != "none" else "",
            *self.notes,
            f"not used: {shown}" if self.unused else "",
        ]
        text = "; ".join(part for part in parts if part)
        return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)

    def _container(self) -> str:
        return "gzipped" if self.container == "gzip" else self.container


def _cut(name: str) -> str:
    return name if len(name) <= _NAME_SHOWN else name[: _NAME_SHOWN - 1] + "…"


class Parser:
    """Turns lines into chunks; one subclass per format."""

    format: FileFormat
    rows: int | None = None  # where known before reading
    skipped: int = 0  # records that are no events

    def chunks(self, lines: Iterator[bytes], n: int) -> Iterator[EventChunk]:
        """Yield chunks of `n` records, the last one smaller; `lines` begins at the start of the file."""
        raise NotImplementedError


__all__ = ["FIRST_TS", "FileFormat", "FormatName", "Parser", "SAMPLE_RECORDS"]
