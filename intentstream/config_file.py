"""A TOML file as a tree of frozen msgspec structs: read it with precise errors, write it with every key explained.

Knows nothing of the settings themselves: range, meaning and default of a key come from the struct's own annotations.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from stream.errors import ConfigError

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Key:
    """One setting: dotted name, default, what it may be, what it means."""

    name: str
    default: Any
    rule: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Section:
    """One table of the file: dotted name ("" at the top), what it is about, its own keys."""

    name: str
    about: str
    keys: list[Key]


def sections(default: msgspec.Struct, name: str = "") -> Iterator[Section]:
    """Yield the struct's own keys, then its sub-sections, depth first, in the order in which they are declared.

    Parameters
    ----------
    default
        An instance that holds the defaults; a section may have others inside a parent than alone.
    """
    kind = type(default)
    prefix = f"{name}." if name else ""
    own, nested = [], []
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    for field in info.fields:
        value = getattr(default, field.name)
        if isinstance(value, msgspec.Struct):
            nested.append((prefix + field.encode_name, value))
        else:
            own.append(Key(prefix + field.encode_name, value, _rule(field.type), meaning(field.type)))
    yield Section(name, (kind.__doc__ or "").strip().splitlines()[0], own)
    for sub, value in nested:
        yield from sections(value, sub)


def parse(text: str, file: str, default: T) -> T:
    """Lay the file's values over the defaults.

    Raises
    ------
    ConfigError
        Not TOML, an unknown key, a wrong value: one line with file, key, value, rule, and the nearest valid key.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{file}: not valid TOML: {exc}") from None
    known = {key.name: key for section in sections(default) for key in section.keys}
    tables = {section.name for section in sections(default)}
    _refuse_unknown(raw, "", file, known, tables)
    merged = _overlay(msgspec.to_builtins(default), raw, "", known)
    try:
        return msgspec.convert(merged, type(default))
    except msgspec.ValidationError as exc:
        raise ConfigError(f"{file}: {_explain(str(exc), merged, known)}") from None


def render(default: msgspec.Struct) -> str:
    """Write the file that says what holds without a file: every key with meaning, range and default."""
    lines: list[str] = []
    for section in sections(default):
        if section.name:
            lines += ["", f"# {section.about}", f"[{section.name}]"]
        else:
            lines += [f"# {section.about}"]
        tables = []
        for key in section.keys:
            comment = f"# {key.meaning} ({key.rule})"
            if isinstance(key.default, Mapping):
                tables += ["", comment, f"[{key.name}]"]
                tables += [f"{_bare(name)} = {_literal(value)}" for name, value in key.default.items()]
            elif key.default is None:
                lines += [comment, f"# {_last(key.name)} ="]
            else:
                lines += [comment, f"{_last(key.name)} = {_literal(key.default)}"]
        lines += tables
    return "\n".join(lines) + "\n"


def reference(default: msgspec.Struct) -> str:
    """Write the same as Markdown tables, one per section."""
    lines: list[str] = []
    for section in sections(default):
        if not section.keys:
            continue
        lines += [f"## `[{section.name}]`", "", section.about, ""]
        lines += ["| key | default | may be | meaning; unit |", "|---|---|---|---|"]
        for key in section.keys:
            value = "–" if key.default is None else f"`{_literal(key.default)}`"
            cells = (f"`{_last(key.name)}`", value, key.rule, key.meaning)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _refuse_unknown(raw: Mapping[str, Any], prefix: str, file: str, known: Mapping[str, Key], tables: set[str]) -> None:
    for name, value in raw.items():
        full = prefix + name
        if full in tables:
            if not isinstance(value, dict):
                raise ConfigError(f"{file}: {full} = {_shown(value)}: is a section, write its keys below [{full}]")
            _refuse_unknown(value, full + ".", file, known, tables)
        elif full not in known:
            raise ConfigError(f"{file}: {full} = {_shown(value)}: no such key; {_nearest(full, prefix, known, tables)}")


def _nearest(name: str, prefix: str, known: Mapping[str, Key], tables: set[str]) -> str:
    valid = [*known, *sorted(tables - {""})]
    here = [key for key in valid if key.startswith(prefix) and "." not in key[len(prefix) :]]
    close = difflib.get_close_matches(_last(name), [_last(key) for key in here], 1, 0.6)
    nearest = (
        [prefix + close[0]] if close else [key for key in valid if _last(key) == _last(name)]
    )  # in another section
    if nearest:
        return f"the nearest valid one is {nearest[0]}"
    return f"valid {'here' if prefix else 'sections'}: {', '.join(_last(key) for key in here)}"


def _overlay(base: dict[str, Any], raw: Mapping[str, Any], prefix: str, known: Mapping[str, Key]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in raw.items():
        section = prefix + name not in known
        merged[name] = _overlay(merged[name], value, f"{prefix}{name}.", known) if section else value
    return merged


_PATH = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")


def _explain(message: str, raw: Any, known: Mapping[str, Key]) -> str:
    """Turn msgspec's message into ours: key = value: what is wrong, what it may be."""
    found = _PATH.search(message)
    place = found.group(1) if found else ""
    what = message[: found.start()] if found else message
    name = re.split(r"\[", place, maxsplit=1)[0]
    key = known.get(name)
    if key is None:  # a relation between keys, checked by the section itself, which names them
        return f"{place}: {what}" if place else what
    value = raw
    for part in name.split("."):
        value = value[part]
    return f"{name} = {_shown(value)}: {what[0].lower()}{what[1:]}; it is {key.meaning} ({key.rule})"


def meaning(kind: inspect.Type) -> str:
    """Return the description of an annotated type; "" when there is none."""
    if isinstance(kind, inspect.Metadata):
        return str((kind.extra_json_schema or {}).get("description", ""))
    return ""


def _rule(kind: inspect.Type) -> str:
    """Say in words what a value of this type may be."""
    match kind:
        case inspect.Metadata():
            return _rule(kind.type)
        case inspect.IntType() | inspect.FloatType():
            return _range("an integer" if isinstance(kind, inspect.IntType) else "a number", kind)
        case inspect.BoolType():
            return "true or false"
        case inspect.LiteralType():
            return "one of " + ", ".join(f'"{value}"' for value in sorted(kind.values, key=str))
        case inspect.StrType():
            return "text" if kind.pattern is None else f"text that matches {kind.pattern}"
        case inspect.UnionType():
            return (
                " or ".join(_rule(one) for one in kind.types if not isinstance(one, inspect.NoneType)) + ", or left out"
            )
        case inspect.DictType():
            return f"a table, each value {_rule(kind.value_type)}"
        case inspect.VarTupleType() | inspect.ListType():
            low, high = kind.min_length or 0, kind.max_length
            size = f"{low} or more" if high is None else f"{low} to {high}"
            return f"a list of {size}, each {_rule(kind.item_type)}"
        case inspect.TupleType():
            return f"a list of {len(kind.item_types)}: " + ", ".join(_rule(one) for one in kind.item_types)
    return type(kind).__name__.removesuffix("Type").lower()


def _range(noun: str, kind: inspect.IntType | inspect.FloatType) -> str:
    if kind.ge is not None and kind.le is not None:
        return f"{noun} from {_number(kind.ge)} to {_number(kind.le)}"
    parts = []
    if kind.ge is not None:
        parts.append(f"at least {_number(kind.ge)}")
    if kind.gt is not None:
        parts.append(f"above {_number(kind.gt)}")
    if kind.le is not None:
        parts.append(f"at most {_number(kind.le)}")
    if kind.lt is not None:
        parts.append(f"below {_number(kind.lt)}")
    return f"{noun} {' and '.join(parts)}".strip()


def _number(value: float) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _literal(value: Any) -> str:
    """Write the value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:_}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(one) for one in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_bare(key)} = {_literal(one)}" for key, one in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def _bare(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _shown(value: Any) -> str:
    text = _literal(value) if not isinstance(value, dict) else "{…}"
    return text if len(text) <= 80 else text[:79] + "…"


__all__ = ["Key", "Section", "meaning", "parse", "reference", "render", "sections"]
