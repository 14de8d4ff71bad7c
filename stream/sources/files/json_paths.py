"""Fields inside nested JSON: `user.id`, and `events[].aid` for records that hold a list of events."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from stream.errors import SourceError
from stream.mapping.columns import EventField

LIST: Final = "[]"
_MAX_DEPTH: Final = 6  # of names that a message lists
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
        if not any(value is not None for row in rows for value in _values(row, column)):
            near = difflib.get_close_matches(column, list(dict.fromkeys(_all_paths(rows))), 1, 0.5)
            hint = f": did you mean {near[0]}?" if near else ""
            raise SourceError(
                f"{path}: --columns {field}={column}: no such path in the first {len(rows)} records{hint}"
            )
    return dict(given)


def _all_paths(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    def walk(value: Any, before: str, depth: int) -> Iterator[str]:
        if isinstance(value, list) and value:
            yield from walk(value[0], before + LIST, depth)
        elif isinstance(value, dict) and depth < _MAX_DEPTH:
            for name, member in value.items():
                yield from walk(member, f"{before}.{name}" if before else name, depth + 1)
        else:
            yield before

    for row in rows[:100]:
        yield from walk(row, "", 0)


def _values(row: Any, column: str) -> list[Any]:
    """The values at a path: one, or as many as its list has members."""
    values = [row]
    for name in column.split("."):
        name, is_list = name.removesuffix(LIST), name.endswith(LIST)
        values = [value.get(name) if isinstance(value, dict) else None for value in values]
        if is_list:
            values = [member for value in values if isinstance(value, list) for member in value]
    return values


class JsonPaths:
    """Takes the fields out of nested objects: each event becomes an object with the fields' own names.

    Parameters
    ----------
    columns
        Path of each field. Fields with a list in their path have one value per member of it; the others, one for all.
    """

    def __init__(self, columns: Mapping[EventField, str]) -> None:
        self._columns = dict(columns)
        self._expands = any(LIST in column for column in columns.values())

    def records(self, lines: Iterator[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Yield each event's object, and the file's bytes of it: a record that holds a list has none for one event."""
        for line in lines:
            try:
                row = msgspec.json.decode(line)
            except _UNREADABLE:
                row = None
            if not isinstance(row, dict):
                yield line, line
                continue
            for event in self.events(row):
                made = _encode(event)
                yield made, made if self._expands else line

    def events(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """The events of a record; absent fields are left out."""
        values = {field: _values(row, column) for field, column in self._columns.items()}
        if self._expands:
            number = max((len(found) for field, found in values.items() if LIST in self._columns[field]), default=0)
        else:
            number = 1
        return [
            {
                field: value
                for field, found in values.items()
                if (value := _at(found, place, LIST in self._columns[field])) is not None
            }
            for place in range(number)
        ]

    def samples(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The events of some records."""
        return [event for row in rows for event in self.events(row)]


def _at(values: Sequence[Any], place: int, in_list: bool) -> Any:
    place = place if in_list else 0
    return values[place] if place < len(values) else None


__all__ = ["JsonPaths", "find_paths", "paths_in"]
