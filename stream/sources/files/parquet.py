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
from stream.sources.files.columns import EventField, find_columns
from stream.sources.files.event_chunk import EventChunk
from stream.sources.files.parser import SAMPLE_RECORDS, FileFormat, Parser
from stream.sources.files.times import UNITS, find_unit, scale_to_milliseconds

_MAX_MS: Final = float(1 << 61)  # farther from 1970 than any time; fits an int64
_ORIGINAL, _USABLE = "original ", "usable"  # further columns: as in the file, and whether the row is an event
_SHOWN: Final = 200  # characters kept of a cell of the wrong type
_encode = msgspec.json.Encoder().encode


class ParquetParser(Parser):
    """Parquet by polars, one slice after the other.

    A row with a cell of the wrong type counts as unparsed, as in the text formats. Its value has our names and holds
    that cell in a list, which the decoder refuses.
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
        casts = [self._cast(field, name, schema[name]).alias(field) for field, name in columns.items()]
        self._names = columns
        self._frame = frame.select(polars.col(name).alias(_ORIGINAL + field) for field, name in columns.items())
        unit = "milliseconds"
        if not schema[columns["ts"]].is_temporal():
            sample = self._collect(self._frame.head(SAMPLE_RECORDS), 0)[_ORIGINAL + "ts"].drop_nulls().to_list()
            unit = find_unit(sample, columns["ts"], path)
        self._factor = UNITS[unit]
        usable = [self._usable(field) for field in columns]
        self._frame = self._frame.with_columns(casts).with_columns(polars.all_horizontal(usable).alias(_USABLE))
        self.format = FileFormat("parquet", gzipped, columns, unit)

    def _cast(self, field: EventField, name: str, kind: Any) -> Any:
        """The column in our type, null where a cell cannot be cast."""
        column = self._polars.col(_ORIGINAL + field)
        expected = "text or numbers" if field in ("user", "item", "action") else "numbers"
        if field == "ts" and kind in (self._polars.Datetime, self._polars.Date):
            return column.cast(self._polars.Datetime("ms"), strict=False).dt.epoch("ms")
        if kind.is_nested() or kind.is_temporal():
            raise SourceError(f"{self._path}: column {name}: holds {kind}: expected {expected}")
        if kind == self._polars.Binary:  # a cast fails for all cells when one is not UTF-8
            column = column.map_elements(_decode_or_none, return_dtype=self._polars.String)
        if field in ("user", "item", "action"):
            return column.cast(self._polars.String, strict=False)
        if field == "ts" and kind.is_integer():
            return column  # a float cannot hold every nanosecond
        return column.cast(self._polars.Float64, strict=False)

    def _usable(self, field: EventField) -> Any:
        column = self._polars.col(field)
        usable = column.is_not_null()
        if field == "ts":
            usable &= column.is_between(-_MAX_MS / self._factor, _MAX_MS / self._factor)
        if field == "value":
            usable &= column.is_finite()
        return usable | self._polars.col(_ORIGINAL + field).is_null() if field in ("action", "value") else usable

    def _collect(self, frame: Any, start: int) -> Any:
        try:
            return frame.collect()
        except self._failures as exc:
            name = next(filter(None, map(self._failing, self._names.items())), "")
            where = f"{self._path}: column {name}" if name else f"{self._path}"
            raise SourceError(f"{where}: cannot be read on after record {start}: {_one_line(exc)}") from None

    def _failing(self, column: tuple[EventField, str]) -> str:
        """The column's name when it is unreadable by itself; else empty."""
        try:
            self._frame.select(_ORIGINAL + column[0]).collect()
        except self._failures:
            return column[1]
        return ""

    def chunks(self, lines: Iterator[bytes], n: int) -> Iterator[EventChunk]:
        """Yield slices of the table; `lines` is not used."""
        assert self.rows is not None
        slab = max(n, 200_000)  # rows decoded at once: each slice costs a pass over its row groups
        for first in range(0, self.rows, slab):
            frame = self._collect(self._frame.slice(first, slab), first)
            for low in range(0, len(frame), n):
                yield self._chunk(first + low, frame.slice(low, n))

    def _chunk(self, start: int, frame: Any) -> EventChunk:
        usable = frame[_USABLE].to_numpy()
        index = np.flatnonzero(usable)
        unparsed: list[tuple[int, bytes]] = []
        if len(index) < len(frame):
            rows = frame.filter(~frame[_USABLE]).iter_rows(named=True)
            unparsed = [
                (place, self._with_our_names(row))
                for place, row in zip(np.flatnonzero(~usable).tolist(), rows, strict=True)
            ]
            frame = frame.filter(frame[_USABLE])
        users, items = frame["user"].to_list(), frame["item"].to_list()
        actions = frame["action"].to_list() if "action" in self._names else None
        event_values = frame["value"].to_list() if "value" in self._names else None
        return EventChunk(
            start,
            users,
            items,
            scale_to_milliseconds(frame["ts"].to_numpy(), self._factor),
            index,
            actions,
            event_values,
            unparsed,
        )

    def _with_our_names(self, row: dict[str, Any]) -> bytes:
        named: dict[str, Any] = {}
        for field in self._names:
            cell, original = row[field], row[_ORIGINAL + field]
            if field == "ts" and cell is not None:
                cell = round(cell * self._factor) if abs(cell) <= _MAX_MS / self._factor else None
            if field == "value" and cell is not None and not math.isfinite(cell):
                cell = None
            named[field] = [str(original)[:_SHOWN]] if cell is None and original is not None else cell
        return _encode(named)


def _decode_or_none(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split())


__all__ = ["ParquetParser"]
