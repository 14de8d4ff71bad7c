"""Rows of separated cells: CSV in its variants."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.errors import SourceError
from stream.sources.files.columns import OPTIONAL_FIELDS, EventField, find_columns
from stream.sources.files.event_chunk import EventChunk
from stream.sources.files.parser import FileFormat, Parser
from stream.sources.files.times import UNITS, find_unit, in_time_order, to_milliseconds

SEPARATOR_NAMES: Final = {b",": "commas", b"\t": "tabs", b";": "semicolons", b"|": "bars", b"::": "double colons"}
_encode = msgspec.json.Encoder().encode


class DelimitedParser(Parser):
    """Rows of separated cells: CSV in its variants, and MovieLens.

    Parameters
    ----------
    file_format
        What the file was found to be.
    separator
        Between cells; one byte, or `::`, which knows no quotes.
    positions
        Place of each field's cell in a row, from 0.
    width
        Cells of a row.
    header
        Whether the first line is one.
    """

    def __init__(
        self, file_format: FileFormat, separator: bytes, positions: dict[EventField, int], width: int, header: bool
    ) -> None:
        self.format = file_format
        self._separator, self._positions, self._width, self._header = separator, positions, width, header
        self._factor = UNITS[file_format.unit]

    def chunks(self, lines: Iterator[bytes], n: int) -> Iterator[EventChunk]:
        """Yield chunks of `n` lines, the last one smaller."""
        if self._header:
            next(lines, None)
        start = 0
        while part := list(islice(lines, n)):
            yield self._parse_together(start, part) or self._parse_one_by_one(start, part)
            start += len(part)

    def _parse_together(self, start: int, lines: list[bytes]) -> EventChunk | None:
        """Parse all lines at once; None unless all are rows without quotes."""
        separator, width = self._separator, self._width
        rows = [line.split(separator) for line in lines]
        if set(map(len, rows)) != {width} or (separator != b"::" and any([b'"' in line for line in lines])):
            return None
        return self._chunk(start, list(zip(*rows, strict=True)), np.arange(len(lines)), [], lines)

    def _parse_one_by_one(self, start: int, lines: list[bytes]) -> EventChunk:
        rows: list[list[bytes]] = []
        index: list[int] = []
        unparsed: list[tuple[int, bytes]] = []
        for place, line in enumerate(lines):
            row = split_quoted(line, self._separator)
            if (
                len(row) == self._width
                and self._chunk(start, [(cell,) for cell in row], np.arange(1), [], []) is not None
            ):
                rows.append(row)
                index.append(place)
            else:
                unparsed.append((place, self._with_our_names(row) or line))
        columns = list(zip(*rows, strict=True)) if rows else [()] * self._width
        chunk = self._chunk(start, columns, np.array(index, dtype=np.int64), unparsed, lines)
        assert chunk is not None
        return chunk

    def _chunk(
        self,
        start: int,
        columns: Sequence[tuple[bytes, ...]],
        index: NDArray[np.int64],
        unparsed: list[tuple[int, bytes]],
        lines: list[bytes],
    ) -> EventChunk | None:
        """Make a chunk of rows, given as columns; None when a cell has the wrong type."""
        positions = self._positions
        try:
            users = [cell.decode() for cell in columns[positions["user"]]]
            items = [cell.decode() for cell in columns[positions["item"]]]
            ts = to_milliseconds(columns[positions["ts"]], self._factor)
            actions = [c.decode() or None for c in columns[positions["action"]]] if "action" in positions else None
            event_values = (
                [float(c) if c else None for c in columns[positions["value"]]] if "value" in positions else None
            )
        except (ValueError, OverflowError):
            return None
        if event_values is not None and not all([one is None or abs(one) < np.inf for one in event_values]):
            return None
        return EventChunk(start, users, items, ts, index, actions, event_values, unparsed, lines=lines)

    def _with_our_names(self, row: list[bytes]) -> bytes | None:
        """The row as JSON with our names, cells of the wrong type as text; None for another width or no UTF-8."""
        if len(row) != self._width:
            return None
        try:
            named: dict[str, Any] = {field: row[place].decode() for field, place in self._positions.items()}
        except UnicodeDecodeError:
            return None
        with suppress(ValueError, OverflowError):
            named["ts"] = int(to_milliseconds([row[self._positions["ts"]]], self._factor)[0])
        if number := named.get("value"):
            with suppress(ValueError):
                named["value"] = float(number) if abs(float(number)) < np.inf else number
        return _encode({field: cell for field, cell in named.items() if cell != "" or field not in OPTIONAL_FIELDS})


def csv_parser(path: Path, gzipped: bool, header: bytes, lines: list[bytes], separator: bytes) -> Parser:
    """Find the columns in the header, and the unit and order of the times in the lines that follow it."""
    names = [cell.decode(errors="replace").strip() for cell in split_quoted(header, separator)]
    columns = find_columns(names, path)
    if not lines:
        raise SourceError(f"{path}: has a header but no rows: nothing to replay")
    positions: dict[EventField, int] = {field: names.index(name) for field, name in columns.items()}
    rows = [row for line in lines if len(row := split_quoted(line, separator)) == len(names)]
    sample = [row[positions["ts"]] for row in rows]
    unit = find_unit(sample, columns["ts"], path)
    notes = [] if in_time_order(sample) else ["not in time order"]
    file_format = FileFormat("csv", gzipped, columns, unit, notes, row_rule(len(names), separator))
    return DelimitedParser(file_format, separator, positions, len(names), header=True)


def row_rule(width: int, separator: bytes) -> str:
    """Say what a line must be."""
    return f"{width} cells separated by {SEPARATOR_NAMES[separator]}"


def split_quoted(line: bytes, separator: bytes) -> list[bytes]:
    """Split one line; quotes as in CSV. A line that cannot be split comes back whole.

    >>> split_quoted(b'a,"b, c",d', b",")
    [b'a', b'b, c', b'd']
    """
    if b'"' not in line or len(separator) > 1:
        return line.split(separator)
    try:
        text = line.decode(errors="surrogateescape")
        row = next(csv.reader([text], delimiter=separator.decode(), strict=True))
    except (csv.Error, StopIteration):
        return [line]
    return [cell.encode(errors="surrogateescape") for cell in row]


__all__ = ["DelimitedParser", "SEPARATOR_NAMES", "csv_parser", "row_rule", "split_quoted"]
