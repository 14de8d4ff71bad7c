"""Two rankings of the same events: by how much one leads the other, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class PairedDifference:
    """Decayed mean difference of paired figures and its standard error.

    Parameters
    ----------
    half_life
        Pairs after which a difference counts half.

    Examples
    --------
    >>> paired = PairedDifference(half_life=1000.0)
    >>> paired.add(np.array([0.5, 0.4, 0.6, 0.5]))
    >>> paired.lead(least=4) > 5, paired.lead(least=8)
    (True, 0.0)
    """

    def __init__(self, half_life: float) -> None:
        self._half_life = half_life
        self.weight = 0.0
        """pairs, decayed"""
        self._total = 0.0
        self._squares = 0.0  # sum of squared differences
        self._spread = 0.0  # sum of squared weights

    def add(self, difference: NDArray[np.float64]) -> None:
        """Add differences (n,), which count alike."""
        decay = 0.5 ** (len(difference) / self._half_life)
        self.weight = self.weight * decay + len(difference)
        self._total = self._total * decay + float(difference.sum())
        self._squares = self._squares * decay + float((difference**2).sum())
        self._spread = self._spread * decay * decay + len(difference)

    def lead(self, least: int) -> float:
        """Mean difference in standard errors; 0 while it is of fewer than `least` pairs."""
        if self.weight < least:
            return 0.0
        mean = self._total / self.weight
        variance = max(self._squares / self.weight - mean * mean, 0.0)
        error = math.sqrt(variance * self._spread) / self.weight
        return mean / max(error, 1e-9)

    def to_list(self) -> list[float]:
        """The figures, JSON-able, exact."""
        return [self.weight, self._total, self._squares, self._spread]

    def load_list(self, figures: Sequence[float]) -> None:
        """Continue from what `to_list` gave."""
        self.weight, self._total, self._squares, self._spread = figures


__all__ = ["PairedDifference"]
