"""Copies of arrays, in memory that is kept from one copy to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


class CopyBuffers:
    """Copies arrays that change, so that they can be written while they go on changing.

    Memory fresh from the system is cleared page by page as it is first touched: copying 200 MB into it takes more than
    twice as long as into memory that is there already. So it is kept, at the peak that each copy would reach anyway.

    Examples
    --------
    >>> buffers, array = CopyBuffers(), np.arange(3)
    >>> copies = buffers.copy({"a": array})
    >>> array[:] = 0
    >>> copies["a"].tolist()
    [0, 1, 2]
    """

    def __init__(self) -> None:
        self._kept: dict[str, NDArray[np.uint8]] = {}
        self.number = 0
        """of copies taken; one overwrites the one before"""

    def copy(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Copies of the arrays, good until the next call."""
        self.number += 1
        copies = {}
        self._kept = {name: self._kept[name] for name in arrays if name in self._kept}
        for name, array in arrays.items():
            kept = self._kept.get(name)
            if kept is None or kept.nbytes < array.nbytes:
                # what is never touched takes no memory, and tables grow by doubling
                kept = self._kept[name] = np.empty(2 * array.nbytes, dtype=np.uint8)
            copy = copies[name] = kept[: array.nbytes].view(array.dtype).reshape(array.shape)
            np.copyto(copy, array)
        return copies


__all__ = ["CopyBuffers"]
