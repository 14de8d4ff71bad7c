"""The learner's own weights of a while ago: they serve when the learner has gone bad, and it can go back to them.

What is counted (the item statistics) cannot go bad in this way and is shared; what gradients learn (the network, and
the weights that mix it with the statistics) is copied together, because the one was learned for the other.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learner.online.network import Network, Weights, strip_prefix
from learner.online.ranker import Ranker

PREFIX: Final = "snapshot."


class ModelSnapshot:
    """A copy of network and ranker, bounded by the size of both.

    An item that was admitted after the copy has a vector of zeros: the network scores it alike for everybody, and the
    item statistics decide.

    Parameters
    ----------
    network, ranker
        Copied; of the table `size` rows, row 0 included.
    """

    def __init__(self, network: Network, ranker: Ranker, size: int) -> None:
        self.weights: Weights = network.copy()
        self.ranker = copy.deepcopy(ranker)
        self.steps = network.steps
        self._known: NDArray[np.bool_] = np.arange(network.rows) < size

    def admit(self, rows: NDArray[np.int64], room: int) -> None:
        """Forget rows (m,), which belong to new items now; the learner has room for `room` rows."""
        more = room - self.weights.rows
        if more > 0:
            table = self.weights.table
            self.weights.table = torch.cat([table, torch.zeros(more, table.shape[1])])
            self._known = np.concatenate([self._known, np.zeros(more, dtype=bool)])
        self.weights.table[torch.from_numpy(rows)] = 0
        self._known[rows] = False

    def known(self, size: int) -> NDArray[np.bool_]:
        """(size,) which rows it has vectors for; row 0 counts as one."""
        return self._known[:size]

    def copy_of_ranker(self) -> Ranker:
        """A copy of the ranker, for a learner that goes back."""
        return copy.deepcopy(self.ranker)

    def to_tensors(self, size: int) -> dict[str, Tensor]:
        """The weights, for rows 0 to size - 1, as `load_tensors` takes them."""
        own = {"steps": torch.tensor(self.steps), "known": torch.from_numpy(self._known[:size])}
        return {f"{PREFIX}{name}": value for name, value in (self.weights.to_tensors(size) | own).items()}

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The ranker, as arrays."""
        return self.ranker.to_arrays()

    def load(self, tensors: Mapping[str, Tensor], arrays: dict[str, NDArray[Any]]) -> None:
        """Continue from what `to_tensors` and `to_arrays` gave; the rows behind are unknown."""
        mine = strip_prefix(PREFIX, tensors)
        self.weights.table.zero_()
        self.weights.load_tensors(mine)
        self._known[:] = False
        self._known[: len(mine["known"])] = mine["known"].numpy()
        self.steps = int(mine["steps"])
        self.ranker.load_arrays(arrays)


__all__ = ["ModelSnapshot", "PREFIX"]
