"""Configuration of the item statistics and of the ranker that mixes them with the network."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class ItemStatisticsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Counts per item and their half-lives."""

    popularity: Annotated[
        tuple[Annotated[float, Meta(ge=1)], ...],
        Meta(min_length=1, max_length=8, description="ascending half-lives of popularity; events of the stream"),
    ] = (100.0, 500.0, 3000.0, 20_000.0)
    neighbors: Annotated[
        tuple[Annotated[float, Meta(ge=1)], Annotated[float, Meta(ge=1)]],
        Meta(description="short and long half-life of an item's follower counts; followers of that item"),
    ] = (50.0, 1000.0)
    slots: Annotated[int, Meta(ge=1, le=4096, description="followers, and as many predecessors, per item; count")] = 64
    update_window: Annotated[
        int, Meta(ge=1, le=50, description="newest items of a history that count an event as follower; count")
    ] = 3
    candidate_window: Annotated[
        int, Meta(ge=1, le=50, description="newest items of a history whose neighbors are candidates; count")
    ] = 10
    share: Annotated[
        float, Meta(ge=0, lt=1, description="share of an item's counts below which a neighbor is ignored; fraction")
    ] = 0.01

    def __post_init__(self) -> None:
        if list(self.popularity) != sorted(set(self.popularity)):
            raise ValueError(f"popularity = {list(self.popularity)}: the half-lives must rise")
        if self.neighbors[0] > self.neighbors[1]:
            raise ValueError(f"neighbors = {list(self.neighbors)}: the short half-life must not be above the long one")


class MixConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How item statistics and network become one score."""

    parts: Annotated[
        Literal["both", "item_statistics", "network"],
        Meta(description="parts of the score; one alone is for comparison"),
    ] = "both"
    learning_rate: Annotated[
        float,
        Meta(ge=0, le=1, description="learning rate of the two-layer part; Adam, 0 = stays at zero"),
    ] = 3e-3
    linear_learning_rate: Annotated[float, Meta(ge=0, le=1, description="learning rate of the linear part; Adam")] = (
        0.01
    )
    hidden: Annotated[int, Meta(ge=1, le=1024, description="size of the two-layer part; numbers")] = 32
    chunk: Annotated[
        int, Meta(ge=1, le=256, description="events between two updates of item statistics and mixing weights; count")
    ] = 64
    popular: Annotated[
        int, Meta(ge=1, le=100_000, description="number of popular items among the candidates; count")
    ] = 24
    network: Annotated[
        int, Meta(ge=0, le=100_000, description="number of the network's best items among the candidates; count")
    ] = 16
    smoothing: Annotated[
        float, Meta(gt=0, le=1e6, description="popularity pseudo-count of an item's followers; followers")
    ] = 10.0
    trust_events: Annotated[
        float,
        Meta(gt=0, le=1e6, description="events of an item at which its network score has half its weight; events"),
    ] = 20.0
    network_start: Annotated[float, Meta(ge=0, le=10, description="first linear weight of the network; factor")] = 0.1


__all__ = ["ItemStatisticsConfig", "MixConfig"]
