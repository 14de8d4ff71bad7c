"""Configuration of the intents: their identity, which centers are one, what counts as a shift."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class IdentityConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When an intent is dead, and what is kept to place its successor."""

    half_life_events: Annotated[
        float, Meta(ge=100, le=1e9, description="memory of the intents' shares; users looked at")
    ] = 20_000.0
    check_events: Annotated[
        int, Meta(ge=1, le=10**9, description="events from one look for dead intents to the next; events")
    ] = 5000
    dead_share: Annotated[
        float, Meta(ge=0, lt=1, description="an intent is dead below this share of an even share; fraction")
    ] = 0.02
    youth_events: Annotated[int, Meta(ge=0, le=10**9, description="age below which an intent does not die; events")] = (
        20_000
    )
    crowded_cosine: Annotated[
        float, Meta(gt=0, le=1, description="action reseed: of two intents closer than this one is dead; cosine")
    ] = 0.9
    far_distance: Annotated[
        float,
        Meta(
            ge=0,
            le=4,
            description="squared distance to the nearest center from which on a user is badly served; number",
        ),
    ] = 1.0
    pool: Annotated[int, Meta(ge=1, le=100_000, description="newest badly served users kept; users")] = 512
    near_cosine: Annotated[
        float, Meta(ge=0, le=1, description="badly served users closer than this want the same; cosine")
    ] = 0.7
    least_users: Annotated[
        int, Meta(ge=1, le=10_000, description="an intent is born only among so many who want the same; users")
    ] = 8


class MergeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When two centers are one intent. Measured by `benchmarks/intents.py`; see docs/intents.md."""

    similarity: Annotated[
        float,
        Meta(
            gt=0, le=1.1, description="likeness of what follows from which on two centers are one; above 1 none; cosine"
        ),
    ] = 0.7
    slack: Annotated[
        float, Meta(ge=0, le=1, description="what merged centers may lose of it before they part again; cosine")
    ] = 0.15
    stay: Annotated[
        float,
        Meta(ge=0, le=1, description="centers are one only where so many users stay in them, beyond chance; fraction"),
    ] = 0.5
    every_events: Annotated[int, Meta(ge=1, le=10**9, description="events from one look to the next; events")] = 1024
    half_life_events: Annotated[float, Meta(ge=100, le=1e9, description="memory of the transitions; transitions")] = (
        20_000.0
    )


class ChangePointConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What counts as evidence of an intent. Measured by `benchmarks/intents.py`; see docs/intents.md."""

    memory: Annotated[int, Meta(ge=1, le=1000, description="newest items of a history that are looked at; items")] = 30
    window: Annotated[int, Meta(ge=1, le=1000, description="a change began at most so long ago; the user's events")] = 5
    loyalty: Annotated[float, Meta(gt=0, lt=1, description="items that users take from their intent; fraction")] = 0.87
    anything: Annotated[
        float, Meta(ge=1e-6, lt=1, description="items that users take from any intent at all; fraction")
    ] = 0.03
    prior_events: Annotated[
        float, Meta(ge=1e-6, le=1e6, description="events as which `loyalty` counts in a user's own mixture; events")
    ] = 4.0
    earlier_events: Annotated[
        float,
        Meta(
            ge=0,
            le=1e6,
            description="items from before the held intent count as at most so many events in that mixture; events",
        ),
    ] = 3.0
    earlier_odds: Annotated[
        float,
        Meta(
            ge=0,
            le=1e6,
            description="what users take now and then is of what they held before, against another intent; odds",
        ),
    ] = 3.0
    mixed_odds: Annotated[
        float,
        Meta(
            gt=0, le=1e6, description="users take a mixture of their own, against one other intent now and then; odds"
        ),
    ] = 0.3
    erratic_share: Annotated[float, Meta(gt=0, lt=1, description="users who take anything at all times; fraction")] = (
        0.01
    )
    sharpness: Annotated[
        float,
        Meta(ge=1, le=10, description="an item's shares of the intents are raised to this power; exponent"),
    ] = 1.5
    change_share: Annotated[
        float, Meta(ge=1e-9, lt=1, description="chance of a change at an event, before any evidence; probability")
    ] = 0.01
    half_life: Annotated[
        float, Meta(gt=0, le=1000, description="memory of where users stand without a held intent; items")
    ] = 3.0

    def __post_init__(self) -> None:
        if self.loyalty + self.anything >= 1:
            raise ValueError(
                f"loyalty = {self.loyalty} and anything = {self.anything}: must be below 1 together: "
                "the rest is what users take now and then"
            )


class ShiftConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a user's intent counts as shifted. Defaults measured by `benchmarks/intents.py`; see docs/intents.md."""

    margin: Annotated[
        float,
        Meta(
            ge=0,
            le=100,
            description="lead of a new intent over the held one below which it is not looked at; log-odds",
        ),
    ] = 1.75
    sure_margin: Annotated[float, Meta(ge=0, le=100, description="lead from which on one look is enough; log-odds")] = (
        8.0
    )
    persistence: Annotated[
        int, Meta(ge=1, le=1000, description="otherwise: events in a row that the new intent must lead; events")
    ] = 1
    hold_events: Annotated[
        int,
        Meta(ge=1, le=1000, description="a shift held if no other follows within so many events of the change; events"),
    ] = 10
    settle_events: Annotated[
        int,
        Meta(ge=0, le=1000, description="a user's first events, in which the intent is still looked for; events"),
    ] = 8
    half_life: Annotated[
        float, Meta(ge=10, le=1e9, description="memory of the calibration of the confidence; shifts whose end is known")
    ] = 5000.0
    evidence: Annotated[int, Meta(ge=0, le=20, description="items named that moved the user; items")] = 3
    evidence_window: Annotated[
        int, Meta(ge=1, le=1000, description="newest items of the history among which they are looked for; items")
    ] = 10
    publish_model_shifts: Annotated[
        bool, Meta(description="publish shifts that the model caused as well; they are counted in any case")
    ] = False

    def __post_init__(self) -> None:
        if self.sure_margin < self.margin:
            raise ValueError(
                f"sure_margin = {self.sure_margin}: must not be below margin = {self.margin}: "
                "one look cannot need less than several"
            )


__all__ = ["ChangePointConfig", "IdentityConfig", "MergeConfig", "ShiftConfig"]
