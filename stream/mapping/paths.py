"""Where a record has a field: dotted paths into nested objects and lists, with alternatives.

`payload.after.id` is a member of a member; `products[].sku` the members of a list, one event each;
`params[key=item].value` the member of a list whose `key` is `item`; `userId|anonymousId` the first that is there;
`=purchase` a constant. Names in double quotes may hold dots.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from stream.errors import ConfigError

ALL: Final = "[]"
_STEP: Final = re.compile(
    r'(?:"(?P<quoted>[^"]+)"|(?P<name>[^."\[\]|]+))(?P<list>\[\]|\[(?P<key>[^=\]]+)=(?P<wanted>[^\]]*)\])?'
)
_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError, binascii.Error)
_MAX_DEPTH: Final = 8  # of names that a message lists


@dataclass(frozen=True, slots=True)
class Step:
    """One name of a path.

    Attributes
    ----------
    name
        Member of the object.
    each
        It is a list, of which every member is meant.
    key, wanted
        It is a list, of which the member is meant that has `wanted` at `key`; empty otherwise.
    """

    name: str
    each: bool = False
    key: str = ""
    wanted: str = ""

    def __str__(self) -> str:
        name = f'"{self.name}"' if re.search(r"[.\[\]|]", self.name) else self.name
        return name + (ALL if self.each else f"[{self.key}={self.wanted}]" if self.key else "")


@dataclass(frozen=True, slots=True)
class Place:
    """One alternative of a path: steps from the record on, or a constant."""

    steps: tuple[Step, ...] = ()
    constant: str | None = None

    def __str__(self) -> str:
        return f"={self.constant}" if self.constant is not None else ".".join(map(str, self.steps))

    @property
    def lists(self) -> int:
        """How many of its steps are lists of which every member is meant."""
        return sum(step.each for step in self.steps)

    def below(self, root: Place) -> Place:
        """The same steps behind those of `root`."""
        return self if self.constant is not None else Place(root.steps + self.steps)


Path = tuple[Place, ...]  # the first place that holds something counts


def parse_path(text: str) -> Path:
    """Read a path.

    Raises
    ------
    ConfigError
        It is none.

    >>> [str(place) for place in parse_path("properties.products[].sku | =none")]
    ['properties.products[].sku', '=none']
    """
    places = []
    for part in (piece.strip() for piece in text.split("|")):
        if part.startswith("="):
            places.append(Place(constant=part[1:]))
            continue
        steps, position = [], 0
        while found := _STEP.match(part, position):
            name = found["quoted"] or found["name"].strip()
            steps.append(Step(name, found["list"] == ALL, found["key"] or "", found["wanted"] or ""))
            position = found.end()
            if not part.startswith(".", position):
                break
            position += 1
        if not steps or position != len(part):
            raise ConfigError(f"{text!r} is no path: expected names with dots between them, such as payload.user.id")
        places.append(Place(tuple(steps)))
    return tuple(places)


def values_at(record: Any, place: Place) -> list[tuple[tuple[int, ...], Any]] | None:
    """The values at a place, each with its position in the lists on the way; None where a name on the way is absent.

    >>> values_at({"lines": [{"sku": 7}, {"sku": 8}]}, parse_path("lines[].sku")[0])
    [((0,), 7), ((1,), 8)]
    """
    if place.constant is not None:
        return [((), place.constant)]
    found: list[tuple[tuple[int, ...], Any]] = [((), record)]
    in_list = False
    for step in place.steps:
        members = [(position, _member(value, step)) for position, value in found]
        if not step.each:
            found = members
            absent = all(member is None for _, member in members)
        else:
            lists = [
                (position, listed) for position, one in members if isinstance(listed := _opened(one), list | tuple)
            ]
            found = [((*position, number), one) for position, listed in lists for number, one in enumerate(listed)]
            absent = not lists
        if absent and not in_list:
            return None
        in_list = in_list or step.each
    return found


def value_at(record: Any, path: Path) -> Any:
    """The first value that there is at a path, None without any."""
    for place in path:
        for _, value in values_at(record, place) or ():
            if value is not None:
                return value
    return None


def _member(value: Any, step: Step) -> Any:
    if not isinstance(value, Mapping):
        value = _opened(value)
    member = value.get(step.name) if isinstance(value, Mapping) else None
    if not step.key:
        return member
    listed = _opened(member)
    if isinstance(listed, list):
        return next((one for one in listed if isinstance(one, Mapping) and str(one.get(step.key)) == step.wanted), None)
    return None


def _opened(value: Any) -> Any:
    """What a text holds that is JSON, or base64 of JSON; anything else as it is."""
    if isinstance(value, str) and value:
        try:
            inner = msgspec.json.decode(value if value[0] in "{[" else b64decode(value, validate=True))
        except _UNREADABLE:
            return value
        return inner if isinstance(inner, dict | list) else value
    return value


def paths_of(records: Sequence[Any]) -> list[str]:
    """Every path that leads to a value in one of some records, in order of appearance."""
    found: dict[str, None] = {}

    def walk(value: Any, before: tuple[Step, ...], depth: int) -> Iterator[str]:
        value = _opened(value)
        if isinstance(value, Mapping) and depth < _MAX_DEPTH:
            for name, member in value.items():
                yield from walk(member, (*before, Step(str(name))), depth + 1)
        elif isinstance(value, list) and value and before and depth < _MAX_DEPTH:
            last = Step(before[-1].name, each=True)
            for member in value[:5]:
                yield from walk(member, (*before[:-1], last), depth + 1)
        elif before and value is not None:
            yield str(Place(before))

    for record in records:
        found |= dict.fromkeys(walk(record, (), 0))
    return list(found)


__all__ = ["Path", "Place", "Step", "parse_path", "paths_of", "value_at", "values_at"]
