"""What a step gives, and what its parts hand on to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from learner.online.step import PrequentialResult
from stream.engine.users import StepUsers
from stream.log.base import Message
from stream.schema.event_batch import EventBatch
from stream.schema.messages import IntentShift

COUNTERS: Final = (
    "events",
    "users",
    "dead_letters",
    "unknown_fields",
    "values_dropped",
    "duplicates",
    "late",
    "misplaced",
    "items_admitted",
    "recommendations",
    "shifts",
    "model_shifts",
    "alerts",
    "erased",
    "learn_steps",
    "learn_refused",
    "examples",
    "truncated",
)


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step gave: the messages to publish, in order, and what they were made from."""

    step: int
    ranges: list[tuple[int, int, int]]
    messages: list[Message]
    checksum: int
    records: int
    """records taken, bad ones included"""
    event_ts: int
    """newest event time so far, epoch milliseconds"""
    shifts: list[IntentShift]
    """all shifts, also those that are not published"""
    notes: dict[str, str]
    """the actions of a drift episode in force; in step 1, the model that it all began with"""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """The events of a step and their users, before anything is learned."""

    events: EventBatch
    users: StepUsers
    receipts: list[Message]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the accepted events of a step led to."""

    users: StepUsers
    items: NDArray[np.int64]
    learned: PrequentialResult | None
    shifts: list[IntentShift]
    messages: list[Message]


__all__ = ["Arrivals", "COUNTERS", "Outcome", "StepResult"]
