"""What is true of a simulated shop, as lines beside its events."""

from __future__ import annotations

from typing import Literal

import msgspec


class Truth(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A fact that holds from record number `position`, counted from 0."""

    kind: Literal["user", "switch", "bot", "item", "item_gone", "drift"]
    position: int
    user: str = ""
    item: str = ""
    intent: int = -1  # of a user or an item; numbers from 0, never used again
    from_intent: int = msgspec.field(default=-1, name="from")
    to_intent: int = msgspec.field(default=-1, name="to")
    cause: Literal["", "user", "population"] = ""  # of a switch: the user's own, or part of a drift
    drift: Literal["", "shares", "new_intent", "lost_intent", "popularity", "concept_drift"] = ""
    intents: list[int] = []  # that a drift changes


__all__ = ["Truth"]
