"""The intent of users, and the evidence in their newest items that it has changed.

Every item belongs to the intents in shares (its code). A user who keeps an intent takes mostly its items, and now and
then others. Two models explain those others: they all belong to one other intent, so that after the first such item a
second likely much less for a change; or they follow the user's own mixture, as the older items show. A few users take
items of any intent at all times. Items from before the held intent count in that mixture, because users return most
often to what they left. A user who has changed takes mostly items of the new intent since some recent event, and now
and then of the old one. The lead of an intent is the log-odds of changing to it against staying, summed over all such
events: a change-point test (after Page's CUSUM [1]) with every other intent as the alternative. It depends on nothing
but items, intents, and the time since which the present intent is held.

[1] E. S. Page, Continuous inspection schemes, Biometrika 41, 1954. Numpy in, numpy out.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learner.intents.config import ChangePointConfig

Floats = NDArray[np.float32]
_HALF_LIVES: Final = 4  # beyond which an item no longer counts for the intent of a user
_OLDER: Final = 6  # items before a change that tell the previous intent
_STALE_ITEMS: Final = 3.0  # fewest older items that can call the held intent stale
_STALE_SHARE: Final = 0.6  # least share of the older items in another intent
_STALE_LEFT: Final = 0.2  # largest share of the older items in the held intent
_OWN: Final = 0.5  # share of the held intent in the newest item from which on it is no sign of a change
_ERRATIC_OWN: Final = 0.25  # share of items that erratic users take from their intent
_NEVER: Final = np.float32(-1e9)  # log of zero probability


class ChangePoint(NamedTuple):
    """Evidence of a change of intent for B users; every field (B,)."""

    to: NDArray[np.int64]
    """the strongest other intent"""
    lead: NDArray[np.float64]
    """log-odds of a change to it against none; -inf without another intent, and where the newest item belongs to the
    held one"""
    began: NDArray[np.int64]
    """events since the change, the first one of the new intent included; at least 1"""
    before: NDArray[np.bool_]
    """whether the items before the change belong to the new intent too: then the model moved, not the user"""
    older: NDArray[np.int64]
    """the most frequent intent of the items before the window"""
    stale: NDArray[np.bool_]
    """whether those items clearly belong to `older`, not to the held intent"""


def log_likelihood(codes: Floats, present: NDArray[np.bool_], config: ChangePointConfig) -> Floats:
    """Log-likelihood of each intent given the newest items, (B, G); older items count less.

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
    config: ChangePointConfig,
) -> ChangePoint:
    """Evidence for a change of intent.

    Parameters
    ----------
    codes
        (B, W, G) shares of the intents in each item, newest last
    present
        (B, W) whether there is an item
    held
        (B,) intent that each user holds, 0 to G - 1; -1 for none, which gives no evidence
    span
        (B,) events for which it is held, the newest included; older items belong to earlier intents and count only in
        the user's mixture
    config
        parameters of the test
    """
    B, W, G = codes.shape
    users, age = np.arange(B), np.arange(W)[::-1]  # age 0 is the newest item
    R = min(config.window, W)
    holds, mine = held >= 0, present & (age < span[:, None])  # (B, W) since the held intent began
    kinds = np.empty((B, 2, W - R), dtype=np.float32)
    kinds[:, 0], kinds[:, 1] = mine[:, :-R], present[:, :-R] & ~mine[:, :-R]
    base, earlier = np.moveaxis(kinds @ codes[:, :-R], 1, 0)  # (B, G) each, of the items before the window
    count, older = base.sum(axis=1), base.argmax(axis=1)
    left = np.where(holds, base[users, np.maximum(held, 0)], 0)
    stale = holds & (count >= _STALE_ITEMS) & (older != held)
    stale &= (base[users, older] > _STALE_SHARE * count) & (left < _STALE_LEFT * count)
    to, lead, began = np.zeros(B, dtype=np.int64), np.full(B, -np.inf), np.ones(B, dtype=np.int64)
    before = np.zeros(B, dtype=np.bool_)
    # a newest item of the held intent speaks against a change: no test
    odd = users[:0]
    if G > 1:
        odd = np.flatnonzero(holds & present[:, -1] & (codes[users, -1, np.maximum(held, 0)] < _OWN))
    if len(odd):
        near = slice(-R - _OLDER, None)  # reaches the items before the earliest change
        some, there, ages, hold, since = codes[odd, near], present[odd, near], age[near], held[odd], span[odd]
        newest, known = np.ascontiguousarray(some[:, : -R - 1 : -1]), mine[odd, : -R - 1 : -1]
        earlier = earlier[odd] + np.matmul((there[:, : -R - 1 : -1] & ~known)[:, None].astype(np.float32), newest)[:, 0]
        stays = _staying_log_likelihood(newest, known, hold, base[odd], earlier, config)
        total = _moving_log_likelihood(newest, known, hold, config) - stays[..., None]  # (b, R, G)
        total[np.arange(R) >= np.maximum(since, 1)[:, None]] = _NEVER
        best = _log_sum(total, 1)  # (b, G)
        rows = np.arange(len(odd))
        best[rows, hold] = _NEVER
        goal = best.argmax(axis=1)
        to[odd], lead[odd] = goal, best[rows, goal] + math.log(config.change_share / (G - 1))
        began[odd] = start = 1 + total[rows, :, goal].argmax(axis=1)
        old = there & (ages >= start[:, None]) & (ages < start[:, None] + _OLDER)
        was = np.matmul(old.astype(np.float32)[:, None], some)[:, 0]  # (b, G)
        before[odd] = (was.argmax(axis=1) == goal) & (was.sum(axis=1) > 0)
    return ChangePoint(to, lead, began, before, older, stale)


def _staying_log_likelihood(
    newest: Floats,
    known: NDArray[np.bool_],
    held: NDArray[np.integer[Any]],
    base: Floats,
    earlier: Floats,
    config: ChangePointConfig,
) -> Floats:
    """Log-likelihood of the newest 1, 2, … R items (b, R) of users who stay, given their items before those.

    newest (b, R, G), newest first; known (b, R) since the held intent began; base, earlier (b, G) sums of the codes of
    the older items since then, and of those before. Items outside the held intent come from one of the G intents, from
    any intent (column G), or from the user's own mixture (column G + 1).
    """
    b, R, G = newest.shape
    users, own = np.arange(b), base[np.arange(b), held]
    a, n = config.loyalty, config.anything / G
    side = 1 - a - config.anything
    share = earlier / np.maximum(earlier.sum(axis=1, keepdims=True), 1)  # (b, G), smaller where little is known
    chance = np.float32(config.earlier_odds) * share + np.float32(1 / (G - 1))
    chance[users, held] = 0
    chance /= chance.sum(axis=1, keepdims=True)
    sums = np.empty((b, R + 1, G + 2), dtype=np.float32)  # log-likelihoods with the items older than the newest r
    oldest, others, stray = sums[:, R], base.sum(axis=1) - own, (1 - _ERRATIC_OWN) / G
    oldest[:, :G] = np.log(np.maximum(chance, np.float32(1e-30))) + base * np.float32(math.log((side + n) / n))
    oldest[:, :G] += (own * math.log(a + n) + others * math.log(n)).astype(np.float32)[:, None]
    oldest[users, held] = _NEVER
    oldest[:, G] = own * math.log(_ERRATIC_OWN + stray) + others * math.log(stray)
    oldest[:, G] += math.log(config.erratic_share / (1 - config.erratic_share))
    oldest[:, G + 1] = _log_sum(oldest[:, : G + 1], 1) + math.log(config.mixed_odds)
    # previous intents stay in the mixture
    known_before = np.maximum(earlier.sum(axis=1), 1e-9)
    mixture = earlier * (np.minimum(known_before, config.earlier_events) / known_before)[:, None] + base
    mixture += np.float32(config.prior_events * (1 - a) / (G - 1))
    mixture[users, held] += np.float32(config.prior_events * (a - (1 - a) / (G - 1)))
    mixture /= mixture.sum(axis=1, keepdims=True)
    mine, likely = newest[users, :, held], np.empty((b, R, G + 2), dtype=np.float32)
    np.multiply(newest, np.float32(side), out=likely[:, :, :G])
    likely[:, :, :G] += (np.float32(a) * mine + np.float32(n))[..., None]
    likely[:, :, G] = np.float32(_ERRATIC_OWN) * mine + np.float32(stray)
    likely[:, :, G + 1] = np.matmul(newest, mixture[:, :, None])[:, :, 0] + np.float32(1e-12)
    np.log(likely, out=likely)
    likely *= known[..., None]
    for r in range(R - 1, -1, -1):
        np.add(sums[:, r + 1], likely[:, r], out=sums[:, r])
    whole = _log_sum(sums, 2)  # (b, R + 1)
    return np.asarray(whole[:, :1] - whole[:, 1:])


def _log_sum(logs: Floats, axis: int) -> Floats:
    """Logarithm of the sum of exponentials along an axis."""
    top = logs.max(axis=axis, keepdims=True)
    return np.asarray((np.log(np.exp(logs - top).sum(axis=axis, keepdims=True)) + top).squeeze(axis))


def _moving_log_likelihood(
    newest: Floats, known: NDArray[np.bool_], held: NDArray[np.integer[Any]], config: ChangePointConfig
) -> Floats:
    """Log-likelihood of the newest 1, 2, … R items of users who have changed to each intent, (b, R, G)."""
    b, R, G = newest.shape
    likely = newest * np.float32(config.loyalty)
    left = newest[np.arange(b), :, held] * np.float32(1 - config.loyalty - config.anything)  # (b, R)
    likely += (left + np.float32(config.anything / G))[..., None]
    np.log(likely, out=likely)
    likely *= known[..., None]
    for r in range(1, R):  # numpy's cumsum is several times slower across rows
        likely[:, r] += likely[:, r - 1]
    return np.asarray(likely)


__all__ = ["ChangePoint", "change", "log_likelihood"]
