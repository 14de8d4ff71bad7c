"""Whether a mapping fits the first records of a topic, and what it takes for what, in one line."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from stream.errors import ConfigError
from stream.mapping.columns import OPTIONAL_FIELDS
from stream.mapping.paths import Place, paths_of, value_at, values_at
from stream.mapping.reader import RecordReader
from stream.mapping.shape import RecordShape

FIRST_RECORDS: Final = 1000  # that a mapping is checked with
_SHOWN: Final = 20


def decode_records(values: Sequence[bytes | None], reader: RecordReader | None = None) -> list[Any]:
    """The objects among some records; without a reader, those that are JSON."""
    found = []
    for value in values:
        try:
            record = msgspec.json.decode(value or b"") if reader is None else reader.read(value or b"")
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            found.append(record)
    return found


def check_mapping(shape: RecordShape, records: Sequence[Any], given: Sequence[str]) -> None:
    """Check that every path leads to something in one of the first records.

    Parameters
    ----------
    records
        The first records of the topic, decoded.
    given
        Fields whose paths the configuration names itself: they must be there, others only where an event needs them.

    Raises
    ------
    ConfigError
        A path leads to nothing, or no record is one of events.
    """
    events = [one for one in records if shape.extractor.is_event(one)]
    if not events:
        wanted = ", ".join(
            f"{'|'.join(map(str, path))} = {'|'.join(sorted(values))}" for path, values in shape.extractor.where.items()
        )
        raise ConfigError(f"events.where: none of the first {len(records)} records has {wanted}")
    for field, path in shape.extractor.paths.items():
        if any(leads_to_values(place, events) for place in path):
            continue
        if field in OPTIONAL_FIELDS and field not in given:
            continue
        text = shape.texts[field]
        near = difflib.get_close_matches(text, paths_of(records[:100]), 1, 0.5)
        hint = f"the nearest is {near[0]}" if near else f"there are {', '.join(paths_of(records[:100])[:_SHOWN])}"
        raise ConfigError(f'events.{field} = "{text}": no such path in the first {len(records)} records; {hint}')


def leads_to_values(place: Place, records: Sequence[Any]) -> bool:
    """Whether a place holds something in one of the records."""
    return any(value is not None for one in records for _, value in values_at(one, place) or ())


def describe(shape: RecordShape, records: Sequence[Any]) -> str:
    """What the records are taken for: path of each field, times, actions, and the paths that are not used."""
    events = [one for one in records if shape.extractor.is_event(one)]
    used, parts = set[str](), []
    for field, path in shape.extractor.paths.items():
        there = [place for place in path if leads_to_values(place, events)]
        if there:
            parts.append(f"{field} = {'|'.join(map(str, there))}")
            used |= set(map(str, there))
    actions = [value_at(one, shape.extractor.paths["action"]) for one in events if "action" in shape.extractor.paths]
    shape.actions.translate([one for one in actions if isinstance(one, str)])
    renamed = ", ".join(f"{old} = {new}" for old, new in sorted(shape.actions.used.items()))
    rest = [one for one in paths_of(records[:100]) if one not in used]
    lines = [", ".join(parts) + (f" ({renamed})" if renamed else ""), f"times: {shape.times.reader().description}"]
    if len(events) < len(records):
        lines.append(f"{len(records) - len(events)} of the first {len(records)} records are no events")
    if rest:
        lines.append(f"not used: {', '.join(rest[:_SHOWN])}{', …' if len(rest) > _SHOWN else ''}")
    return "; ".join(lines)


__all__ = ["FIRST_RECORDS", "check_mapping", "decode_records", "describe", "leads_to_values"]
