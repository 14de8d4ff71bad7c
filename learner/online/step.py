"""What goes into a step of the learner and what comes out of it."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learner.online.histories import Histories

SOURCE_MODEL: Final = 0
SOURCE_INTENT: Final = 1
SOURCE_POPULAR: Final = 2


class StepBatch(NamedTuple):
    """The accepted events of one step, in arrival order; n events, L items of history."""

    users: NDArray[np.uint64]
    """(n,) stable key of the user"""
    histories: Histories
    """(n, L) of the users just before each event"""
    items: NDArray[np.int64]
    """(n,) handle of the item taken"""
    weights: NDArray[np.float32]
    """(n,) weight of the action, negative = dislike"""
    ts: NDArray[np.int64]
    """(n,) epoch milliseconds"""


class PrequentialResult(NamedTuple):
    """What `observe` saw."""

    ranks: NDArray[np.int64]
    """(n,) rank from 0 of the item taken; NOT_EVALUATED without history, UNRANKED where it could not be ranked: new,
    already taken, or no candidate (those rank behind all candidates)"""
    loss: float
    """mean loss of the whole ranking on the step's fresh pairs, nats; not a number where there were none"""
    new_items: int
    """events on an item never seen before"""
    distance: float
    """mean squared distance of the users to their nearest center; not a number where nobody had a history"""
    intents: NDArray[np.int64]
    """(m,) place of the nearest intent, for each event of a user with a history"""
    placed: NDArray[np.int64]
    """(n,) as `ranks`, whether they were to be evaluated or not"""


class Ranking(NamedTuple):
    """Top-k lists; B users."""

    items: NDArray[np.int64]
    """(B, k) handles, best first, 0 where there were too few items"""
    scores: NDArray[np.float32]
    """(B, k) falling, 0 where there is no item"""
    source: NDArray[np.uint8]
    """(B,) SOURCE_MODEL, SOURCE_INTENT or SOURCE_POPULAR"""
    because: NDArray[np.int64]
    """(B, 3) handles of the recent items that drove the list, strongest first, 0 = none"""


class LearnReport(NamedTuple):
    """What `learn` did."""

    steps: int
    """optimizer steps made"""
    loss: float
    """mean next-item loss of the network over those steps, nats; not a number where there was none"""
    refused: int
    """steps refused by the guard"""
    examples: int
    """pairs learned from"""


class IntentInfo(NamedTuple):
    """One intent for the catalog."""

    intent: int
    """id, never used for another"""
    share: float
    """of the users looked at lately"""
    separation: float
    """distance to the nearest other center, 0 to 2"""
    speed: float
    """distance moved per 1,000 events"""
    position: tuple[float, float]
    """on the map, -1 to 1 each"""
    born_at: int
    """event number"""
    items: list[str]
    """nearest items, best first"""


__all__ = [
    "IntentInfo",
    "LearnReport",
    "PrequentialResult",
    "Ranking",
    "SOURCE_INTENT",
    "SOURCE_MODEL",
    "SOURCE_POPULAR",
    "StepBatch",
]
