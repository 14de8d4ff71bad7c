"""Sequences of a data file, and their splits by the leave-one-out protocol."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from learner.errors import DataError

Split = Literal["train", "validation", "test"]
Ints = npt.NDArray[np.int64]

HELD_OUT: dict[Split, int] = {"train": 2, "validation": 2, "test": 1}  # newest items hidden from the model


@dataclass(frozen=True)
class Sequences:
    """Users' items in time order, one after another in a flat array.

    items: (E,) item numbers from 1; offsets: (users + 1,) where each user starts; users: their names in file order;
    left_out: number of users with fewer than three items, which the protocol cannot split.
    """

    items: Ints
    offsets: Ints
    users: tuple[str, ...]
    left_out: int

    def __len__(self) -> int:
        return len(self.users)

    @cached_property
    def item_count(self) -> int:
        """Number of items N; the largest item number."""
        return int(self.items.max())

    @cached_property
    def lengths(self) -> Ints:
        """Items per user, (users,)."""
        return np.diff(self.offsets)

    def histories(self, split: Split, index: Ints, length: int) -> Ints:
        """The newest `length` visible items of a split, right-aligned, 0 = empty: (len(index), length)."""
        end = self.offsets[index + 1] - HELD_OUT[split]
        place = end[:, None] + np.arange(-length, 0)  # (n, length)
        held = place >= self.offsets[index][:, None]
        return np.where(held, self.items[np.maximum(place, 0)], 0)

    def answers(self, split: Split, index: Ints) -> Ints:
        """The item that follows `histories(split, index)`, (len(index),)."""
        if split == "train":
            raise ValueError("the training part has targets at every position, not one answer per user")
        return self.items[self.offsets[index + 1] - HELD_OUT[split]]

    def seen(self, split: Split, index: Ints) -> tuple[Ints, Ints]:
        """All items before the answer, not only the newest: (row into index (s,), item (s,)), for exclusion."""
        count = self.lengths[index] - HELD_OUT[split]
        row = np.repeat(np.arange(len(index)), count)
        within = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        return row, self.items[self.offsets[index][row] + within]

    def training_items(self) -> Ints:
        """All items that may be trained on, user after user: without each user's last two."""
        keep = np.ones(len(self.items), dtype=bool)
        keep[self.offsets[1:] - 1] = keep[self.offsets[1:] - 2] = False
        return self.items[keep]

    def by_length(self, split: Split, max_len: int) -> Iterator[tuple[int, Ints]]:
        """(length, users (n,)) groups whose visible histories, capped at max_len, have that length, longest first."""
        length = np.minimum(self.lengths - HELD_OUT[split], max_len)
        order = np.argsort(-length, kind="stable")
        bounds = np.flatnonzero(np.diff(length[order])) + 1
        for group in np.split(order, bounds):
            yield int(length[group[0]]), group


def read_sequences(path: Path) -> Sequences:
    """Read lines `user item item …`, items numbered from 1, in time order.

    Raises
    ------
    DataError
        a missing file, an empty line, an item that is not a whole number from 1 to `MAX_ITEM`, or a user twice; the
        message names the line
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    users: list[str] = []
    parts: list[Ints] = []
    left_out = 0
    seen: set[bytes] = set()
    for number, line in enumerate(text.removeprefix(codecs.BOM_UTF8).splitlines(), start=1):
        words = line.split()
        if not words:
            raise DataError(f"{path}, line {number}: empty; expected `user item item ...`")
        user = _shown(words[0])
        odd = next((word for word in words[1:] if not _WHOLE.fullmatch(word)), None)
        if odd is not None:
            raise DataError(f"{path}, line {number}: user {user!r} has item {_shown(odd)!r}, which is no whole number")
        items = [int(word) for word in words[1:]]
        if items and min(items) < 1:
            raise DataError(f"{path}, line {number}: user {user!r} has item {min(items)}; items are numbered from 1")
        if items and max(items) > MAX_ITEM:
            raise DataError(f"{path}, line {number}: user {user!r} has item {max(items)}, above {MAX_ITEM}")
        if words[0] in seen:  # as bytes: two different names that are not UTF-8 stay two
            raise DataError(f"{path}, line {number}: user {user!r} was on an earlier line; expected one line per user")
        seen.add(words[0])
        if len(items) < 3:
            left_out += 1
            continue
        users.append(words[0].decode("utf-8", errors="backslashreplace"))
        parts.append(np.array(items, dtype=np.int64))
    if not users:
        raise DataError(f"{path}: no user with 3 items or more ({left_out} with fewer); nothing to train or test on")
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    return Sequences(np.concatenate(parts), offsets, tuple(users), left_out)


def _shown(word: bytes) -> str:
    """A word of the file for a message, at most 40 characters."""
    text = word.decode("utf-8", errors="backslashreplace")
    return text if len(text) <= 40 else text[:37] + "..."


_WHOLE = re.compile(rb"-?[0-9]{1,30}")
MAX_ITEM = 10_000_000  # a larger number is an identifier, not a numbering, and would need a table of that size
