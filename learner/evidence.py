"""Where users stand among the intents, and how strongly their newest items say that they have changed.

An item belongs to the intents in shares (its code). A user who stays in an intent draws items from a mixture of his
own: mostly that intent, now and then others, as his older items show, those from before he held it a little as well:
what he left is what he most often comes back to. A user who has changed draws mostly from the new
one, since some event not long ago. The lead of an intent is the log of the odds between the two, over the best such
event: a test for a change point (after Page's CUSUM [1]) whose alternative is every other intent. It depends on nothing
but items, intents, and since when the present one is held.

[1] E. S. Page, Continuous inspection schemes, Biometrika 41, 1954. Numpy in, numpy out.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_HALF_LIVES: Final = 4  # beyond which older items are left out of where a user stands
_OLDER: Final = 6  # items before a change that say where the user was
_STALE_ITEMS: Final = 3.0  # older items without which nothing is said about them
_STALE_SHARE: Final = 0.6  # of the older items, in another intent
_STALE_LEFT: Final = 0.2  # of the older items, at most, in the held one


class EvidenceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What counts as evidence of an intent. Measured by `benchmarks/intents.py`; see docs/intents.md."""

    memory: Annotated[int, Meta(ge=1, le=1000, description="newest items of a history that are looked at; items")] = 30
    window: Annotated[int, Meta(ge=1, le=1000, description="a change began at most so long ago; the user's events")] = 5
    loyalty: Annotated[float, Meta(gt=0, lt=1, description="items that users take from their intent; fraction")] = 0.8
    prior_events: Annotated[
        float, Meta(gt=0, le=1e6, description="events as which `loyalty` counts in a user's own mixture; events")
    ] = 4.0
    earlier_events: Annotated[
        float,
        Meta(
            ge=0,
            le=1e6,
            description="items from before the held intent count as at most so many events in that mixture; events",
        ),
    ] = 1.0
    sharpness: Annotated[
        float,
        Meta(ge=1, le=10, description="an item's shares of the intents are raised to this power; exponent"),
    ] = 1.5
    change_share: Annotated[
        float, Meta(gt=0, lt=1, description="chance of a change at an event, before any evidence; probability")
    ] = 0.01
    most: Annotated[float, Meta(gt=0, le=100, description="most that one event can say; log-odds")] = 6.0
    half_life: Annotated[
        float, Meta(gt=0, le=1000, description="memory of where users stand without a held intent; items")
    ] = 3.0


class Change(NamedTuple):
    """What the newest items of B users say about a change of intent; every field (B,)."""

    to: NDArray[np.int64]
    """the strongest other intent"""
    lead: NDArray[np.float64]
    """log-odds that the user has changed to it against that he has not; -inf where there is no other intent"""
    began: NDArray[np.int64]
    """events since the change, the first one of the new intent included; at least 1"""
    before: NDArray[np.bool_]
    """the items before the change are of the new intent as well: it is not the user who moved"""
    older: NDArray[np.int64]
    """the intent of most of the items before the window"""
    stale: NDArray[np.bool_]
    """those items are clearly not of the held intent, but of `older`"""


def standing(codes: Floats, present: NDArray[np.bool_], config: EvidenceConfig) -> Floats:
    """Log-likelihood of each intent from the newest items, older ones counting less, (B, G).

    Parameters
    ----------
    codes
        (B, W, G) shares of the intents in each item, newest last
    present
        (B, W) whether there is an item
    config
        `loyalty` and `half_life`
    """
    newest = slice(-math.ceil(_HALF_LIVES * config.half_life), None)
    codes, present = codes[:, newest], present[:, newest]
    W, G = codes.shape[1:]
    weight = 0.5 ** (np.arange(W)[::-1] / config.half_life) * present  # (B, W)
    likely = np.log(config.loyalty * codes + np.float32((1 - config.loyalty) / G))  # (B, W, G)
    return np.asarray(np.einsum("bw,bwg->bg", weight.astype(np.float32), likely))


def change(
    codes: Floats,
    present: NDArray[np.bool_],
    held: NDArray[np.integer[Any]],
    span: NDArray[np.integer[Any]],
    config: EvidenceConfig,
) -> Change:
    """What speaks for a change of intent.

    Parameters
    ----------
    codes
        (B, W, G) shares of the intents in each item, newest last
    present
        (B, W) whether there is an item
    held
        (B,) intent that each user holds, 0 to G - 1; -1 for none, about whom nothing is said
    span
        (B,) events for which it is held, the newest included; older items belong to earlier intents, and say only what
        else the user takes
    config
        The test's parameters.
    """
    B, W, G = codes.shape
    a, users, age = config.loyalty, np.arange(B), np.arange(W)[::-1]  # age 0 is the newest item
    holds = held >= 0
    R = min(config.window, W)
    mine = present[:, :-R] & (age[:-R] < span[:, None])  # (B, W - R) of the held intent's time, before the window
    kinds = np.empty((B, 2, W - R), dtype=np.float32)
    kinds[:, 0], kinds[:, 1] = mine, present[:, :-R] & ~mine
    base, earlier = np.moveaxis(kinds @ codes[:, :-R], 1, 0)  # (B, G) each
    count, known = base.sum(axis=1), earlier.sum(axis=1)  # (B,)
    # what he held before goes on as something that he takes now and then
    earlier *= (np.minimum(known, config.earlier_events) / np.maximum(known, 1e-9))[:, None]
    prior = np.full((B, G), config.prior_events * (1 - a) / max(G - 1, 1), dtype=np.float32)
    prior[users[holds], held[holds]] = config.prior_events * a
    mixture = base + earlier + prior  # (B, G)
    mixture /= mixture.sum(axis=1, keepdims=True)
    newest = codes[:, : -R - 1 : -1]  # (B, R, G), newest first
    stays = np.einsum("brg,bg->br", newest, mixture)  # (B, R)
    ratio = newest * (a / np.maximum(stays, 1e-9))[..., None]
    ratio += 1 - a
    says = np.minimum(np.log(ratio, out=ratio), config.most, out=ratio)
    says *= present[:, : -R - 1 : -1, None]
    total = says  # (B, R, G) of the newest 1, 2, … events; numpy's cumsum is several times slower across rows
    for r in range(1, R):
        total[:, r] += total[:, r - 1]
    total[np.arange(R) >= np.maximum(span, 1)[:, None]] = -np.inf
    best = total[:, 0]
    for r in range(1, R):
        best = np.maximum(best, total[:, r])  # (B, G)
    best[users[holds], held[holds]] = -np.inf
    to = best.argmax(axis=1)
    lead = np.where(holds, best[users, to] + np.log(config.change_share / max(G - 1, 1)), -np.inf)
    began = 1 + total[users, :, to].argmax(axis=1)
    near = slice(-R - _OLDER, None)  # where the items before a change can be
    older_items = present[:, near] & (age[near] >= began[:, None]) & (age[near] < began[:, None] + _OLDER)
    was = (older_items.astype(np.float32)[:, None] @ codes[:, near])[:, 0]  # (B, G)
    older = base.argmax(axis=1)
    left = np.where(holds, base[users, np.maximum(held, 0)], 0)
    stale = holds & (count >= _STALE_ITEMS) & (older != held)
    stale &= (base[users, older] > _STALE_SHARE * count) & (left < _STALE_LEFT * count)
    return Change(to, lead, began, (was.argmax(axis=1) == to) & (was.sum(axis=1) > 0), older, stale)


__all__ = ["Change", "EvidenceConfig", "change", "standing"]
