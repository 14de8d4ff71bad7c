"""MovieLens `u.data` and `ratings.dat`: user, item, rating and time, without a header."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from stream.sources.files.columns import EventField
from stream.sources.files.delimited import DelimitedParser, row_rule
from stream.sources.files.parser import FileFormat
from stream.sources.files.times import find_unit, in_time_order

_POSITIONS: Final[dict[EventField, int]] = {"user": 0, "item": 1, "value": 2, "ts": 3}
_LOOKED_AT: Final = 20  # lines


def is_movielens(lines: Sequence[bytes], separator: bytes) -> bool:
    """Return whether most of the first lines are four numbers."""
    rows = [line.split(separator) for line in lines[:_LOOKED_AT]]
    good = [len(row) == 4 and all(cell.replace(b".", b"", 1).isdigit() for cell in row) for row in rows]
    return sum(good) * 2 > len(good)


def movielens_parser(path: Path, gzipped: bool, lines: Sequence[bytes], separator: bytes) -> DelimitedParser:
    """Find the unit and the order of the times in the first lines, and return the parser for all lines."""
    times = [row[3] for line in lines if len(row := line.split(separator)) == 4]
    unit = find_unit(times, "the fourth column", path)
    notes = [] if in_time_order(times) else ["not in time order"]
    columns = {field: str(position) for field, position in _POSITIONS.items()}
    file_format = FileFormat("movielens", gzipped, columns, unit, notes, row_rule(4, separator))
    return DelimitedParser(file_format, separator, _POSITIONS, 4, header=False)


__all__ = ["is_movielens", "movielens_parser"]
