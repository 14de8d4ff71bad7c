"""The shape of records: what the section `[events]` says, with what its preset says where it does not."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from stream.errors import ConfigError
from stream.mapping.actions import ActionNames
from stream.mapping.columns import EventField
from stream.mapping.config import EventsConfig
from stream.mapping.extract import FieldExtractor
from stream.mapping.paths import Path, parse_path
from stream.mapping.presets import find_preset
from stream.mapping.time_forms import TimeOptions
from stream.schema.events import ERASE

FIELDS: Final[tuple[EventField, ...]] = get_args(EventField)


@dataclass(frozen=True)
class RecordShape:
    """How the records of a topic become events.

    Attributes
    ----------
    texts
        Path of each field as it was given, or our own name.
    extractor
        Takes the fields out of a record.
    times
        What is known of the times.
    actions
        Translates the actions.
    skipped_actions
        Actions whose records are skipped, as the records name them.
    lenient
        Whether a record without an item, and with an action that is not known, is skipped.
    """

    texts: dict[EventField, str]
    extractor: FieldExtractor
    times: TimeOptions
    actions: ActionNames
    skipped_actions: frozenset[str]
    lenient: bool

    def is_skipped(self, action: Any, *, has_item: bool) -> bool:
        """Whether a record with this action is none of events."""
        if isinstance(action, str | int) and str(action) in self.skipped_actions:
            return True
        return self.lenient and not has_item and not self.actions.is_known(action)

    def __str__(self) -> str:
        parts = [f"{field} = {text}" for field, text in self.texts.items()]
        return ", ".join(parts)


def resolve_shape(events: EventsConfig, known: Sequence[str]) -> RecordShape:
    """Put the section and its preset together; `known` are the names of the actions.

    Raises
    ------
    ConfigError
        There is no such preset, a path is none, two fields have one path, or an action or a time is not understood.
    """
    preset = find_preset(events.preset) if events.preset else None
    texts: dict[EventField, str] = {}
    for field in FIELDS:
        own = "" if field == "value" else field  # a value decides nothing: it is read where it is named
        if text := getattr(events, field) or (getattr(preset, field) if preset else own):
            texts[field] = text
    refuse_doubles(texts, "events.")
    roots = preset.roots if preset else ()
    paths = {field: _behind(parse_path(text), events.items, roots) for field, text in texts.items()}
    wanted = dict(preset.where if preset and not events.where else {}) | events.where
    where = {parse_path(path): frozenset(value.split("|")) for path, value in wanted.items()}
    given = dict(preset.actions if preset else {}) | events.actions
    _refuse_unknown_actions(events.actions, known)
    translated = {old: new for old, new in given.items() if new}
    if preset is not None:  # translations of a preset are for the default configuration's names
        translated = {old: new for old, new in translated.items() if new in known or old in events.actions}
    times = TimeOptions.of(
        events.time_format or (preset.time_format if preset else ""),
        events.time_origin or (preset.time_origin if preset else ""),
        events.time_zone,
        "events.",
    )
    return RecordShape(
        texts,
        FieldExtractor(paths, where),
        times,
        ActionNames(known, translated),
        frozenset(old for old, new in given.items() if not new),
        preset.stream if preset else False,
    )


def refuse_doubles(texts: Mapping[EventField, str], prefix: str) -> None:
    """Raise `ConfigError` when two fields have one path."""
    fields: dict[str, EventField] = {}
    for field, text in texts.items():
        if not text.startswith("=") and text in fields:
            raise ConfigError(
                f"{prefix}{field} = {text!r}: {prefix}{fields[text]} has this path too; each needs one of its own"
            )
        fields[text] = field


def _refuse_unknown_actions(given: Mapping[str, str], known: Sequence[str]) -> None:
    for old, new in given.items():
        if new and new not in (*known, ERASE):
            near = difflib.get_close_matches(new, [*known, ERASE], 1, 0.5)
            hint = f"the nearest is {near[0]}" if near else f"expected one of {', '.join([*known, ERASE])}"
            raise ConfigError(f'events.actions: "{old}" = "{new}": no action of `actions.weights`; {hint}')


def _behind(path: Path, items: str, roots: Sequence[str]) -> Path:
    """The places of a path in a member of the list of items, in the roots, and in the record, in this order."""
    bases = [parse_path(items + ("" if items.endswith("[]") else "[]"))] if items else []
    bases += [parse_path(root) for root in roots]
    places = [place.below(base[0]) for base in bases for place in path] + list(path)
    return tuple(dict.fromkeys(places))


__all__ = ["FIELDS", "RecordShape", "refuse_doubles", "resolve_shape"]
