"""Sequences of a data file, and the leave-one-out protocol's view of them."""

from __future__ import annotations

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

HELD_OUT: dict[Split, int] = {"train": 2, "validation": 2, "test": 1}  # items at the end that the model may not see


@dataclass(frozen=True)
class Sequences:
    """Users' items in time order, one after another in a flat array.

    items: (E,) item numbers from 1; offsets: (users + 1,) where each user starts; users: their names in file order;
    left_out: users with under three items, which the protocol cannot split, left out and counted.
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
        """The newest `length` items that `split` may see, right-aligned, 0 = empty: (len(index), length)."""
        end = self.offsets[index + 1] - HELD_OUT[split]
        place = end[:, None] + np.arange(-length, 0)  # (n, length)
        held = place >= self.offsets[index][:, None]
        return np.where(held, self.items[np.maximum(place, 0)], 0)

    def answers(self, split: Split, index: Ints) -> Ints:
        """The item to be found after `histories(split, index)`, (len(index),)."""
        if split == "train":
            raise ValueError("the training part has targets at every position, not one answer per user")
        return self.items[self.offsets[index + 1] - HELD_OUT[split]]

    def seen(self, split: Split, index: Ints) -> tuple[Ints, Ints]:
        """All items before the answer, not only the newest: (row into index (s,), item (s,)), for exclusion."""
        count = self.lengths[index] - HELD_OUT[split]
        row = np.repeat(np.arange(len(index)), count)
        within = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        return row, self.items[self.offsets[index][row] + within]

    def by_length(self, split: Split, max_len: int) -> Iterator[tuple[int, Ints]]:
        """(length, users (n,)) groups whose visible histories, capped at max_len, have that length, longest first."""
        length = np.minimum(self.lengths - HELD_OUT[split], max_len)
        order = np.argsort(-length, kind="stable")
        cuts = np.flatnonzero(np.diff(length[order])) + 1
        for group in np.split(order, cuts):
            yield int(length[group[0]]), group


def read_sequences(path: Path) -> Sequences:
    """Read lines `user item item …`, items numbered from 1, in time order.

    Raises
    ------
    DataError
        no such file, an empty line, a word that is not a number, an item below 1, a user twice; it names the line
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    users: list[str] = []
    parts: list[Ints] = []
    left_out = 0
    seen: set[str] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words:
            raise DataError(f"{path}, line {number}: empty; expected `user item item ...`")
        user = words[0].decode("utf-8", errors="replace")
        try:
            items = np.array(words[1:], dtype=np.bytes_).astype(np.int64) if len(words) > 1 else np.zeros(0, np.int64)
        except (ValueError, OverflowError):
            raise DataError(f"{path}, line {number}: user {user!r} has an item that is not a whole number") from None
        if len(items) and items.min() < 1:
            raise DataError(f"{path}, line {number}: user {user!r} has item {items.min()}; items are numbered from 1")
        if len(items) and items.max() > MAX_ITEM:
            raise DataError(f"{path}, line {number}: user {user!r} has item {items.max()}, above {MAX_ITEM}")
        if user in seen:
            raise DataError(f"{path}, line {number}: user {user!r} was on an earlier line; expected one line per user")
        seen.add(user)
        if len(items) < 3:
            left_out += 1
            continue
        users.append(user)
        parts.append(items)
    if not users:
        raise DataError(f"{path}: no user with 3 items or more ({left_out} with fewer); nothing to train or test on")
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    return Sequences(np.concatenate(parts), offsets, tuple(users), left_out)


MAX_ITEM = 10_000_000  # a larger number is a raw identifier, not a numbering, and would make a table of that size
