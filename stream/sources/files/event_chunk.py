"""The records of a part of a file, as columns."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.schema.events import BehaviorEvent

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class EventChunk:
    """Records `start` to `start + len(chunk)` of a file: columns of those that were parsed, and the other ones.

    Attributes
    ----------
    start
        Number of the first record in the file, from 0.
    users, items, ts
        One entry per parsed record; `ts` (n,) in epoch milliseconds.
    index
        Place of each parsed record in the chunk, (n,).
    actions, event_values
        One entry per parsed record; None where no record of the chunk has any.
    unparsed
        Place and value of each record that could not be parsed; the decoder refuses it and says why.
    unknown_fields
        Row and JSON members (`,"name":null}`) of each parsed record with further fields, for the decoder to count.
    lines
        The file's bytes of every record; None where the file has no lines.
    dropped_values
        Rows whose optional number was something else, and is left out.
    """

    start: int
    users: list[str]
    items: list[str]
    ts: NDArray[np.int64]  # epoch milliseconds
    index: NDArray[np.int64]
    actions: list[str | None] | None = None
    event_values: list[float | None] | None = None
    unparsed: list[tuple[int, bytes]] = field(default_factory=list)
    unknown_fields: list[tuple[int, bytes]] = field(default_factory=list)
    lines: list[bytes] | None = None
    dropped_values: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.users) + len(self.unparsed)

    @cached_property
    def keys(self) -> list[bytes | None]:
        """The user of each record; None for one that could not be parsed."""
        return self._in_place([user.encode() for user in self.users], [])

    @cached_property
    def values(self) -> list[bytes]:
        """Each record in the form of the event topic."""
        rows = zip(self.users, self.items, self.ts.tolist(), strict=True)
        if self.actions is None and self.event_values is None:
            made = [_encode(BehaviorEvent(user=user, item=item, ts=ts)) for user, item, ts in rows]
        else:
            none = [None] * len(self.users)
            more = zip(rows, self.actions or none, self.event_values or none, strict=True)
            made = [
                _encode(BehaviorEvent(user=user, item=item, ts=ts, action=action, value=value))
                for (user, item, ts), action, value in more
            ]
        for row, members in self.unknown_fields:
            made[row] = made[row][:-1] + members
        return self._in_place(made, self.unparsed)

    @property
    def originals(self) -> list[bytes]:
        """Each record as the file has it; as `values` where the file has no lines."""
        return self.values if self.lines is None else self.lines

    def with_action(self, action: str) -> EventChunk:
        """The same records, each with this action."""
        return replace(self, actions=[action] * len(self.users))

    def without(self, skipped: Collection[str]) -> EventChunk:
        """The records without those that have one of these actions, as the file names them."""
        if self.actions is None or not skipped or not any([action in skipped for action in self.actions]):
            return self
        rows = [row for row, action in enumerate(self.actions) if action not in skipped]
        gone = self.index[[row for row, action in enumerate(self.actions) if action in skipped]]
        places = np.delete(np.arange(len(self)), gone)  # that stay
        new_row, new_place = {row: n for n, row in enumerate(rows)}, {p: n for n, p in enumerate(places.tolist())}
        return EventChunk(
            self.start,
            [self.users[row] for row in rows],
            [self.items[row] for row in rows],
            self.ts[rows],
            np.array([new_place[place] for place in self.index[rows].tolist()], dtype=np.int64),
            [self.actions[row] for row in rows],
            [self.event_values[row] for row in rows] if self.event_values is not None else None,
            [(new_place[place], value) for place, value in self.unparsed],
            [(new_row[row], members) for row, members in self.unknown_fields if row in new_row],
            [self.lines[place] for place in places.tolist()] if self.lines is not None else None,
            [new_row[row] for row in self.dropped_values if row in new_row],
        )

    def head(self, n: int) -> EventChunk:
        """Return the first `n` records."""
        rows = int(np.searchsorted(self.index, n))
        return EventChunk(
            self.start,
            self.users[:rows],
            self.items[:rows],
            self.ts[:rows],
            self.index[:rows],
            self.actions[:rows] if self.actions is not None else None,
            self.event_values[:rows] if self.event_values is not None else None,
            [(place, value) for place, value in self.unparsed if place < n],
            [(row, members) for row, members in self.unknown_fields if row < rows],
            self.lines[:n] if self.lines is not None else None,
            [row for row in self.dropped_values if row < rows],
        )

    def _in_place(self, rows: list[Any], others: Sequence[tuple[int, bytes]]) -> list[Any]:
        if not self.unparsed:
            return rows
        whole: list[Any] = [None] * len(self)
        for place, row in zip(self.index.tolist(), rows, strict=True):
            whole[place] = row
        for place, value in others:
            whole[place] = value
        return whole


__all__ = ["EventChunk"]
