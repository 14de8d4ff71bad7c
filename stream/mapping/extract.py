"""Taking the fields of events out of a record of any shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stream.mapping.columns import EventField
from stream.mapping.paths import Path, value_at, values_at

Fields = dict[EventField, Any]


class FieldExtractor:
    """Takes the events out of a decoded record: one, or one for each member of the list that its items are in.

    Parameters
    ----------
    paths
        Where each field is. The places of the item decide how many events there are; a field in a list of the same
        depth has the member at the same position, one outside of it is the same for all.
    where
        Values that a record has when it is one of events, by path.

    Examples
    --------
    >>> from stream.mapping.paths import parse_path
    >>> extractor = FieldExtractor({"user": parse_path("by"), "item": parse_path("lines[].sku")}, {})
    >>> extractor.events({"by": "anna", "lines": [{"sku": 7}, {"sku": 8}]})
    [{'user': 'anna', 'item': 7}, {'user': 'anna', 'item': 8}]
    """

    def __init__(self, paths: Mapping[EventField, Path], where: Mapping[Path, frozenset[str]]) -> None:
        self.paths, self.where = dict(paths), dict(where)

    @property
    def expands(self) -> bool:
        """Whether a record may hold several events."""
        return any(place.lists for place in self.paths.get("item", ()))

    def is_event(self, record: Any) -> bool:
        """Whether the record is one of events, by the values that it must have."""
        return all(as_text(value_at(record, path)) in wanted for path, wanted in self.where.items())

    def events(self, record: Any) -> list[Fields]:
        """The events of a record; fields that are absent are left out."""
        items = _first(record, self.paths.get("item", ()))
        events: list[Fields] = [{} for _ in items]
        for field, path in self.paths.items():
            if field == "item":
                columns: list[Any] = [value for _, value in items]
            else:
                columns = _aligned(record, path, [position for position, _ in items])
            for event, value in zip(events, columns, strict=True):
                if value is not None:
                    event[field] = value
        return events


def _first(record: Any, path: Path) -> list[tuple[tuple[int, ...], Any]]:
    """Positions and values of the first place that holds something; one position when none does."""
    there: list[tuple[tuple[int, ...], Any]] | None = None
    for place in path:
        found = values_at(record, place)
        if found is None:
            continue
        if any(value is not None for _, value in found):
            return found
        if there is None or len(found) > len(there):
            there = found
    return [((), None)] if there is None else there


def _aligned(record: Any, path: Path, positions: list[tuple[int, ...]]) -> list[Any]:
    """The value for each position: of the first place that has one there."""
    columns: list[Any] = [None] * len(positions)
    for place in path:
        if all(value is not None for value in columns):
            break
        found = dict(values_at(record, place) or ())
        depth = place.lists
        columns = [
            value if value is not None else found.get(_cut(position, depth))
            for value, position in zip(columns, positions, strict=True)
        ]
    return columns


def _cut(position: tuple[int, ...], depth: int) -> tuple[int, ...]:
    """The position in the lists of a place: the outermost ones, and the first member of lists that the item has not."""
    return position[:depth] + (0,) * (depth - len(position))


def as_text(value: Any) -> str:
    """A value as the settings write it: `true`, `false`, and nothing for null."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


__all__ = ["FieldExtractor", "Fields", "as_text"]
