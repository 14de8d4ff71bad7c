"""Rows of separated cells: CSV in its variants, with or without a header."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.mapping.actions import ActionNames
from stream.mapping.columns import OPTIONAL_FIELDS, EventField
from stream.mapping.ids import MISSING, normalize_id, normalize_ids
from stream.mapping.times import TimeReader
from stream.sources.files.event_chunk import EventChunk
from stream.sources.files.parser import FIRST_TS, FileFormat, Parser
from stream.sources.files.quotes import join_quoted, split_quoted

SEPARATOR_NAMES: Final[dict[bytes | None, str]] = {
    b",": "commas",
    b"\t": "tabs",
    b";": "semicolons",
    b"|": "bars",
    b"::": "double colons",
    None: "blanks",
}
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class RowLayout:
    """How a line becomes cells, and which cell is what."""

    separator: bytes | None  # one byte, `::` which knows no quotes, or None for blanks
    positions: dict[EventField, int]  # of each field's cell in a row, from 0
    width: int  # cells of a row
    header: bool  # whether the first line is one

    @property
    def rule(self) -> str:
        """What a line must be."""
        return f"{self.width} cells separated by {SEPARATOR_NAMES[self.separator]}"

    @property
    def quotes(self) -> bool:
        """Whether cells may be in quotes."""
        return self.separator is not None and len(self.separator) == 1

    def records(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        """Join lines inside quotes."""
        return join_quoted(lines, self.separator) if self.quotes and self.separator else lines


class DelimitedParser(Parser):
    """Rows of separated cells.

    Parameters
    ----------
    file_format
        What the file was found to be.
    layout
        Cells of a line.
    times
        Reads the cells of the times; None gives each line a second of its own.
    actions
        Translates the cells of the actions.
    """

    def __init__(
        self, file_format: FileFormat, layout: RowLayout, times: TimeReader | None, actions: ActionNames
    ) -> None:
        self.format = file_format
        self._layout, self._times, self._actions = layout, times, actions

    def chunks(self, lines: Iterator[bytes], n: int) -> Iterator[EventChunk]:
        """Yield chunks of `n` records, the last one smaller."""
        records = self._layout.records(lines)
        if self._layout.header:
            next(records, None)
        start = 0
        while part := list(islice(records, n)):
            yield self._parse_together(start, part) or self._parse_one_by_one(start, part)
            start += len(part)

    def _parse_together(self, start: int, lines: list[bytes]) -> EventChunk | None:
        """Parse all lines at once; None unless all are good rows."""
        separator = self._layout.separator
        if self._layout.quotes and any([b'"' in line for line in lines]):
            rows = [split_quoted(line, separator) for line in lines]
        else:
            rows = [line.split(separator) for line in lines]
        if set(map(len, rows)) != {self._layout.width}:
            return None
        return self._chunk(start, list(zip(*rows, strict=True)), np.arange(len(lines)), [], lines)

    def _parse_one_by_one(self, start: int, lines: list[bytes]) -> EventChunk:
        rows: list[list[bytes]] = []
        index: list[int] = []
        unparsed: list[tuple[int, bytes]] = []
        for place, line in enumerate(lines):
            row = split_quoted(line, self._layout.separator)
            if (
                len(row) == self._layout.width
                and self._chunk(start, [(cell,) for cell in row], np.arange(1), [], []) is not None
            ):
                rows.append(row)
                index.append(place)
            else:
                unparsed.append((place, self._with_our_names(row) or line))
        columns = list(zip(*rows, strict=True)) if rows else [()] * self._layout.width
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
        """Make a chunk of rows, given as columns; None when an id is missing or a cell has the wrong type."""
        positions = self._layout.positions
        try:
            users = normalize_ids([cell.decode() for cell in columns[positions["user"]]])
            items = normalize_ids([cell.decode() for cell in columns[positions["item"]]])
            actions = [c.decode() or None for c in columns[positions["action"]]] if "action" in positions else None
            if self._times is None:
                ts = FIRST_TS + 1000 * (start + index)
            else:
                ts = self._times.read_cells(columns[positions["ts"]])
        except (ValueError, OverflowError):
            return None
        if not all(users) or not all(items):
            return None
        event_values, dropped = read_values(columns[positions["value"]]) if "value" in positions else (None, [])
        return EventChunk(
            start,
            users,
            items,
            ts,
            index,
            self._actions.translate(actions) if actions is not None else None,
            event_values,
            unparsed,
            lines=lines,
            dropped_values=dropped,
        )

    def _with_our_names(self, row: list[bytes]) -> bytes | None:
        """The row as JSON with our names, cells of the wrong type as text; None for another width or no UTF-8."""
        positions = self._layout.positions
        if len(row) != self._layout.width:
            return None
        try:
            named: dict[str, Any] = {field: row[place].decode() for field, place in positions.items()}
        except UnicodeDecodeError:
            return None
        for field in ("user", "item"):
            if named[field].strip() in MISSING - {""}:
                del named[field]
            else:
                named[field] = normalize_id(named[field])
        if self._times is not None:
            with suppress(ValueError, OverflowError):
                named["ts"] = int(self._times.read_cells([row[positions["ts"]]])[0])
        if named.get("action"):
            named["action"] = self._actions.translate([named["action"]])[0]
        named.pop("value", None)  # never a reason to refuse a record
        return _encode({field: cell for field, cell in named.items() if cell != "" or field not in OPTIONAL_FIELDS})


def read_values(cells: Sequence[bytes]) -> tuple[list[float | None], list[int]]:
    """Read the cells of an optional number: None where empty or no finite number, and the rows of the latter.

    >>> read_values([b"4.5", b"", b"4,5", b"nan"])
    ([4.5, None, None, None], [2, 3])
    """
    with suppress(ValueError):
        values = [float(cell) if cell else None for cell in cells]
        if all([value is None or abs(value) < np.inf for value in values]):
            return values, []
    values, dropped = [], []
    for row, cell in enumerate(cells):
        value = None
        with suppress(ValueError):
            value = float(cell) if cell.strip() else None
        if value is not None and not abs(value) < np.inf:
            value = None
        if value is None and cell.strip():
            dropped.append(row)
        values.append(value)
    return values, dropped


__all__ = ["DelimitedParser", "RowLayout", "SEPARATOR_NAMES", "read_values"]
