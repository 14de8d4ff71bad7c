"""A TOML file as a tree of frozen msgspec structs: read it with precise errors, write it with every key explained.

It knows nothing of the settings themselves: range, meaning and default of a key come from the struct's annotations.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from stream.errors import ConfigError

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Key:
    """One setting: dotted name, default, what it may be, what it means, whether it is marked as internal."""

    name: str
    default: Any
    rule: str
    meaning: str
    internal: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """One table of the file: dotted name ("" at the top), what it is about, its own keys."""

    name: str
    about: str
    keys: list[Key]


def sections(default: msgspec.Struct, public: Container[str] | None = None, name: str = "") -> Iterator[Section]:
    """Yield the struct's own keys, then its sub-sections, depth first, in the order in which they are declared.

    Parameters
    ----------
    default
        An instance that holds the defaults; a section may have others inside a parent than alone.
    public
        Dotted names of the keys that are not internal; None: all.
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
            full = prefix + field.encode_name
            internal = public is not None and full not in public
            own.append(Key(full, value, _rule(field.type), meaning(field.type), internal))
    yield Section(name, (kind.__doc__ or "").strip().splitlines()[0], own)
    for sub, value in nested:
        yield from sections(value, public, sub)


def load(path: Path, default: T) -> T:
    """Read a file and lay its values over the defaults; JSON where the name ends in `.json`, TOML otherwise.

    Raises
    ------
    ConfigError
        The file cannot be read, or see `parse`.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read: {exc.strerror}") from None
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: not UTF-8 at byte {exc.start}") from None
    return parse(text, str(path), default)


def parse(text: str, file: str, default: T) -> T:
    """Lay the values of a file's text over the defaults.

    Raises
    ------
    ConfigError
        Neither TOML nor JSON, an unknown key, a wrong value: one line with file, key, value, rule, and the nearest
        valid key.
    """
    form = "JSON" if file.endswith(".json") else "TOML"
    try:
        raw = json.loads(text) if form == "JSON" else tomllib.loads(text)
    except ValueError as exc:
        raise ConfigError(f"{file}: not valid {form}: {exc}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{file}: holds a {type(raw).__name__}, expected settings by name")
    known = {key.name: key for section in sections(default) for key in section.keys}
    tables = {section.name for section in sections(default)}
    _refuse_unknown(raw, "", file, known, tables)
    merged = _overlay(msgspec.to_builtins(default), raw, "", known)
    try:
        return msgspec.convert(merged, type(default))
    except msgspec.ValidationError as exc:
        raise ConfigError(f"{file}: {_explain(str(exc), merged, known)}") from None


def render(default: msgspec.Struct, public: Container[str] | None = None, *, internal: bool = True) -> str:
    """Write the values as a file: every key with meaning, range and value.

    Parameters
    ----------
    public
        Dotted names of the keys that are not internal; None: all.
    internal
        Write the internal keys as well, each marked as such.
    """
    lines: list[str] = []
    for section in sections(default, public):
        keys = [key for key in section.keys if internal or not key.internal]
        if section.name and not keys:
            continue
        if section.name:
            lines += ["", f"# {section.about}", f"[{section.name}]"]
        else:
            lines += [f"# {section.about}"]
        tables = []
        for key in keys:
            comment = f"# {'internal: ' if key.internal else ''}{key.meaning} ({key.rule})"
            if isinstance(key.default, Mapping):
                tables += ["", comment, f"[{key.name}]"]
                tables += [f"{_bare(name)} = {_literal(value)}" for name, value in key.default.items()]
            elif key.default is None:
                lines += [comment, f"# {_last(key.name)} ="]
            else:
                lines += [comment, f"{_last(key.name)} = {_literal(key.default)}"]
        lines += tables
    return "\n".join(lines) + "\n"


def reference(default: msgspec.Struct, public: Container[str] | None = None, *, internal: bool = False) -> str:
    """Write the keys that are internal, or those that are not, as Markdown tables, one per section."""
    lines: list[str] = []
    for section in sections(default, public):
        keys = [key for key in section.keys if key.internal == internal]
        if not keys:
            continue
        if section.name:
            lines += [f"{'###' if internal else '##'} `[{section.name}]`{' (internal)' if internal else ''}", ""]
        lines += [section.about, "", "| key | default | may be | meaning; unit |", "|---|---|---|---|"]
        for key in keys:
            value = "–" if key.default is None else f"`{_literal(key.default)}`"
            cells = (f"`{_last(key.name)}`", value, key.rule, key.meaning)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _refuse_unknown(raw: Mapping[str, Any], prefix: str, file: str, known: Mapping[str, Key], tables: set[str]) -> None:
    for name, value in raw.items():
        full = prefix + name
        if full in tables:
            if value is None:  # JSON only: an optional section left out; where it is not optional, its type refuses it
                continue
            if not isinstance(value, dict):
                raise ConfigError(f"{file}: {full} = {_shown(value)}: is a section, write its keys below [{full}]")
            _refuse_unknown(value, full + ".", file, known, tables)
        elif full not in known:
            raise ConfigError(f"{file}: {full} = {_shown(value)}: no such key; {_nearest(full, prefix, known, tables)}")


def _nearest(name: str, prefix: str, known: Mapping[str, Key], tables: set[str]) -> str:
    valid = [*known, *sorted(tables - {""})]
    here = [key for key in valid if key.startswith(prefix) and "." not in key[len(prefix) :]]
    close = difflib.get_close_matches(_last(name), [_last(key) for key in here], 1, 0.7)
    nearest = (
        [prefix + close[0]] if close else [key for key in valid if _last(key) == _last(name)]
    )  # in another section
    if nearest:
        return f"the nearest valid one is {nearest[0]}"
    what = "sections" if set(here) <= tables else "here"
    return f"valid {what}: {', '.join(_last(key) for key in here)}"


def _overlay(base: dict[str, Any], raw: Mapping[str, Any], prefix: str, known: Mapping[str, Key]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in raw.items():
        section = prefix + name not in known and value is not None
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


__all__ = ["Key", "Section", "load", "meaning", "parse", "reference", "render", "sections"]
