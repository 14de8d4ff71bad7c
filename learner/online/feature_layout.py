"""Where each feature of a candidate stands among the inputs of the ranker."""

from __future__ import annotations

from typing import Final

import numpy as np

from learner.online.config import ItemStatisticsConfig
from learner.online.item_statistics import DIRECTIONS

GROUP_OF: Final = np.array([0, 1, 1, 2])  # anchors are told apart as: the newest, the two before it, the others
GROUPS: Final = 3
LENGTHS: Final = np.array([1, 2, 3, 5, 9, 20])  # history lengths at which a user counts as another kind
_ITEM_FIGURES: Final = 3  # events so far, events since the item came, events since it was taken last
_NETWORK_FIGURES: Final = 3
_USER_FIGURES: Final = 3  # time since the newest item, followers known of it at either half-life


class FeatureLayout:
    """Offsets of the features, in the order in which they stand.

    Of a candidate: its popularity per half-life; item figures; its gain over popularity as a neighbor, and its count as
    one, per half-life, direction and group of anchors; three figures of the network. Then those of the user.
    """

    def __init__(self, item_statistics: ItemStatisticsConfig) -> None:
        self.popularity = slice(0, len(item_statistics.popularity))
        self.reference = max(0, len(item_statistics.popularity) - 2)
        """popularity that neighbors' counts are compared with"""
        self.item = slice(0, self.popularity.stop + _ITEM_FIGURES)
        """all that does not depend on the user, popularity included"""
        self.channels = DIRECTIONS * GROUPS
        """features of neighbors per half-life"""
        self.gains = self.item.stop
        """first gain; those of the long half-life follow those of the short one"""
        self.counts = self.gains + 2 * self.channels
        """first count, likewise"""
        self.network = self.counts + 2 * self.channels
        """log-probability, weighted by trust"""
        self.network_gain = self.network + 1
        """the same over popularity"""
        self.network_plain = self.network + 2
        """log-probability"""
        self.candidate = self.network + _NETWORK_FIGURES
        """features of a candidate; those of its user follow"""
        self.of_user = len(LENGTHS) + _USER_FIGURES
        self.size = self.candidate + self.of_user

    @property
    def newest_follower_gains(self) -> list[int]:
        """Gain as a follower of the newest item, at the short and the long half-life."""
        return [self.gains, self.gains + self.channels]

    @property
    def next_follower_gain(self) -> int:
        """Gain as a follower of the two items before the newest, at the short half-life."""
        return self.gains + 1


__all__ = ["FeatureLayout", "GROUPS", "GROUP_OF", "LENGTHS"]
