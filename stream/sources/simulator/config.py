"""Configuration of the simulated shop."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

DriftKind = Literal["shares", "new_intent", "lost_intent", "popularity", "concept_drift"]


class SimulatorConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The simulated shop."""

    intents: Annotated[int, Meta(ge=2, le=200, description="intents at the start; count")] = 12
    spare_intents: Annotated[int, Meta(ge=0, le=200, description="intents that may be added later; count")] = 6
    users: Annotated[int, Meta(ge=10, le=10_000_000, description="users at any one time, bots included; count")] = 5000
    bots: Annotated[int, Meta(ge=0, le=1000, description="users who take anything, often; count")] = 5
    items: Annotated[int, Meta(ge=20, le=10_000_000, description="items at any one time; count")] = 2000
    active: Annotated[int, Meta(ge=1, le=1_000_000, description="users in the shop at the same moment; count")] = 400
    session_events: Annotated[float, Meta(ge=1, le=1000, description="mean events of a visit; events")] = 6.0
    events_per_second: Annotated[
        float, Meta(gt=0, le=1e7, description="mean rate in event time; events per second")
    ] = 300.0
    start_ts: Annotated[
        int, Meta(ge=946_684_800_000, le=3_000_000_000_000, description="event time of the first event; epoch ms")
    ] = 1_767_225_600_000
    side_share: Annotated[float, Meta(ge=0, le=0.5, description="events that follow the side intent; fraction")] = 0.1
    transition: Annotated[float, Meta(ge=0, le=1, description="events that follow from the last item; fraction")] = 0.5
    noise: Annotated[float, Meta(ge=0, le=1, description="events on any item at all; fraction")] = 0.03
    skew: Annotated[float, Meta(ge=0, le=3, description="popularity within an intent is rank^-skew; exponent")] = 0.8
    switch_rate: Annotated[
        float, Meta(ge=0, le=1, description="chance that a user switches the main intent at an event; probability")
    ] = 0.01
    min_hold: Annotated[int, Meta(ge=0, le=10_000, description="events before a user may switch again; events")] = 10
    user_births: Annotated[
        float, Meta(ge=0, le=1000, description="users replaced by new ones; users per 1,000 events")
    ] = 2.0
    item_births: Annotated[
        float, Meta(ge=0, le=1000, description="items replaced by new ones; items per 1,000 events")
    ] = 0.5
    day_rhythm: Annotated[float, Meta(ge=0, lt=1, description="swing of the rate over a day; fraction of the mean")] = (
        0.6
    )
    week_rhythm: Annotated[
        float, Meta(ge=0, lt=1, description="swing of the rate over a week; fraction of the mean")
    ] = 0.2
    intent_rhythm: Annotated[
        float, Meta(ge=0, lt=1, description="swing of each intent's share over a day; fraction of the mean")
    ] = 0.3
    bot_share: Annotated[float, Meta(ge=0, le=0.5, description="events made by bots; fraction")] = 0.01
    duplicate_share: Annotated[
        float, Meta(ge=0, le=0.5, description="records that repeat an earlier one; fraction")
    ] = 0.005
    bad_share: Annotated[float, Meta(ge=0, le=0.5, description="records that are not valid events; fraction")] = 0.001
    late_share: Annotated[float, Meta(ge=0, le=0.5, description="events that arrive late; fraction")] = 0.01
    late_ms: Annotated[float, Meta(ge=0, le=1e9, description="mean delay of a late event; ms")] = 30_000.0
    action_shares: Annotated[
        tuple[float, float, float, float], Meta(description="of view, cart, purchase, dislike; fractions that sum to 1")
    ] = (0.83, 0.1, 0.05, 0.02)
    drift_first: Annotated[int, Meta(ge=0, le=10**12, description="position of the first drift; events")] = 50_000
    drift_every: Annotated[
        int, Meta(ge=0, le=10**12, description="events from one drift to the next, 0 for no drift; events")
    ] = 50_000
    drift_kinds: Annotated[
        tuple[DriftKind, ...], Meta(min_length=1, max_length=1000, description="kinds of drift, taken in turn")
    ] = ("shares", "popularity", "concept_drift", "new_intent", "lost_intent")
    drift_strength: Annotated[float, Meta(gt=0, le=1, description="users or items that a drift moves; fraction")] = 0.5

    def __post_init__(self) -> None:
        if self.bots >= self.users // 2:
            raise ValueError(f"bots = {self.bots}: must be below half of users = {self.users}")
        if self.items < 4 * (self.intents + self.spare_intents):
            raise ValueError(f"items = {self.items}: must be at least 4 per intent, spare ones included")
        if min(self.action_shares) < 0 or abs(sum(self.action_shares) - 1) > 1e-6:
            raise ValueError(f"action_shares = {self.action_shares}: must not be below 0 and must sum to 1")
        if self.bot_share + self.duplicate_share + self.bad_share > 0.9:
            raise ValueError("bot_share + duplicate_share + bad_share: must leave a tenth of ordinary events")


__all__ = ["DriftKind", "SimulatorConfig"]
