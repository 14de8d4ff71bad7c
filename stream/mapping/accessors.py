"""Compiled access to the fields of records: of typed JSON, and of dicts.

Paths with at most one list are compiled; others are left to `FieldExtractor`, which gives the same and is slower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final

import msgspec

from stream.mapping.columns import EventField
from stream.mapping.extract import FieldExtractor
from stream.mapping.paths import Path, Place, Step

Getter = Callable[[Any], Any]
Getters = list[tuple[bool, Getter]]  # the first that gives something counts; whether it starts in the list's member
FieldGetters = dict[EventField, Getters]
_LEAVES: Final[dict[str, Any]] = {
    "user": str | int | None,
    "item": str | int | None,
    "ts": int | float | str | None,
    "action": str | int | None,
    "value": int | float | str | None,
    "where": str | int | bool | None,
}


@dataclass(frozen=True, slots=True)
class Accessors:
    """How to take the fields out of one decoded record.

    Attributes
    ----------
    decode
        The record's bytes as an object, only with the members that are needed.
    where
        Getters of the values that a record must have, with the values allowed.
    members
        The list of which each member is an event; None without one.
    of_member, of_record
        Getters of each field for an event that is a member of the list, and for one that is the record itself.
    """

    decode: Callable[[bytes], Any]
    where: list[tuple[Getters, frozenset[str]]]
    members: Getter | None
    of_member: FieldGetters
    of_record: FieldGetters


@dataclass(slots=True)
class _Node:
    """One object, list or value on the way to the fields."""

    children: dict[str, _Node] = field(default_factory=dict)
    leaf: Any = None  # types of the value, where it is one
    is_list: bool = False


def compile_accessors(extractor: FieldExtractor, read: Callable[[bytes], Any] | None = None) -> Accessors | None:
    """Compile the paths of an extractor; None when they have more than one list, or none fits all of them.

    `read` makes objects of a record's bytes; None: they are JSON.
    """
    places = [place for path in (*extractor.paths.values(), *extractor.where) for place in path]
    lists = {_list_of(place) for place in places if place.lists}
    if any(place.lists > 1 for place in places) or len(lists) > 1:
        return None
    if lists and not _lists_come_first(extractor.paths["item"]):
        return None
    root = _Node()
    uses = [*extractor.paths.items(), *(("where", path) for path in extractor.where)]
    if not all(_add(root, place.steps, _LEAVES[use]) for use, path in uses for place in path):
        return None
    shared = next(iter(lists), None)
    kind = _struct(root)
    return Accessors(
        msgspec.json.Decoder(kind).decode if read is None else lambda value: msgspec.convert(read(value), kind),
        [([_pair(place) for place in path], wanted) for path, wanted in extractor.where.items()],
        _getter(shared) if shared is not None else None,
        {
            name: [_pair(place) for place in path if place.lists or name != "item"]
            for name, path in extractor.paths.items()
        },
        {name: [_pair(place) for place in path if not place.lists] for name, path in extractor.paths.items()},
    )


def _list_of(place: Place) -> tuple[Step, ...]:
    """The steps up to the list."""
    end = next(number for number, step in enumerate(place.steps) if step.each)
    return (*place.steps[:end], Step(place.steps[end].name))


def _lists_come_first(path: Path) -> bool:
    in_list = [place.lists > 0 for place in path]
    return in_list == sorted(in_list, reverse=True)


def _add(node: _Node, steps: Sequence[Step], leaf: Any) -> bool:
    """Add a place to the tree; False when it is a value in one place and an object or a list in another."""
    for step in steps:
        node = node.children.setdefault(step.name, _Node())
        is_list = step.each or bool(step.key)
        if node.leaf is not None or (node.children and node.is_list != is_list):
            return False
        node.is_list = is_list
        if step.key:
            node.children.setdefault(step.key, _Node(leaf=str | int | None))
    if steps:
        if node.children:
            return False
        node.leaf = leaf if node.leaf is None else node.leaf | leaf
    return True


def _attribute(name: str) -> str:
    """A name that a struct may have, one for each name of a member."""
    return "f_" + name.encode().hex()


def _struct(node: _Node) -> type[msgspec.Struct]:
    fields = []
    default: Any
    kind: Any
    for name, child in node.children.items():
        inner: Any = _struct(child) if child.children else child.leaf
        if child.is_list:
            default, kind = None, list[inner | None] | None
        elif child.children:
            default, kind = inner(), inner | None
        else:
            default, kind = None, inner
        fields.append((_attribute(name), kind, msgspec.field(name=name, default=default)))
    return msgspec.defstruct("Record", fields, kw_only=True, frozen=True, gc=False)


def _getter(steps: Sequence[Step]) -> Getter:
    """Return the getter along steps without a list of which each member counts; AttributeError at a null on the way."""
    for number, step in enumerate(steps):
        if step.key:
            return _chosen(_getter([*steps[:number], Step(step.name)]), step, _getter(steps[number + 1 :]))
    return attrgetter(".".join(_attribute(step.name) for step in steps)) if steps else _itself


def _itself(record: Any) -> Any:
    return record


def _chosen(members: Getter, step: Step, rest: Getter) -> Getter:
    key, wanted = attrgetter(_attribute(step.key)), step.wanted

    def get(record: Any) -> Any:
        for member in members(record) or ():
            if member is not None and str(key(member)) == wanted:
                return rest(member)
        return None

    return get


def _constant(value: str | None) -> Getter:
    return lambda record: value


def _pair(place: Place) -> tuple[bool, Getter]:
    if place.constant is not None:
        return False, _constant(place.constant)
    if not place.lists:
        return False, _getter(place.steps)
    end = next(number for number, step in enumerate(place.steps) if step.each)
    return True, _getter(place.steps[end + 1 :])


__all__ = ["Accessors", "FieldGetters", "Getter", "Getters", "compile_accessors"]
