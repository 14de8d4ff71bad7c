"""Item-to-item counts of a fixed set of sequences, and their log-linear mix with the network's score.

Online, bounded rings per item hold these statistics (`learner/online/item_statistics.py`). Offline the whole of a
sequence counts and nothing fades: a sparse matrix, built once.
"""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from learner.errors import ModelFileError
from learner.offline.config import CountsConfig
from learner.offline.sequences import Sequences

Ints = npt.NDArray[np.int64]


class ItemCounts:
    """Which items follow which: a sparse (N + 1, N + 1) matrix by row, and the scores of histories by it.

    Parameters
    ----------
    config
        how pairs count
    items, offsets
        sequences one after another, and where each starts (users + 1,)
    item_count
        N; items are numbered from 1

    Examples
    --------
    >>> counts = ItemCounts(CountsConfig(), np.array([1, 2, 1, 2, 3]), np.array([0, 2, 5]), item_count=3)
    >>> counts.scores(np.array([[0, 1]])).argmax(axis=1)  # 2 follows 1 most often
    array([2])
    """

    def __init__(self, config: CountsConfig, items: Ints, offsets: Ints, item_count: int) -> None:
        self.config = config
        size = item_count + 1
        self.size = size
        lengths = np.diff(offsets)
        left = np.repeat(offsets[1:], lengths) - np.arange(len(items)) - 1  # items after each one in its sequence
        keys, weights = [], []
        for distance in range(1, min(config.window, int(lengths.max(initial=1)) - 1) + 1):
            first = np.flatnonzero(left >= distance)
            x, y = items[first], items[first + distance]
            weight = config.fade ** (distance - 1)
            keys += [x * size + y, y * size + x]
            weights += [np.full(len(x), weight), np.full(len(x), weight * config.backward)]
        key = np.concatenate(keys) if keys else np.zeros(0, np.int64)
        pairs, place = np.unique(key, return_inverse=True)
        total = np.bincount(place, np.concatenate(weights), len(pairs)) if len(pairs) else np.zeros(0)
        popularity = np.bincount(items, minlength=size).clip(min=1)
        row, column = pairs // size, pairs % size
        total /= (popularity[row] * popularity[column]) ** config.damping
        self._columns = column.astype(np.int32)
        self._values = total.astype(np.float32)
        self._ends = np.searchsorted(row, np.arange(size), side="right")  # (N + 1,) where each item's row ends

    def save(self, path: Path) -> None:
        """Write the matrix as plain arrays."""
        with path.open("wb") as file:
            np.savez(file, columns=self._columns, values=self._values, ends=self._ends)

    @classmethod
    def load(cls, path: Path, config: CountsConfig, item_count: int) -> ItemCounts:
        """Read what `save` wrote; nothing in the file is executed."""
        counts = cls(config, np.zeros(0, np.int64), np.zeros(1, np.int64), item_count)
        own = {"columns": counts._columns, "values": counts._values, "ends": counts._ends}
        try:
            with np.load(path, allow_pickle=False) as arrays:
                read = {name: arrays[name] for name in own}
        except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
            raise ModelFileError(f"{path}: not the counts of a fitted model: {error}") from None
        if read["ends"].size != item_count + 1:
            raise ModelFileError(f"{path}: counts of {read['ends'].size - 1} items, expected {item_count}")
        columns, values, ends = read.values()
        if not all(array.ndim == 1 and array.dtype == own[name].dtype for name, array in read.items()) or not (
            len(columns) == len(values) == ends[-1]
            and (np.diff(ends, prepend=0) >= 0).all()
            and ((columns >= 1) & (columns <= item_count)).all()
            and np.isfinite(values).all()
        ):
            raise ModelFileError(f"{path}: not the counts of a fitted model: a matrix of another form")
        counts._columns, counts._values, counts._ends = columns, values, ends
        return counts

    def scores(self, histories: Ints) -> npt.NDArray[np.float32]:
        """Share of each item in the counts after histories (B, L), right-aligned, 0 = empty: (B, N + 1)."""
        B, L = histories.shape
        place = np.arange(L, 0, -1.0) ** -self.config.recency  # (L,) newest 1
        user, position = np.nonzero(histories)
        item = histories[user, position]
        start = self._ends[item - 1]  # row 0 is empty, so item - 1 is never out of range
        count = self._ends[item] - start
        source = np.arange(count.sum()) + np.repeat(start - (np.cumsum(count) - count), count)
        key = np.repeat(user * self.size, count) + self._columns[source]
        weight = np.repeat(place[position], count) * self._values[source]
        dense = np.bincount(key, weight, minlength=B * self.size).reshape(B, self.size)
        total = dense.sum(axis=1, keepdims=True)
        return (dense / np.where(total > 0, total, 1)).astype(np.float32)


def count_items(config: CountsConfig | None, sequences: Sequences) -> ItemCounts | None:
    """Counts of the training part; None without a configuration."""
    if config is None:
        return None
    offsets = np.concatenate([[0], np.cumsum(sequences.lengths - 2)])
    return ItemCounts(config, sequences.training_items(), offsets, sequences.item_count)


def log_shares(shares: Tensor, floor: float) -> Tensor:
    """`log(p_counts + floor)` of shares (B, N): the counts in a mix."""
    return torch.log(shares + floor)


def mix(network: Tensor, counts: Tensor, weight: float) -> Tensor:
    """`weight * log p_network + log(p_counts + floor)`, (B, N).

    network, counts: (B, N) log-probabilities and `log_shares`. Choose the weight on pairs that neither was trained on.
    """
    return torch.add(counts, network, alpha=weight)
