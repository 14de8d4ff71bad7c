"""Configuration of the intents: their identity, which centers are one, what counts as a shift."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class IdentityConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When an intent is dead, and where its center is placed anew."""

    half_life_events: Annotated[float, Meta(ge=100, le=1e9, description="half-life of the intents' shares; users")] = (
        20_000.0
    )
    check_events: Annotated[int, Meta(ge=1, le=10**9, description="events between checks for dead intents; events")] = (
        5000
    )
    dead_share: Annotated[
        float, Meta(ge=0, lt=1, description="an intent is dead below this share of an even share; fraction")
    ] = 0.02
    youth_events: Annotated[int, Meta(ge=0, le=10**9, description="age below which an intent does not die; events")] = (
        20_000
    )
    crowded_cosine: Annotated[
        float,
        Meta(
            gt=0, le=1, description="action reseed: similarity above which the smaller of two intents is dead; cosine"
        ),
    ] = 0.9
    far_distance: Annotated[
        float,
        Meta(
            ge=0,
            le=4,
            description="squared distance to the nearest center at which a user is badly served; number",
        ),
    ] = 1.0
    pool: Annotated[int, Meta(ge=1, le=100_000, description="newest badly served users kept; users")] = 512
    near_cosine: Annotated[
        float, Meta(ge=0, le=1, description="similarity above which badly served users want the same; cosine")
    ] = 0.7
    least_users: Annotated[
        int, Meta(ge=1, le=10_000, description="fewest badly served users who want the same for a new intent; users")
    ] = 8


class MergeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When two centers are one intent. Measured by `benchmarks/intents.py`; see docs/intents.md."""

    similarity: Annotated[
        float,
        Meta(
            gt=0,
            le=1.1,
            description="minimum transition similarity for merging two centers; above 1 none merge; cosine",
        ),
    ] = 0.7
    slack: Annotated[float, Meta(ge=0, le=1, description="loss of similarity at which merged centers part; cosine")] = (
        0.15
    )
    stay: Annotated[
        float,
        Meta(ge=0, le=1, description="minimum share of users who stay in the merged centers, beyond chance; fraction"),
    ] = 0.5
    every_events: Annotated[int, Meta(ge=1, le=10**9, description="events between updates; events")] = 1024
    half_life_events: Annotated[
        float, Meta(ge=100, le=1e9, description="half-life of the transition counts; transitions")
    ] = 20_000.0


class ChangePointConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The change-point test for a shift of a user. Measured by `benchmarks/intents.py`; see docs/intents.md."""

    memory: Annotated[int, Meta(ge=1, le=1000, description="newest items of a history that the test reads; items")] = 30
    window: Annotated[int, Meta(ge=1, le=1000, description="farthest start of a change; the user's events")] = 5
    loyalty: Annotated[float, Meta(gt=0, lt=1, description="share of items from the held intent; fraction")] = 0.87
    anything: Annotated[float, Meta(ge=1e-6, lt=1, description="share of items from any intent; fraction")] = 0.03
    prior_events: Annotated[
        float, Meta(ge=1e-6, le=1e6, description="pseudo-count of `loyalty` in a user's mixture; events")
    ] = 4.0
    earlier_events: Annotated[
        float,
        Meta(
            ge=0,
            le=1e6,
            description="most events that items before the held intent count in that mixture; events",
        ),
    ] = 3.0
    earlier_odds: Annotated[
        float,
        Meta(
            ge=0,
            le=1e6,
            description="odds that other items come from an intent held before, against another one; odds",
        ),
    ] = 3.0
    mixed_odds: Annotated[
        float,
        Meta(gt=0, le=1e6, description="odds of the user's own mixture against one other intent; odds"),
    ] = 0.3
    erratic_share: Annotated[
        float, Meta(gt=0, lt=1, description="share of users who take items of any intent at all times; fraction")
    ] = 0.01
    sharpness: Annotated[
        float,
        Meta(ge=1, le=10, description="power applied to an item's shares of the intents; exponent"),
    ] = 1.5
    change_share: Annotated[
        float, Meta(ge=1e-9, lt=1, description="prior probability of a change at an event; probability")
    ] = 0.01
    half_life: Annotated[
        float, Meta(gt=0, le=1000, description="half-life of items in the intent of a user without a held one; items")
    ] = 3.0

    def __post_init__(self) -> None:
        if self.loyalty + self.anything >= 1:
            raise ValueError(
                f"loyalty = {self.loyalty} and anything = {self.anything}: must be below 1 together: "
                "the rest is what users take now and then"
            )


class ShiftConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a user has shifted to another intent. Defaults measured by `benchmarks/intents.py`; see docs/intents.md."""

    margin: Annotated[
        float,
        Meta(
            ge=0,
            le=100,
            description="minimum lead of a new intent over the held one; log-odds",
        ),
    ] = 1.75
    sure_margin: Annotated[float, Meta(ge=0, le=100, description="lead with which one event is enough; log-odds")] = 8.0
    persistence: Annotated[
        int,
        Meta(ge=1, le=1000, description="with a smaller lead: events in a row that the new intent must lead; events"),
    ] = 1
    hold_events: Annotated[
        int,
        Meta(ge=1, le=1000, description="events without another shift after which a shift held; events"),
    ] = 10
    settle_events: Annotated[
        int,
        Meta(ge=0, le=1000, description="a user's first events, in which the intent settles without shifts; events"),
    ] = 8
    half_life: Annotated[
        float,
        Meta(ge=10, le=1e9, description="half-life of the calibration of the confidence; shifts with a known outcome"),
    ] = 5000.0
    evidence: Annotated[int, Meta(ge=0, le=20, description="most items named as evidence; items")] = 3
    evidence_window: Annotated[
        int, Meta(ge=1, le=1000, description="newest items of the history that may be evidence; items")
    ] = 10
    publish_model_shifts: Annotated[
        bool, Meta(description="publish shifts that the model caused; they are counted in any case")
    ] = False

    def __post_init__(self) -> None:
        if self.sure_margin < self.margin:
            raise ValueError(
                f"sure_margin = {self.sure_margin}: must not be below margin = {self.margin}: "
                "one look cannot need less than several"
            )


__all__ = ["ChangePointConfig", "IdentityConfig", "MergeConfig", "ShiftConfig"]
