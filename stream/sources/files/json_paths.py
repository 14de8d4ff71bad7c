"""Fields inside nested JSON: `user.id`, and `events[].aid` for records that hold a list of events."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from stream.errors import ConfigError, SourceError
from stream.mapping.columns import EventField
from stream.mapping.extract import FieldExtractor, Fields
from stream.mapping.paths import Place, Step, parse_path, paths_of, values_at
from stream.mapping.shape import RecordShape
from stream.schema.bare_numbers import wrap_bare_numbers

LIST: Final = "[]"
_SHOWN_FROM: Final = 100  # records that the nearest path is found in
_encode = msgspec.json.Encoder().encode
_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)


def paths_in(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of an object, and those of the members of a list of objects as `events[].aid`."""
    for name, value in row.items():
        yield name
        if isinstance(value, list) and value and isinstance(value[0], dict):
            yield from (f"{name}{LIST}.{member}" for member in value[0])


def find_paths(path: Path, rows: Sequence[dict[str, Any]], given: Mapping[EventField, str]) -> dict[EventField, str]:
    """Check that each path leads to something in one of the rows.

    Raises
    ------
    SourceError
        It does not; the message has the nearest path that there is.
    """
    for field, column in given.items():
        try:
            places = parse_path(column)
        except ConfigError as exc:
            raise SourceError(f"--columns {field}={column}: {exc}") from None
        if not any(seen(rows, place) for place in places):
            raise no_such_path(path, rows, field, column)
    return dict(given)


def seen(rows: Sequence[Any], place: Place) -> bool:
    """Whether a place holds something in one of the rows."""
    return any(value is not None for row in rows for _, value in values_at(row, place) or ())


def no_such_path(path: Path, rows: Sequence[Any], field: EventField, column: str) -> SourceError:
    """Return the error for a path that leads to nothing, with the nearest one that there is."""
    near = difflib.get_close_matches(column, paths_of(rows[:_SHOWN_FROM]), 1, 0.5)
    hint = f": did you mean {near[0]}?" if near else ""
    return SourceError(f"{path}: --columns {field}={column}: no such path in the first {len(rows)} records{hint}")


class JsonPaths:
    """Takes the fields out of nested objects: each event becomes an object with the fields' own names.

    Parameters
    ----------
    extractor
        Takes the events out of an object.
    shape
        Says which of them are skipped; None: none.
    """

    def __init__(self, extractor: FieldExtractor, shape: RecordShape | None = None) -> None:
        self._extractor, self._shape = extractor, shape
        self.skipped = 0  # records that are no events

    @classmethod
    def of_columns(cls, columns: Mapping[EventField, str], top: Sequence[str]) -> JsonPaths:
        """Return the paths of columns; a name of the object itself may hold dots."""
        places = {
            field: (Place((Step(column),)),) if column in top else parse_path(column)
            for field, column in columns.items()
        }
        return cls(FieldExtractor(places, {}))

    def records(self, lines: Iterator[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Yield each event's object, and the file's bytes of it: a record that holds a list has none for one event."""
        expands = self._extractor.expands
        for line in lines:
            try:
                row = msgspec.json.decode(wrap_bare_numbers(line))
            except _UNREADABLE:
                row = None
            if not isinstance(row, dict):
                yield line, line
                continue
            for event in self.events(row):
                made = _encode(event)
                yield made, made if expands else line

    def events(self, row: dict[str, Any]) -> list[Fields]:
        """The events of a record; absent fields are left out."""
        shape = self._shape
        if shape is None:
            return self._extractor.events(row)
        events = self._extractor.events(row) if self._extractor.is_event(row) else []
        events = [one for one in events if not shape.is_skipped(one.get("action"), has_item="item" in one)]
        self.skipped += not events
        return events

    def samples(self, rows: Sequence[dict[str, Any]]) -> list[Fields]:
        """The events of some records, which count as skipped only when they are read."""
        before = self.skipped
        events = [event for row in rows for event in self.events(row)]
        self.skipped = before
        return events


__all__ = ["JsonPaths", "find_paths", "no_such_path", "paths_in", "seen"]
