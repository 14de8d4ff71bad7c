"""Events from Parquet files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from stream.errors import SourceError
from stream.mapping.columns import OPTIONAL_FIELDS, EventField, find_columns, preset_columns
from stream.mapping.ids import MISSING, normalize_ids
from stream.mapping.time_forms import find_times
from stream.mapping.times import NumberTimes, TimeReader
from stream.sources.files.containers import READ_ERRORS, Container
from stream.sources.files.event_chunk import EventChunk
from stream.sources.files.options import ReadOptions
from stream.sources.files.parser import FIRST_TS, SAMPLE_RECORDS, FileFormat, Parser

_ORIGINAL, _USABLE = "original ", "usable"  # further columns: as in the file, and whether the row is an event
_SHOWN: Final = 200  # characters kept of a cell of the wrong type
_MAX_DEPTH: Final = 5  # of nested columns
_encode = msgspec.json.Encoder().encode


class ParquetParser(Parser):
    """Parquet by polars, one slice after the other.

    A row without id or time, or with one of the wrong type, counts as unparsed, as in the text formats. Its value has
    our names and holds a cell of the wrong type in a list, which the decoder refuses.

    Parameters
    ----------
    path, on_disk
        The file as the user names it, and where it lies.
    read
        Returns the whole file, decompressed; called when it is compressed.
    """

    def __init__(
        self, path: Path, on_disk: Path, container: Container, read: Callable[[], bytes], options: ReadOptions
    ) -> None:
        import polars

        self._path, self._polars, self._actions = path, polars, options.actions
        self._failures = (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError)
        try:
            frame = polars.scan_parquet(io.BytesIO(read()) if container else on_disk)
            schema = frame.collect_schema()
            self.rows = int(frame.select(polars.len()).collect().item())
        except (*self._failures, *READ_ERRORS) as exc:
            raise SourceError(f"{path}: not a readable Parquet file: {_one_line(exc)}") from None
        if not self.rows:
            raise SourceError(f"{path}: has columns but no rows: nothing to replay")
        kinds = dict(self._kinds(schema))
        self._top_names = frozenset(schema.names())
        self._names = find_columns(
            list(kinds),
            path,
            preset_columns(list(kinds), options.preset)
            | {name: text for name, text in options.columns.items() if not text.startswith("=")},
        )
        self._frame = frame.select(self._column(name).alias(_ORIGINAL + field) for field, name in self._names.items())
        sample = self._collect(self._frame.head(SAMPLE_RECORDS), 0)
        notes = self._choose_action(sample, options)
        times = self._find_times(sample, kinds, options)
        casts = [self._cast(field, name, kinds[name], times).alias(field) for field, name in self._names.items()]
        usable = polars.all_horizontal([self._usable(field) for field in self._names if field not in OPTIONAL_FIELDS])
        self._frame = self._frame.with_columns(casts).with_columns(usable.alias(_USABLE))
        self.format = FileFormat(
            "parquet",
            container,
            self._names,
            times.description if times else "none",
            options.actions.used if "action" in self._names else {},
            [name for name in schema.names() if not any(_is_in(used, name) for used in self._names.values())],
            notes,
        )

    def _kinds(self, schema: Any, before: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
        """Yield path and type of all columns, those inside of structs too."""
        for name, kind in schema.items():
            yield before + name, kind
            if kind == self._polars.Struct and depth < _MAX_DEPTH:
                inner = {one.name: one.dtype for one in kind.fields}
                yield from self._kinds(inner, f"{before}{name}.", depth + 1)

    def _column(self, name: str) -> Any:
        """The expression of a column, by its path."""
        if name in self._top_names:
            return self._polars.col(name)
        first, *rest = name.split(".")
        column = self._polars.col(first)
        for part in rest:
            column = column.struct.field(part)
        return column

    def _choose_action(self, sample: Any, options: ReadOptions) -> list[str]:
        """Keep the action's column only when it holds actions; what to say about unknown ones."""
        if "action" not in self._names:
            return []
        cells = [str(cell) for cell in sample[_ORIGINAL + "action"].drop_nulls().to_list()]
        sure = "action" in (*options.columns, *options.preset) or self._names["action"].lower() == "action"
        used = sure or options.actions.are_actions(cells)
        notes = options.actions.note(self._names["action"], cells, used=used)
        if used:
            options.actions.translate(cells)
        else:
            del self._names["action"]
        return notes

    def _find_times(self, sample: Any, kinds: dict[str, Any], options: ReadOptions) -> TimeReader | None:
        if "ts" not in self._names:
            return None
        if kinds[self._names["ts"]].is_temporal():
            return NumberTimes("milliseconds")
        cells = sample[_ORIGINAL + "ts"].drop_nulls().to_list()
        return find_times(cells, self._names["ts"], self._path, options.times)

    def _cast(self, field: EventField, name: str, kind: Any, times: TimeReader | None) -> Any:
        """The column in our type, null where a cell cannot be cast."""
        polars = self._polars
        column = polars.col(_ORIGINAL + field)
        expected = "text or numbers" if field in ("user", "item", "action") else "numbers"
        if field == "ts" and kind in (polars.Datetime, polars.Date):
            return column.cast(polars.Datetime("ms"), strict=False).dt.epoch("ms")
        if kind.is_nested() or kind.is_temporal():
            raise SourceError(f"{self._path}: column {name}: holds {kind}: expected {expected}")
        if field == "ts" and isinstance(times, NumberTimes) and kind.is_integer():
            return column.map_batches(lambda cells: _scaled(cells, times), return_dtype=polars.Int64)
        if field == "ts" and times is not None:
            return column.map_elements(_reader(times), return_dtype=polars.Int64)
        if kind == polars.Binary:  # a cast fails for all cells when one is not UTF-8
            column = column.map_elements(_decode_or_none, return_dtype=polars.String)
        if field not in ("user", "item", "action"):
            return column.cast(polars.Float64, strict=False)
        if kind.is_float():  # 7.0 is the id 7; NaN and 7.5 are none
            return (
                polars.when(column == column.floor()).then(column.cast(polars.Int64, strict=False)).cast(polars.String)
            )
        return column.cast(polars.String, strict=False)

    def _usable(self, field: EventField) -> Any:
        column = self._polars.col(field)
        usable = column.is_not_null()
        if field in ("user", "item"):
            usable &= ~column.str.strip_chars().is_in(sorted(MISSING))
        return usable

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
        event_values, dropped = None, list[int]()
        if "value" in self._names:
            finite = frame["value"].is_finite().fill_null(value=False)
            dropped = (~finite & frame[_ORIGINAL + "value"].is_not_null()).arg_true().to_list()
            event_values = frame.select(self._polars.when(finite).then(self._polars.col("value")))["value"].to_list()
        return EventChunk(
            start,
            normalize_ids(frame["user"].to_list()),
            normalize_ids(frame["item"].to_list()),
            frame["ts"].to_numpy() if "ts" in self._names else FIRST_TS + 1000 * (start + index),
            index,
            self._actions.translate(frame["action"].to_list()) if "action" in self._names else None,
            event_values,
            unparsed,
            dropped_values=dropped,
        )

    def _with_our_names(self, row: dict[str, Any]) -> bytes:
        named: dict[str, Any] = {}
        for field in self._names:
            cell, original = row[field], row[_ORIGINAL + field]
            if field == "value" or original is None or _is_missing(original):
                continue  # an absent id or time is told as one
            named[field] = [str(original)[:_SHOWN]] if cell is None else cell
        return _encode(named)


def _is_in(column: str, top: str) -> bool:
    return column == top or column.startswith(top + ".")


def _is_missing(cell: Any) -> bool:
    return cell != cell or (isinstance(cell, str) and cell.strip() in MISSING)


def _scaled(cells: Any, times: NumberTimes) -> Any:
    """Scale a column of integers, null where a cell is."""
    scaled = type(cells)(values=times.scale(cells.fill_null(0).cast(int).to_numpy()))
    return scaled.zip_with(
        cells.is_not_null(), type(cells)(values=[None], dtype=scaled.dtype).new_from_index(0, len(cells))
    )


def _reader(times: TimeReader) -> Callable[[Any], int | None]:
    def read(cell: Any) -> int | None:
        try:
            return times.read(cell.decode() if isinstance(cell, bytes) else cell)
        except (ValueError, OverflowError):
            return None

    return read


def _decode_or_none(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split())


__all__ = ["ParquetParser"]
