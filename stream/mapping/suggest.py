"""A section `[events]` to start from, guessed from the first records."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from stream.errors import SourceError
from stream.mapping.actions import ActionNames
from stream.mapping.check import leads_to_values
from stream.mapping.columns import COLUMN_NAMES, EventField
from stream.mapping.config import EventsConfig
from stream.mapping.ids import id_text
from stream.mapping.paths import parse_path, paths_of, value_at, values_at
from stream.mapping.presets import PRESETS
from stream.mapping.shape import FIELDS, RecordShape, resolve_shape
from stream.mapping.time_forms import find_times
from stream.mapping.times import AnyTimes, TextTimes

_NEEDED: Final[tuple[EventField, ...]] = ("user", "item", "ts")
_SHOWN: Final = 8
_SHARE: Final = 0.5  # of the records that a preset must take


@dataclass(slots=True)
class Suggestion:
    """Keys of the section with their values, comments by key, and comments on the whole."""

    keys: dict[str, str] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    actions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"# {note}" for note in self.notes] + ["[events]"]
        for name, value in self.keys.items():
            comment = f"  # {self.comments[name]}" if name in self.comments else ""
            lines.append(f"{name} = {_quoted(value)}{comment}")
        lines += [f'# {name} = ""  # {text}' for name, text in self.comments.items() if name not in self.keys]
        if self.actions:
            lines += ["", "# [events.actions]  # names that are not known, and what they mean"]
            lines += [f'# {_quoted(name)} = "{new}"' for name, new in self.actions.items()]
        return "\n".join(lines) + "\n"


def suggest(
    records: Sequence[Any], known_actions: Sequence[str], keys: Sequence[bytes | None] = (), topic: str = ""
) -> Suggestion:
    """Guess the section from decoded records.

    Parameters
    ----------
    known_actions
        Names of the configuration.
    keys
        Keys of the records, where they come from a topic.
    topic
        Its name; empty for a file.

    Examples
    --------
    >>> print(suggest([{"who": {"id": 7}, "sku": "a", "at": 1571000000}], ["view"]))
    [events]
    user = "who.id"
    item = "sku"
    ts = "at"  # seconds
    <BLANKLINE>
    """
    found = Suggestion(keys={"topic": topic} if topic else {})
    preset = _best_preset(records, known_actions)
    if preset:
        found.keys["preset"] = preset
        found.notes.append(f"{PRESETS[preset].about}; keys beside the preset take precedence over it")
        shape = resolve_shape(EventsConfig(preset=preset), known_actions)
    else:
        _guess_fields(records, known_actions, found)
        paths: dict[str, Any] = {str(name): found.keys[name] for name in FIELDS if name in found.keys}
        shape = resolve_shape(EventsConfig(**paths), known_actions)
    _name_actions(shape, records, found)
    _judge_keys(shape, records, keys, found)
    return found


def suggest_columns(columns: Mapping[EventField, str], unused: Sequence[str], unit: str) -> Suggestion:
    """The section for a table whose columns were found."""
    found = Suggestion(keys={str(name): column for name, column in columns.items()})
    if "ts" in found.keys:
        found.comments["ts"] = unit
    else:
        found.notes.append("no times: replay with --columns ts=none takes the order of the rows")
    if unused:
        found.notes.append(f"not used: {', '.join(unused[:_SHOWN])}{', …' if len(unused) > _SHOWN else ''}")
    return found


def _best_preset(records: Sequence[Any], known: Sequence[str]) -> str:
    """The format of a tool that takes most of the records, empty when none takes half of those that may be events."""
    best, best_share = "", 0.0
    for name, preset in PRESETS.items():
        if not preset.stream:
            continue
        shape = resolve_shape(EventsConfig(preset=name), known)
        if not shape.extractor.where and not _has_marks(shape, records):
            continue
        share = _share_taken(shape, records)
        if share > best_share:
            best, best_share = name, share
    return best if best_share >= _SHARE else ""


def _has_marks(shape: RecordShape, records: Sequence[Any]) -> bool:
    """Whether a record has an item where only this format has one: two names deep, or with a name of its own."""
    places = [place for place in shape.extractor.paths["item"] if len(place.steps) > 1]
    return any(leads_to_values(place, records) for place in places)


def _share_taken(shape: RecordShape, records: Sequence[Any]) -> float:
    times, good, asked = shape.times.reader(), 0, 0
    for record in records:
        if not shape.extractor.is_event(record):
            continue
        for event in shape.extractor.events(record):
            if shape.is_skipped(event.get("action"), has_item="item" in event):
                continue
            asked += 1
            try:
                good += bool(id_text(event.get("user")) and id_text(event.get("item")) and times.read(event.get("ts")))
            except (ValueError, TypeError, OverflowError):
                continue
    return good / asked if asked and good * 5 >= len(records) else 0.0


def _guess_fields(records: Sequence[Any], known: Sequence[str], found: Suggestion) -> None:
    paths = paths_of(records)
    taken: set[str] = set()
    for name in FIELDS:
        candidates = [one for one in _candidates(name, paths) if one not in taken and _fits(name, one, records, known)]
        if not candidates:
            if name in _NEEDED:
                rest = [one for one in paths if one not in taken]
                found.comments[name] = f"not found among {', '.join(rest[:_SHOWN])}"
            continue
        best = max(candidates, key=lambda one: (_share(one, records) > _SHARE, -candidates.index(one)))
        found.keys[name] = best
        taken.add(best)
        others = [one for one in candidates if one != best]
        if name == "ts":
            _say_times(best, records, found)
        elif others and name in _NEEDED:
            found.comments[name] = f"or {', '.join(others[:3])}"


def _candidates(name: EventField, paths: Sequence[str]) -> list[str]:
    """Paths whose last names are known for the field, the better known and the less deep first."""
    names, subjects = COLUMN_NAMES[name], (*COLUMN_NAMES[name], *_SUBJECTS.get(name, ()))
    ranked = list[tuple[int, int, str]]()
    for path in paths:
        parts = [_snake(part.removesuffix("[]")) for part in path.split(".")]
        last, before = parts[-1], parts[-2] if len(parts) > 1 else ""
        if last in names:
            ranked.append((names.index(last), len(parts), path))
        elif f"{before}_{last}" in names or (last in _IDS and before in subjects):
            ranked.append((len(names), len(parts), path))
    return [path for _, _, path in sorted(ranked)]


_IDS: Final = ("id", "key", "code", "sku")  # names of an id inside of what it is the id of
_SUBJECTS: Final[dict[str, tuple[str, ...]]] = {
    "user": ("who", "actor", "buyer", "visitor", "shopper", "person", "profile"),
    "item": ("what", "object", "article", "track", "movie", "video", "song", "content", "line"),
    "ts": ("at",),
}


def _snake(name: str) -> str:
    return re.sub(r"[\s-]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip('"').strip())).lower()


def _fits(name: EventField, path: str, records: Sequence[Any], known: Sequence[str]) -> bool:
    """Whether most of the values at a path may be the field's."""
    values = _values(path, records)
    if name == "action":
        return ActionNames(known).are_actions([one for one in values if isinstance(one, str)])
    good = 0
    for value in values:
        try:
            good += bool(float(value) if name == "value" else _reads(name, value))
        except (ValueError, TypeError, OverflowError):
            good += isinstance(value, str) and name == "ts"
    return good * 2 > len(values)


def _reads(name: EventField, value: Any) -> bool:
    return AnyTimes().read(value) > 0 if name == "ts" else bool(id_text(value))


def _values(path: str, records: Sequence[Any]) -> list[Any]:
    place = parse_path(path)[0]
    return [value for one in records for _, value in values_at(one, place) or () if value is not None]


def _share(path: str, records: Sequence[Any]) -> float:
    place = parse_path(path)
    return sum(value_at(one, place) is not None for one in records) / max(1, len(records))


def _say_times(path: str, records: Sequence[Any], found: Suggestion) -> None:
    values = _values(path, records)
    try:
        times = find_times(values, path, Path(found.keys.get("topic", "records")))
    except SourceError as exc:
        found.comments["ts"] = str(exc).partition(": ")[2]
        return
    found.comments["ts"] = times.description
    if isinstance(times, TextTimes) and times.description.startswith("the form "):
        found.keys["time_format"] = times.description.removeprefix("the form ")


def _name_actions(shape: RecordShape, records: Sequence[Any], found: Suggestion) -> None:
    """Name the actions that are not known, most frequent first."""
    events = [event for one in records if shape.extractor.is_event(one) for event in shape.extractor.events(one)]
    named = [one["action"] for one in events if isinstance(one.get("action"), str | int) and "item" in one]
    names = Counter(map(str, named))
    unknown = [n for n, _ in names.most_common() if not shape.actions.is_known(n) and n not in shape.skipped_actions]
    found.actions = dict.fromkeys(unknown[:_SHOWN], "")


def _judge_keys(shape: RecordShape, records: Sequence[Any], keys: Sequence[bytes | None], found: Suggestion) -> None:
    """Say `key = "ignore"` where the keys of the records are not their users."""
    pairs = [(key, record) for key, record in zip(keys, records, strict=False) if key is not None]
    other = 0
    for key, record in pairs:
        users = {event.get("user") for event in shape.extractor.events(record)}
        other += key.decode("utf-8", "replace") not in {str(user) for user in users}
    if other:
        found.keys["key"] = "ignore"
        found.comments["key"] = f"{other} of {len(pairs)} records have another key than their user"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


__all__ = ["Suggestion", "suggest", "suggest_columns"]
