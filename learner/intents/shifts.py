"""When a user has shifted to another intent: the rule, and its calibrated confidence.

Everything works on columns of users. The state of a user is five numbers, which the caller keeps beside the user's
history. The state of the rule is two small tables: how often shifts of each kind held.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from learner.digest import Hash
from learner.errors import LearnerStateError
from learner.intents.config import ShiftConfig

NO_INTENT: Final = -1
MAX_COUNT: Final = 2**16 - 1  # of the counters that a record keeps in two bytes
FORMAT: Final = 1
_LEVELS: Final = 16  # levels of the margin, per kind of shift: persisted or at once
_LEVEL_WIDTH: Final = 0.5  # log-odds
_PRIOR_SHIFTS: Final = 4.0  # outcomes that the prior counts as, per level


class IntentState(NamedTuple):
    """State of B users; every field (B,)."""

    intent: NDArray[np.int32]
    """held intent id, -1 = none yet"""
    events: NDArray[np.int64]
    """the user's events since the held intent began, the first one of it included"""
    candidate: NDArray[np.int32]
    """intent id that leads the held one but is not confirmed yet, -1 = none"""
    waited: NDArray[np.int64]
    """events for which the candidate has led"""
    level: NDArray[np.int64]
    """level of the lead of the last shift, from 1, until its outcome is known; 0 = no open shift"""

    def of(self, rows: NDArray[np.int64]) -> IntentState:
        """The state of some of them."""
        return IntentState(
            self.intent[rows], self.events[rows], self.candidate[rows], self.waited[rows], self.level[rows]
        )


class ShiftUpdate(NamedTuple):
    """The outcome of one update of B users; every field but `state` (B,)."""

    state: IntentState
    shifted: NDArray[np.bool_]
    """who left the held intent for the nearest"""
    confidence: NDArray[np.float64]
    """calibrated probability that the shift holds; 0 without a shift"""
    held_for: NDArray[np.int64]
    """events for which the previous intent was held; 0 without a shift"""


class ShiftRule:
    """Margin, persistence, and a calibrated confidence.

    A user shifts to the nearest intent when it leads the held one by `sure_margin`, or by `margin` over `persistence`
    events. Whether a shift held is known `hold_events` of the user's events later; the share of recent shifts with the
    same lead that held is the confidence of the next one (isotonic regression: never falling with the lead).

    Examples
    --------
    >>> rule = ShiftRule(ShiftConfig(margin=1.0, sure_margin=6.0, persistence=2))
    >>> user = IntentState(*(np.array([value]) for value in (3, 40, -1, 0, 0)))
    >>> for lead in (2.0, 2.5):
    ...     update = rule.update(user, nearest=np.array([7]), lead=np.array([lead]), events=np.array([1]))
    ...     user = update.state
    ...     print(bool(update.shifted[0]), int(user.intent[0]), int(user.events[0]), int(update.held_for[0]))
    False 3 41 0
    True 7 2 40
    """

    def __init__(self, config: ShiftConfig) -> None:
        self.config = config
        # decayed counts of shifts by (kind: persisted or at once, level of the lead)
        self._held = np.zeros((2, _LEVELS))
        self._known = np.zeros((2, _LEVELS))
        self._fitted: NDArray[np.float64] | None = None  # computed on first use

    def update(
        self,
        state: IntentState,
        nearest: NDArray[np.integer[Any]],
        lead: NDArray[np.floating[Any]],
        events: NDArray[np.integer[Any]],
        retired: NDArray[np.bool_] | None = None,
        began: NDArray[np.integer[Any]] | None = None,
        settling: NDArray[np.bool_] | None = None,
    ) -> ShiftUpdate:
        """Apply the rule to B users after a step; the caller stores the returned state.

        Parameters
        ----------
        state
            As returned by the update before.
        nearest
            (B,) id of the nearest intent now, -1 for a user without history.
        lead
            (B,) log-odds of the nearest against the held intent; ignored without a held intent.
        events
            (B,) events of the user in this step, at least 1.
        retired
            (B,) the held intent is retired, or the model no longer assigns the user's older items to it: the nearest
            intent follows at once, which says nothing about the user.
        began
            (B,) events since the nearest intent began, where evidence dates that better than the first lead.
        settling
            (B,) users whose intent is not settled yet: they move to the nearest one without a shift.
        """
        config = self.config
        gone = np.zeros(len(nearest), dtype=bool) if retired is None else retired
        nearest = np.asarray(nearest, dtype=np.int32)
        known = nearest >= 0
        open_yet = state.intent < 0 if settling is None else (state.intent < 0) | settling
        first = known & open_yet & (nearest != state.intent)
        leads = known & ~open_yet & (nearest != state.intent) & ((lead >= config.margin) | gone)
        again = leads & (state.candidate == nearest)
        waited = np.where(leads, np.where(again, state.waited, 0) + events, 0)
        at_once = leads & ((lead >= config.sure_margin) | gone)
        # a candidate must lead in two updates, or in one when persistence is one event: a step may hold several events
        shifted = at_once | (leads & (waited >= config.persistence) & (again | (config.persistence == 1)))
        some = bool(shifted.any())
        level = self._levels(lead, at_once) if some else state.level
        held_now = state.events + events
        self._learn_outcomes(np.where(gone, 0, state.level), shifted, held_now)
        confidence = np.zeros(len(shifted))
        if some:
            confidence[shifted] = self.probabilities().ravel()[level[shifted] - 1]
        since = waited if began is None else np.where(shifted, np.maximum(began, 1), waited)
        waiting = leads & ~shifted
        after = IntentState(
            np.where(first | shifted, nearest, state.intent).astype(np.int32),
            np.where(shifted & ~gone, since, held_now),
            np.where(waiting, nearest, NO_INTENT).astype(np.int32),
            np.where(waiting, np.minimum(waited, MAX_COUNT), 0),
            np.where(shifted & ~gone, level, np.where(shifted | (held_now > config.hold_events), 0, state.level)),
        )
        return ShiftUpdate(after, shifted, confidence, np.where(shifted, np.maximum(held_now - since, 0), 0))

    def _levels(self, lead: NDArray[np.floating[Any]], at_once: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Cell of the tables from 1, (B,)."""
        above = (np.asarray(lead, dtype=np.float64) - self.config.margin) / _LEVEL_WIDTH
        level = np.fmin(np.fmax(above, 0), _LEVELS - 1).astype(np.int64)  # 0 where the lead is NaN
        return np.asarray(1 + level + np.where(at_once, _LEVELS, 0))

    def _learn_outcomes(self, level: NDArray[np.int64], shifted: NDArray[np.bool_], held: NDArray[np.int64]) -> None:
        """Count shifts whose outcome is known now: left again too early, or held for long enough."""
        long_enough = held > self.config.hold_events
        over = (level > 0) & (shifted | long_enough)
        count = int(over.sum())
        if not count:
            return
        cells = level[over] - 1
        kept = np.bincount(cells, weights=long_enough[over], minlength=2 * _LEVELS).reshape(2, _LEVELS)
        ended = np.bincount(cells, minlength=2 * _LEVELS).reshape(2, _LEVELS)
        decay = 0.5 ** (count / self.config.half_life)
        self._held = self._held * decay + kept
        self._known = self._known * decay + ended
        self._fitted = None

    def _fit(self) -> NDArray[np.float64]:
        """Probability that a shift holds, (2, levels), never falling with the lead."""
        total = self._known.sum()
        overall = (self._held.sum() + 1.0) / (total + 2.0)
        raw = (self._held + _PRIOR_SHIFTS * overall) / (self._known + _PRIOR_SHIFTS)
        return np.stack(
            [
                isotonic_regression(row, weights=weights).x
                for row, weights in zip(raw, self._known + _PRIOR_SHIFTS, strict=True)
            ]
        )

    def probabilities(self) -> NDArray[np.float64]:
        """Probability that a shift holds, (2, levels): persisted shifts, then those at once, by level of the lead."""
        if self._fitted is None:
            self._fitted = self._fit()
        return self._fitted.copy()

    # -- durable ----------------------------------------------------------------------------------------------------

    def to_state(self) -> dict[str, Any]:
        """Everything that the next update depends on, as JSON-able exact values."""
        return {"format": FORMAT, "held": self._held.tolist(), "known": self._known.tolist()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `to_state` returned.

        Raises
        ------
        LearnerStateError
            Another format or another size.
        """
        if state.get("format") != FORMAT:
            raise LearnerStateError(f"shift rule: state of format {state.get('format')!r}, expected {FORMAT}")
        held, known = np.array(state["held"], dtype=np.float64), np.array(state["known"], dtype=np.float64)
        if held.shape != (2, _LEVELS) or known.shape != (2, _LEVELS):
            raise LearnerStateError(f"shift rule: tables of {held.shape} and {known.shape}, expected {(2, _LEVELS)}")
        self._held, self._known = held, known
        self._fitted = None

    def update_digest(self, digest: Hash) -> None:
        """Add the state to a hash."""
        digest.update(self._held.tobytes())
        digest.update(self._known.tobytes())


def history_before(
    histories: NDArray[np.int64], actions: NDArray[np.uint8], events: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Histories (B, L) and action codes without the newest `events` (B,) entries, right-aligned again.

    >>> history_before(np.array([[0, 5, 6, 7]]), np.zeros((1, 4), np.uint8), np.array([2]))[0].tolist()
    [[0, 0, 0, 5]]
    """
    L = histories.shape[1]
    column = np.arange(L) - np.asarray(events)[:, None]  # (B, L) where each place is read from
    inside = column >= 0
    column = np.where(inside, column, 0)
    return (
        np.where(inside, np.take_along_axis(histories, column, axis=1), 0),
        np.where(inside, np.take_along_axis(actions, column, axis=1), 0).astype(np.uint8),
    )


def strongest(handles: NDArray[np.int64], attraction: NDArray[np.floating[Any]], count: int) -> NDArray[np.int64]:
    """The items that drew users to their new intent most, best first, (m, count), each once; 0 where there are fewer.

    Parameters
    ----------
    handles
        (m, w) newest items of each user's history, newest last, 0 = empty
    attraction
        (m, w) how much each drew the user to the new intent; only positive numbers count
    count
        items to name
    """
    m, w = handles.shape
    if not m or not w or not count:
        return np.zeros((m, count), dtype=np.int64)
    # the newest occurrence of an item counts for all of them
    same = (handles[:, :, None] == handles[:, None, :]) & (np.arange(w)[None, :, None] < np.arange(w)[None, None, :])
    usable = (handles != 0) & (attraction > 0) & ~same.any(axis=2)
    order = np.argsort(np.where(usable, -attraction.astype(np.float64), np.inf), axis=1, kind="stable")[:, :count]
    found = np.where(np.take_along_axis(usable, order, axis=1), np.take_along_axis(handles, order, axis=1), 0)
    return np.pad(found, ((0, 0), (0, count - found.shape[1])))


__all__ = [
    "IntentState",
    "MAX_COUNT",
    "NO_INTENT",
    "ShiftRule",
    "ShiftUpdate",
    "history_before",
    "strongest",
]
