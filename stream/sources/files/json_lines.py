"""JSON lines: one object a line."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from stream.errors import SourceError
from stream.schema.events import MAX_RECORD_BYTES
from stream.sources.files.columns import COLUMN_NAMES, OPTIONAL_FIELDS, EventField, find_columns
from stream.sources.files.event_chunk import EventChunk
from stream.sources.files.parser import FileFormat, Parser
from stream.sources.files.times import UNITS, find_unit, scale_to_milliseconds

_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)
_encode = msgspec.json.Encoder().encode


class JsonLinesParser(Parser):
    """One JSON object a line, with the names in `file_format.columns`."""

    def __init__(self, file_format: FileFormat) -> None:
        self.format = file_format
        # the first action or value may come after the lines that the columns were found in
        self._names: dict[EventField, str] = {field: field for field in OPTIONAL_FIELDS} | file_format.columns
        kinds: dict[EventField, Any] = {
            "user": str | int,
            "item": str | int,
            "ts": int | float | str,
            "action": str | None,
            "value": float | None,
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
        self._factor = UNITS[file_format.unit]

    def chunks(self, lines: Iterator[bytes], n: int) -> Iterator[EventChunk]:
        """Yield chunks of `n` lines, the last one smaller."""
        start = 0
        while part := list(islice(lines, n)):
            yield self._chunk(start, part)
            start += len(part)

    def _chunk(self, start: int, lines: list[bytes]) -> EventChunk:
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
        ts = [row.ts for row in rows]
        actions, event_values = [row.action for row in rows], [row.value for row in rows]
        return EventChunk(
            start,
            [row.user if type(row.user) is str else _decimal(row.user) for row in rows],
            [row.item if type(row.item) is str else _decimal(row.item) for row in rows],
            scale_to_milliseconds(
                np.array(ts, dtype=np.int64 if all([type(t) is int for t in ts]) else np.float64), self._factor
            ),
            np.array(index, dtype=np.int64),
            actions if any(action is not None for action in actions) else None,
            event_values if any(value is not None for value in event_values) else None,
            unparsed,
            unknown_fields,
            lines,
        )

    def _parse(self, decode: Callable[[bytes], Any], line: bytes) -> Any:
        """Decode a line and make its time a number; None when it is no event."""
        if len(line) > MAX_RECORD_BYTES:
            return None
        try:
            row = decode(line)
            row.ts = self._number(row.ts)
        except _UNREADABLE:
            return None
        return row

    def _with_our_names(self, line: bytes) -> bytes:
        """The object with our names, further fields as null; the line itself when it holds no object."""
        further = self._further_fields(line) if len(line) <= MAX_RECORD_BYTES else None
        if further is None:
            return line
        raw = msgspec.json.decode(line)
        named = {field: raw[name] for field, name in self._names.items() if name in raw}
        with suppress(*_UNREADABLE, TypeError, KeyError):
            named["ts"] = int(scale_to_milliseconds(np.array([self._number(named["ts"])]), self._factor)[0])
        try:
            return _encode(named | further)
        except _UNREADABLE:
            return line

    def _further_fields(self, line: bytes) -> dict[str, None] | None:
        """Fields beside ours, renamed where they have our names; None when the line is no JSON object."""
        try:
            raw = msgspec.json.decode(line)
        except _UNREADABLE:
            return None
        if not isinstance(raw, dict):
            return None
        return {f"_{name}" if name in COLUMN_NAMES else name: None for name in raw if name not in self._known}

    def _number(self, ts: Any) -> int | float:
        """The time as a number that can be scaled; ValueError when it cannot."""
        if type(ts) is int and abs(ts) < 1 << 62:
            return ts
        number = math.nan if isinstance(ts, bool) else float(ts)
        if not abs(number * self._factor) < 1 << 62:
            raise ValueError(f"{ts!r} is no time")
        return number


def _row_decoder(fields: Sequence[tuple[str, Any, Any]], *, forbid_unknown_fields: bool) -> Callable[[bytes], Any]:
    row = msgspec.defstruct("Row", fields, kw_only=True, forbid_unknown_fields=forbid_unknown_fields)
    return msgspec.json.Decoder(row).decode


def json_lines_parser(path: Path, gzipped: bool, lines: list[bytes]) -> Parser:
    """Find the columns and the unit of the times in the first lines."""
    rows = []
    for line in lines:
        try:
            row = msgspec.json.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(row)
    if not rows:
        raise SourceError(f"{path}: no line of the first {len(lines)} is a JSON object")
    columns = find_columns(list(dict.fromkeys(name for row in rows for name in row)), path)
    unit = find_unit([row.get(columns["ts"]) for row in rows], columns["ts"], path)
    return JsonLinesParser(FileFormat("jsonl", gzipped, columns, unit))


def _decimal(value: int) -> str:
    """Return the digits; none, which the decoder refuses, for a number so large that `str` raises."""
    return str(value) if -(1 << 200) < value < 1 << 200 else ""


__all__ = ["json_lines_parser"]
