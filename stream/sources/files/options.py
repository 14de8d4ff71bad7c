"""What a user says about a file of events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from stream.mapping.actions import ActionNames, parse_actions
from stream.mapping.columns import LINE_ORDER, EventField, parse_columns
from stream.mapping.config import EventsConfig
from stream.mapping.shape import FIELDS, RecordShape, resolve_shape
from stream.mapping.time_forms import TimeOptions, parse_time_format, parse_time_origin
from stream.sources.files.containers import check_encoding


@dataclass(frozen=True)
class ReadOptions:
    """Columns, actions, times and encoding as far as they are given; the rest is found in the file.

    Attributes
    ----------
    columns
        Column of each field: a name, a path, or a number from 1.
    preset
        Columns that a preset names, with alternatives; those in `columns` come first.
    shape
        Takes the events out of JSON objects; None: columns and the names that are known do.
    actions
        Translates the file's actions.
    skipped
        Actions whose records are none of events.
    times
        Form and origin of the times.
    encoding
        Of text; empty for UTF-8, or what the byte order mark says.
    """

    columns: Mapping[EventField, str] = field(default_factory=dict)
    preset: Mapping[EventField, str] = field(default_factory=dict)
    shape: RecordShape | None = None
    actions: ActionNames = field(default_factory=ActionNames)
    skipped: frozenset[str] = frozenset()
    times: TimeOptions = TimeOptions()
    encoding: str = ""

    @property
    def action(self) -> str:
        """The action of all records, where one is given as a constant; empty otherwise."""
        text = self.columns.get("action", self.preset.get("action", ""))
        return text[1:] if text.startswith("=") else ""


DEFAULT_OPTIONS: Final = ReadOptions()


def parse_options(
    known_actions: Sequence[str],
    columns: str = "",
    actions: str = "",
    time_format: str = "",
    time_origin: str = "",
    encoding: str = "",
    preset: str = "",
    events: EventsConfig = EventsConfig(),  # noqa: B008  # immutable
) -> ReadOptions:
    """Read the options of the command line, empty where not given, over what the section `[events]` says.

    Raises
    ------
    SourceError, ConfigError
        One of them cannot be understood.
    """
    given = parse_columns(columns)
    changes: dict[str, str] = {str(name): text for name, text in given.items() if text != LINE_ORDER}
    for name, text in (("preset", preset), ("time_format", time_format), ("time_origin", time_origin)):
        changes |= {name: text} if text else {}
    if time_format:
        parse_time_format(time_format)
    if time_origin:
        parse_time_origin(time_origin)
    renamed = parse_actions(actions)
    ActionNames(known_actions, renamed)  # refuses names that are not known in the words of the option
    merged = msgspec.structs.replace(events, **changes, actions=events.actions | renamed)
    shape = resolve_shape(merged, known_actions)
    if given.get("ts") == LINE_ORDER:
        shape.texts.pop("ts", None)
        shape.extractor.paths.pop("ts", None)
    explicit = {name: text for name in FIELDS if (text := getattr(merged, name))}
    if given.get("ts") == LINE_ORDER:
        explicit["ts"] = LINE_ORDER
    return ReadOptions(
        explicit,
        {name: text for name, text in shape.texts.items() if name not in explicit} if merged.preset else {},
        shape if _needs_shape(merged, explicit) else None,
        shape.actions,
        shape.skipped_actions,
        shape.times,
        check_encoding(encoding) if encoding else "",
    )


def _needs_shape(events: EventsConfig, columns: Mapping[EventField, str]) -> bool:
    """Whether more is said than names and plain paths."""
    paths = [text for text in columns.values() if not text.isdigit()]
    return bool(events.preset or events.items or events.where) or any(
        "|" in text or text.startswith("=") or "[" in text.replace("[]", "") for text in paths
    )


__all__ = ["DEFAULT_OPTIONS", "ReadOptions", "parse_options"]
