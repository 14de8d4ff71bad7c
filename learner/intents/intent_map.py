"""A flat map of the centers that turns slowly, so that points keep their places while the centers move."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_PACE: Final = 0.2  # how far one turn goes towards the present principal axes


class IntentMap:
    """Two axes in d dimensions, onto which unit vectors are projected.

    Examples
    --------
    >>> intent_map = IntentMap(hidden=3)
    >>> intent_map.turn(np.eye(3, dtype=np.float32)[:2])
    >>> intent_map.positions(np.eye(3)).shape
    (3, 2)
    """

    def __init__(self, hidden: int) -> None:
        self.basis = np.zeros((hidden, 2))
        """(d, 2) the axes, orthonormal; zeros before the first turn"""

    def turn(self, centers: NDArray[np.float32]) -> None:
        """Turn the axes some way towards the present principal axes of the centers (K, d).

        The principal axes are first rotated to place the centers as the map does now (orthogonal Procrustes [1]), so
        that an axis that changes its sign or its order does not flip the map.

        [1] P. H. Schönemann, A generalized solution of the orthogonal Procrustes problem, Psychometrika 31, 1966.
        """
        points = np.asarray(centers, dtype=np.float64)
        # in C order, as a loaded state has them: products with a transposed view differ in the last bits
        axes = np.ascontiguousarray(np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][:2].T)  # (d, 2)
        if axes.shape[1] < 2:
            axes = np.pad(axes, ((0, 0), (0, 2 - axes.shape[1])))
        if not self.basis.any():
            self.basis = axes
            return
        left, _, right = np.linalg.svd((points @ axes).T @ (points @ self.basis))
        blended = (1 - _PACE) * self.basis + _PACE * (axes @ (left @ right))
        u, _, v = np.linalg.svd(blended, full_matrices=False)
        self.basis = u @ v  # the nearest orthonormal pair

    def positions(self, points: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Where unit vectors (m, d) lie on the map, (m, 2), -1 to 1."""
        return np.asarray(np.clip(points @ self.basis, -1, 1))


__all__ = ["IntentMap"]
