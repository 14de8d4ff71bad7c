"""Which of a step's events are followed by a test for a shift, and which tests can be made at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_TESTS: Final = 8  # newest events of a user in a step, each of which is followed by a test


class ShiftTests:
    """The n tests of a step, one after each of the newest events of every user; those furthest back come first.

    Parameters
    ----------
    most
        Most tests of one user.
    events
        (U,) events of each user in the step, at least 1.
    all_events
        (U,) events of each user ever, these included.
    settle_events
        First events of a user, during which the intent settles: the user moves without a shift.
    """

    def __init__(self, most: int, events: NDArray[np.int64], all_events: NDArray[np.int64], settle_events: int) -> None:
        self.depth = max(1, min(most, int(events.max(initial=0))))
        """most tests of one user in this step"""
        each = np.minimum(events, self.depth)
        back = range(self.depth - 1, -1, -1)
        later = [np.full(int((events > behind).sum()), behind) for behind in back]
        self.later = np.concatenate(later).astype(np.int64)
        """(n,) events of the user in this step that come after the test"""
        self.users = np.concatenate([np.flatnonzero(events > behind) for behind in back]).astype(np.int64)
        """(n,) the user"""
        self.so_far = events[self.users] - self.later
        """(n,) events of the user in this step up to the test"""
        first = self.later == each[self.users] - 1
        self.new = np.where(first, self.so_far, 1)
        """(n,) events since the test before"""
        self.settling = all_events[self.users] - self.later <= settle_events
        """(n,) whether the user's intent still settles"""

    def after(self, test: int, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tests of these users that come after number `test`, but those in which the intent settles."""
        if not len(users):
            return users
        wanted = np.zeros(int(self.users.max()) + 1, dtype=bool)
        wanted[users] = True
        return test + 1 + np.flatnonzero(wanted[self.users[test + 1 :]] & ~self.settling[test + 1 :])

    def rounds(self) -> Iterator[NDArray[np.int64]]:
        """Numbers, rising, of the tests that can be made at once: one per user."""
        starts = np.flatnonzero(np.diff(self.later, prepend=-1))
        yield from (rows for rows in np.split(np.arange(len(self.later)), starts) if len(rows))


__all__ = ["MAX_TESTS", "ShiftTests"]
