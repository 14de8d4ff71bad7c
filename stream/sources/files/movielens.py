"""MovieLens `u.data` and `ratings.dat`: user, item, rating and time, without a header."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from stream.mapping.columns import EventField
from stream.schema.events import MAX_TS, MIN_TS
from stream.sources.files.containers import Container
from stream.sources.files.delimited import DelimitedParser, RowLayout
from stream.sources.files.layouts import build_parser
from stream.sources.files.options import ReadOptions

_POSITIONS: Final[dict[EventField, int]] = {"user": 0, "item": 1, "value": 2, "ts": 3}
_LOOKED_AT: Final = 20  # lines
_MAX_RATING: Final = 10


def is_movielens(lines: Sequence[bytes], separator: bytes | None) -> bool:
    """Whether the first line and most of the next are two ids, a rating up to 10 and a time in seconds."""
    if separator not in (b"::", b"\t"):
        return False
    good = [_is_rating(line.split(separator)) for line in lines[:_LOOKED_AT]]
    return good[:1] == [True] and sum(good) * 2 > len(good)


def _is_rating(row: Sequence[bytes]) -> bool:
    if len(row) != 4 or not all(cell.replace(b".", b"", 1).isdigit() for cell in row):
        return False
    return float(row[2]) <= _MAX_RATING and MIN_TS <= float(row[3]) * 1000 < MAX_TS


def movielens_parser(
    path: Path, container: Container, lines: Sequence[bytes], separator: bytes | None, options: ReadOptions
) -> DelimitedParser:
    """Find the order of the times in the first lines, and return the parser for all lines."""
    layout = RowLayout(separator, dict(_POSITIONS), 4, header=False)
    return build_parser(path, container, lines, layout, ["1", "2", "3", "4"], options, "movielens")


__all__ = ["is_movielens", "movielens_parser"]
