"""Events from Parquet files."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from stream.errors import SourceError
from stream.sources.files.delimited import (
    SAMPLE,
    UNITS,
    EventChunk,
    FileFormat,
    Parser,
    Role,
    find_columns,
    find_unit,
    scaled,
)

_MOST_MS: Final = float(1 << 61)  # no time is further from 1970; fits an int64
_FOUND, _USABLE = "found ", "usable"  # columns beside ours: as they are in the file, and whether the row is one
_SHOWN: Final = 200  # characters of a cell that is not what it should be
_encode = msgspec.json.Encoder().encode


class Parquet(Parser):
    """Parquet by polars, one slice after the other.

    A cell that is not what its column should hold makes its row a broken line, as in the text formats; such a line has
    our names, and that cell as it was found, in a list, so that the engine refuses it for this cell.
    """

    def __init__(self, path: Path, gzipped: bool) -> None:
        import polars

        self._path = path
        self._polars = polars
        self._failures = (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError)
        try:
            source: Any = io.BytesIO(gzip.decompress(path.read_bytes())) if gzipped else path
            frame = polars.scan_parquet(source)
            schema = frame.collect_schema()
            self.rows = int(frame.select(polars.len()).collect().item())
        except (*self._failures, EOFError, zlib.error) as exc:
            raise SourceError(f"{path}: not a readable Parquet file: {_one_line(exc)}") from None
        if not self.rows:
            raise SourceError(f"{path}: has columns but no rows: nothing to replay")
        columns = find_columns(list(schema.names()), path)
        casts = [self._cast(role, name, schema[name]).alias(role) for role, name in columns.items()]
        self._names = columns
        self._frame = frame.select(polars.col(name).alias(_FOUND + role) for role, name in columns.items())
        unit = "milliseconds"
        if not schema[columns["ts"]].is_temporal():
            sample = self._collect(self._frame.head(SAMPLE), 0)[_FOUND + "ts"].drop_nulls().to_list()
            unit = find_unit(sample, columns["ts"], path)
        self._factor = UNITS[unit]
        usable = [self._usable(role) for role in columns]
        self._frame = self._frame.with_columns(casts).with_columns(polars.all_horizontal(usable).alias(_USABLE))
        self.facts = FileFormat("parquet", gzipped, columns, unit)

    def _cast(self, role: Role, name: str, kind: Any) -> Any:
        """The column as our type, null where a cell is none of it."""
        column = self._polars.col(_FOUND + role)
        expected = "text or numbers" if role in ("user", "item", "action") else "numbers"
        if role == "ts" and kind in (self._polars.Datetime, self._polars.Date):
            return column.cast(self._polars.Datetime("ms"), strict=False).dt.epoch("ms")
        if kind.is_nested() or kind.is_temporal():
            raise SourceError(f"{self._path}: column {name}: holds {kind}: expected {expected}")
        if kind == self._polars.Binary:  # a cast fails for all when one is no text
            column = column.map_elements(_text, return_dtype=self._polars.String)
        if role in ("user", "item", "action"):
            return column.cast(self._polars.String, strict=False)
        if role == "ts" and kind.is_integer():
            return column  # of nanoseconds a float would not hold every one
        return column.cast(self._polars.Float64, strict=False)

    def _usable(self, role: Role) -> Any:
        column = self._polars.col(role)
        usable = column.is_not_null()
        if role == "ts":
            usable &= column.is_between(-_MOST_MS / self._factor, _MOST_MS / self._factor)
        if role == "value":
            usable &= column.is_finite()
        return usable | self._polars.col(_FOUND + role).is_null() if role in ("action", "value") else usable

    def _collect(self, frame: Any, start: int) -> Any:
        try:
            return frame.collect()
        except self._failures as exc:
            name = next(filter(None, map(self._failing, self._names.items())), "")
            where = f"{self._path}: column {name}" if name else f"{self._path}"
            raise SourceError(f"{where}: cannot be read on after record {start}: {_one_line(exc)}") from None

    def _failing(self, column: tuple[Role, str]) -> str:
        """The column's name when it cannot be read by itself either."""
        try:
            self._frame.select(_FOUND + column[0]).collect()
        except self._failures:
            return column[1]
        return ""

    def chunks(self, lines: Iterator[bytes], n: int) -> Iterator[EventChunk]:
        """Yield slices of the table; the lines are not looked at."""
        assert self.rows is not None
        slab = max(n, 200_000)  # rows decoded at a time: a slice costs a pass over its row groups
        for first in range(0, self.rows, slab):
            frame = self._collect(self._frame.slice(first, slab), first)
            for low in range(0, len(frame), n):
                yield self._chunk(first + low, frame.slice(low, n))

    def _chunk(self, start: int, frame: Any) -> EventChunk:
        usable = frame[_USABLE].to_numpy()
        index = np.flatnonzero(usable)
        broken: list[tuple[int, bytes]] = []
        if len(index) < len(frame):
            rows = frame.filter(~frame[_USABLE]).iter_rows(named=True)
            broken = [
                (place, self._as_found(row)) for place, row in zip(np.flatnonzero(~usable).tolist(), rows, strict=True)
            ]
            frame = frame.filter(frame[_USABLE])
        users, items = frame["user"].to_list(), frame["item"].to_list()
        actions = frame["action"].to_list() if "action" in self._names else None
        numbers = frame["value"].to_list() if "value" in self._names else None
        return EventChunk(
            start, users, items, scaled(frame["ts"].to_numpy(), self._factor), index, actions, numbers, broken
        )

    def _as_found(self, row: dict[str, Any]) -> bytes:
        made: dict[str, Any] = {}
        for role in self._names:
            cell, found = row[role], row[_FOUND + role]
            if role == "ts" and cell is not None:
                cell = round(cell * self._factor) if abs(cell) <= _MOST_MS / self._factor else None
            if role == "value" and cell is not None and not math.isfinite(cell):
                cell = None
            made[role] = [str(found)[:_SHOWN]] if cell is None and found is not None else cell
        return _encode(made)


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split())


__all__ = ["Parquet"]
