"""Records of the simulated shop, as arrays and in the form of the event topic."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream.sources.simulator.catalog import WORDS
from stream.sources.simulator.truth import Truth

ACTIONS: Final = ("view", "cart", "purchase", "dislike")
NORMAL, BOT, DUPLICATE, BAD = 0, 1, 2, 3

Ints = NDArray[np.int64]
COLUMNS: Final = ("users", "items", "words", "ts", "actions", "kinds", "intents")


@dataclass(frozen=True)
class Chunk:
    """Records in order of arrival, as arrays (n,); `keys` and `values` are made at the first access."""

    start: int  # position of the first record
    users: Ints  # numbers; the id is u<number>
    items: Ints  # numbers; the id is <word>-<number>
    words: Ints
    ts: Ints  # epoch milliseconds
    actions: NDArray[np.uint8]
    kinds: NDArray[np.uint8]  # NORMAL, BOT, DUPLICATE or BAD
    intents: Ints  # number of the user's main intent; -1 where the record is not NORMAL
    truth: list[Truth]

    def __len__(self) -> int:
        return len(self.users)

    @cached_property
    def keys(self) -> list[bytes]:
        """The user id of each record, also of a bad one."""
        return [b"u%d" % user for user in self.users.tolist()]

    @cached_property
    def item_ids(self) -> list[str]:
        """The item id of each record."""
        return [f"{WORDS[word]}-{item}" for word, item in zip(self.words.tolist(), self.items.tolist(), strict=True)]

    @cached_property
    def values(self) -> list[bytes]:
        """Each record in the form of the event topic."""
        names = [name.encode() for name in ACTIONS]
        words = [word.encode() for word in WORDS]
        columns = zip(
            self.users.tolist(),
            self.words.tolist(),
            self.items.tolist(),
            self.ts.tolist(),
            self.actions.tolist(),
            strict=True,
        )
        values = [
            b'{"user":"u%d","item":"%b-%d","ts":%d,"action":"%b"}' % (user, words[word], item, ts, names[action])
            for user, word, item, ts, action in columns
        ]
        for place in np.flatnonzero(self.kinds == BAD).tolist():
            values[place] = _spoil(values[place], self.start + place)
        return values


def _spoil(value: bytes, position: int) -> bytes:
    """Break a record in one of ten ways, chosen by its position."""
    event = json.loads(value)
    way = position % 10
    if way == 0:
        return value[: len(value) // 2]
    if way == 1:
        return value[:9] + b"\xff\xfe" + value[9:]
    if way == 2:
        return b""
    if way == 3:
        return b"[" + value + b"]"
    if way == 4:
        del event["item"]
    elif way == 5:
        event["ts"] //= 1000  # seconds
    elif way == 6:
        event["ts"] = str(event["ts"])
    elif way == 7:
        event["action"] = "teleport"
    elif way == 8:
        event["user"] += "-other"  # the key is another
    else:
        event["item"] = "x" * 300
    return json.dumps(event, separators=(",", ":")).encode()


def chunk_of_columns(start: int, columns: list[NDArray[Any]], truth: list[Truth]) -> Chunk:
    """Make a chunk of its columns in the order of `COLUMNS`."""
    users, items, words, ts, actions, kinds, intents = columns
    return Chunk(start, users, items, words, ts, actions, kinds, intents, truth)


def slice_chunk(chunk: Chunk, start: int, stop: int) -> Chunk:
    """Return records `start` to `stop` of a chunk, with the truth about them."""
    stop = min(stop, len(chunk))
    low, high = chunk.start + start, chunk.start + stop
    truth = [one for one in chunk.truth if low <= one.position < high]
    return chunk_of_columns(low, [getattr(chunk, name)[start:stop] for name in COLUMNS], truth)


def join_chunks(parts: list[Chunk], start: int) -> Chunk:
    """Put chunks behind each other; `start` is the position of the first record."""
    if not parts:
        none = np.zeros(0, dtype=np.int64)
        return Chunk(start, none, none, none, none, none.astype(np.uint8), none.astype(np.uint8), none, [])
    if len(parts) == 1:
        return parts[0]
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS]
    return chunk_of_columns(start, columns, [one for part in parts for one in part.truth])


__all__ = [
    "ACTIONS",
    "BAD",
    "BOT",
    "COLUMNS",
    "Chunk",
    "DUPLICATE",
    "NORMAL",
    "chunk_of_columns",
    "join_chunks",
    "slice_chunk",
]
