"""JSON lines: one object a line."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.mapping.actions import ActionNames
from stream.mapping.columns import OPTIONAL_FIELDS, EventField
from stream.mapping.ids import MISSING, id_text, normalize_ids
from stream.mapping.times import TimeReader
from stream.schema.bare_numbers import wrap_bare_numbers
from stream.schema.events import MAX_RECORD_BYTES
from stream.sources.files.event_chunk import EventChunk
from stream.sources.files.json_paths import JsonPaths
from stream.sources.files.parser import FIRST_TS, FileFormat, Parser

UNREADABLE: Final = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)
_FIELDS: Final[tuple[EventField, ...]] = ("user", "item", "ts", "action", "value")
_encode = msgspec.json.Encoder().encode
_parse_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode  # further fields are not converted


class JsonLinesParser(Parser):
    """One JSON object a line, with the names in `file_format.columns`.

    Parameters
    ----------
    file_format
        What the file was found to be.
    times
        Reads the times; None gives each line a second of its own.
    actions
        Translates the actions.
    paths
        Takes the fields out of nested objects first; None where all are members of the line's object.
    """

    def __init__(
        self, file_format: FileFormat, times: TimeReader | None, actions: ActionNames, paths: JsonPaths | None = None
    ) -> None:
        self.format = file_format
        self._times, self._actions, self._paths = times, actions, paths
        columns = file_format.columns if paths is None else {field: str(field) for field in file_format.columns}
        # the first action or value may come after the lines that the columns were found in
        self._names: dict[EventField, str] = {field: str(field) for field in OPTIONAL_FIELDS} | columns
        kinds: dict[EventField, Any] = {
            "user": str | int | float,
            "item": str | int | float,
            "ts": int | float | str,
            "action": str | int | None,
            "value": Any,
        }
        fields = [
            (field, kinds[field], msgspec.field(name=name, default=None))
            if field in OPTIONAL_FIELDS
            else (field, kinds[field], msgspec.field(name=name))
            for field, name in self._names.items()
        ]
        self._decode: Callable[[bytes], Any] = _row_decoder(fields, forbid_unknown_fields=True)
        self._decode_known: Callable[[bytes], Any] = _row_decoder(fields, forbid_unknown_fields=False)
        self._known = frozenset(self._names.values())

    def chunks(self, lines: Iterator[bytes], n: int) -> Iterator[EventChunk]:
        """Yield chunks of `n` records, the last one smaller."""
        start = 0
        if self._paths is None:
            while part := list(islice(lines, n)):
                yield self._chunk(start, [wrap_bare_numbers(line) for line in part], part)
                start += len(part)
            return
        self._paths.skipped = 0
        records = self._paths.records(lines)
        while pairs := list(islice(records, n)):
            self.skipped = self._paths.skipped
            yield self._chunk(start, [made for made, _ in pairs], [original for _, original in pairs])
            start += len(pairs)

    def _chunk(self, start: int, lines: list[bytes], originals: list[bytes]) -> EventChunk:
        rows = self._parse_together(lines)
        if rows is not None:
            chunk = self._build(start, rows, np.arange(len(rows)), [], [], originals)
            if chunk is not None:
                return chunk
        return self._parse_one_by_one(start, lines, originals)

    def _parse_together(self, lines: list[bytes]) -> list[Any] | None:
        """Parse all lines at once; None unless all are events without further fields."""
        if max(map(len, lines)) > MAX_RECORD_BYTES:
            return None
        try:
            rows = [self._decode(line) for line in lines]
            for name in ("user", "item"):
                ids = [getattr(row, name) for row in rows]
                if any([type(one) is not str for one in ids]):
                    normalized = [id_text(one) for one in ids]
                else:
                    normalized = normalize_ids(ids)
                if not all(normalized):
                    return None
                if normalized is not ids:
                    for row, one in zip(rows, normalized, strict=True):
                        setattr(row, name, one)
        except UNREADABLE:
            return None
        return rows

    def _parse_one_by_one(self, start: int, lines: list[bytes], originals: list[bytes]) -> EventChunk:
        rows: list[Any] = []
        index: list[int] = []
        unparsed: list[tuple[int, bytes]] = []
        unknown_fields: list[tuple[int, bytes]] = []
        for place, line in enumerate(lines):
            row = self._parse(self._decode, line)
            if row is None and (row := self._parse(self._decode_known, line)) is not None:
                further = self._further_fields(line)
                if further is None:  # one of them is not readable
                    row = None
                elif further:
                    unknown_fields.append((len(rows), b"," + _encode(further)[1:]))
            if row is None:
                unparsed.append((place, self._with_our_names(line)))
                continue
            rows.append(row)
            index.append(place)
        chunk = self._build(start, rows, np.array(index, dtype=np.int64), unparsed, unknown_fields, originals)
        assert chunk is not None
        return chunk

    def _build(
        self,
        start: int,
        rows: list[Any],
        index: NDArray[np.int64],
        unparsed: list[tuple[int, bytes]],
        unknown_fields: list[tuple[int, bytes]],
        originals: list[bytes],
    ) -> EventChunk | None:
        """Make a chunk of rows with normalized ids; None when a time is none."""
        try:
            if self._times is None:
                ts = FIRST_TS + 1000 * (start + index)
            else:
                ts = self._times.read_values([row.ts for row in rows])
        except UNREADABLE:
            return None
        actions = [str(row.action) if type(row.action) is int else row.action for row in rows]
        event_values, dropped = _read_values([row.value for row in rows])
        return EventChunk(
            start,
            [row.user for row in rows],
            [row.item for row in rows],
            ts,
            index,
            self._actions.translate(actions) if any([action is not None for action in actions]) else None,
            event_values if any([value is not None for value in event_values]) else None,
            unparsed,
            unknown_fields,
            originals,
            dropped,
        )

    def _parse(self, decode: Callable[[bytes], Any], line: bytes) -> Any:
        """Decode a line and normalize its ids; None when it is no event, or has no time that can be read."""
        if len(line) > MAX_RECORD_BYTES:
            return None
        try:
            row = decode(line)
            row.user, row.item = id_text(row.user), id_text(row.item)
            if self._times is not None:
                self._times.read(row.ts)
        except UNREADABLE:
            return None
        return row if row.user and row.item else None

    def _with_our_names(self, line: bytes) -> bytes:
        """The object with our names, further fields as null; the line itself when it holds no object."""
        further = self._further_fields(line) if len(line) <= MAX_RECORD_BYTES else None
        if further is None:
            return line
        raw = _parse_fields(line)
        try:  # the value is never a reason to refuse a record
            wanted = {field: name for field, name in self._names.items() if name in raw and field != "value"}
            named: dict[str, Any] = {field: msgspec.json.decode(raw[name]) for field, name in wanted.items()}
        except UNREADABLE:
            return line
        for field in ("user", "item"):
            with suppress(ValueError, TypeError, KeyError):
                if isinstance(named[field], str) and named[field].strip() in MISSING - {""}:
                    del named[field]
                elif isinstance(named[field], str | float):
                    named[field] = id_text(named[field])
        with suppress(*UNREADABLE, TypeError, KeyError):
            named["ts"] = self._times.read(named["ts"]) if self._times is not None else FIRST_TS
        if isinstance(named.get("action"), str):
            named["action"] = self._actions.translate([named["action"]])[0]
        try:
            return _encode(named | further)
        except UNREADABLE:
            return line

    def _further_fields(self, line: bytes) -> dict[str, None] | None:
        """Fields beside ours, renamed where they have our names; None when the line is no JSON object."""
        try:
            line.decode()
            raw = _parse_fields(line)
        except UNREADABLE:
            return None
        return {f"_{name}" if name in _FIELDS else name: None for name in raw if name not in self._known}


def _row_decoder(fields: Sequence[tuple[str, Any, Any]], *, forbid_unknown_fields: bool) -> Callable[[bytes], Any]:
    row = msgspec.defstruct("Row", fields, kw_only=True, forbid_unknown_fields=forbid_unknown_fields)
    return msgspec.json.Decoder(row).decode


def _read_values(values: Sequence[Any]) -> tuple[list[float | None], list[int]]:
    """Return numbers, None for what is none, and the rows of those of the latter that are not null."""
    if not any([value is not None for value in values]):
        return list(values), []
    found: list[float | None] = []
    dropped: list[int] = []
    for row, value in enumerate(values):
        number: float | None = None
        if type(value) is float or type(value) is int or isinstance(value, str):
            with suppress(ValueError, OverflowError):
                number = float(value)
                number = number if math.isfinite(number) else None
        if number is None and value is not None and value != "":
            dropped.append(row)
        found.append(number)
    return found, dropped


__all__ = ["JsonLinesParser"]
