"""Users far from every center: the pool among which a dead center is placed anew."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learner.intents.config import IdentityConfig


class UnservedUsers:
    """The newest `pool` user vectors that lay farther than `far_distance` from their nearest center.

    Examples
    --------
    >>> unserved = UnservedUsers(IdentityConfig(pool=4, least_users=2), hidden=2)
    >>> unserved.add(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], dtype=np.float32))
    >>> unserved.pop_group().tolist(), unserved.filled
    ([1.0, 0.0], 1)
    """

    def __init__(self, config: IdentityConfig, hidden: int) -> None:
        self.config = config
        self.vectors: NDArray[np.float32] = np.zeros((config.pool, hidden), dtype=np.float32)
        """(pool, d) a ring of unit vectors"""
        self.filled = 0
        self.next = 0
        """place in the ring of the next vector"""

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Add unit vectors (m, d), over the oldest."""
        newest = vectors[-self.config.pool :]
        if len(newest):
            self.vectors[(self.next + np.arange(len(newest))) % self.config.pool] = newest
            self.filled = min(self.config.pool, self.filled + len(newest))
            self.next = (self.next + len(newest)) % self.config.pool

    def pop_group(self) -> NDArray[np.float32] | None:
        """Remove the largest group of similar users and return its mean direction, (d,).

        None where no group has `least_users`: nothing is removed.
        """
        pool = self.vectors[: self.filled]
        if not self.filled:
            return None
        near = pool @ pool.T > self.config.near_cosine
        members = near[int(near.sum(axis=1).argmax())]
        if int(members.sum()) < self.config.least_users:
            return None
        center = pool[members].sum(axis=0)
        rest = pool[~members]
        self.vectors[: len(rest)] = rest
        self.vectors[len(rest) :] = 0
        self.filled, self.next = len(rest), len(rest) % self.config.pool
        return np.asarray(center / np.linalg.norm(center), dtype=np.float32)


__all__ = ["UnservedUsers"]
