"""When a user has moved to another intent: the rule, its calibrated confidence, and whether user or model moved.

Everything works on columns of users. What is remembered about a user is five numbers, kept by the caller beside the
user's history; what is remembered about the rule itself is how often shifts of each kind held, in two small tables.
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
_LEVELS: Final = 16  # levels of the margin, per way in which a shift came about
_LEVEL_WIDTH: Final = 0.5  # log-odds
_PRIOR_SHIFTS: Final = 4.0  # outcomes that the prior counts as, per level


class IntentState(NamedTuple):
    """What is remembered about B users; every field (B,)."""

    intent: NDArray[np.int32]
    """held intent id, -1 = none yet"""
    events: NDArray[np.int64]
    """the user's events since the intent is held, the one that brought it included"""
    candidate: NDArray[np.int32]
    """intent id that leads but has not won yet, -1 = none"""
    waited: NDArray[np.int64]
    """events for which the candidate leads"""
    level: NDArray[np.int64]
    """how sure the last shift was, from 1, while it is not known whether it holds; 0 = nothing to find out"""

    def of(self, rows: NDArray[np.int64]) -> IntentState:
        """What is remembered about some of them."""
        return IntentState(
            self.intent[rows], self.events[rows], self.candidate[rows], self.waited[rows], self.level[rows]
        )


class Moves(NamedTuple):
    """What one look at B users gave."""

    standing: IntentState
    first: NDArray[np.bool_]
    """(B,) who holds an intent for the first time, or another one while it is still looked for"""
    shifted: NDArray[np.bool_]
    """(B,) who left the held intent for the nearest"""
    changed: NDArray[np.int64]
    """(B,) events since the new intent began, the newest included: the history before them is the old one"""
    confidence: NDArray[np.float64]
    """(B,) calibrated probability that the shift holds; 0 where there is none"""
    held_for: NDArray[np.int64]
    """(B,) events for which the intent left was held; 0 where there is no shift"""


class ShiftRule:
    """Margin and persistence, and a confidence that is right as often as it says.

    A user moves to the nearest intent when it leads the held one by `sure_margin`, or by `margin` over `persistence`
    events. Whether a shift held is known `hold_events` of the user's events later; how often shifts with the same lead
    held, lately, is the confidence of the next one (isotonic regression: never falling with the lead).

    Examples
    --------
    >>> rule = ShiftRule(ShiftConfig(margin=1.0, sure_margin=6.0, persistence=2))
    >>> user = IntentState(*(np.array([value]) for value in (3, 40, -1, 0, 0)))
    >>> for lead in (2.0, 2.5):
    ...     moves = rule.look(user, nearest=np.array([7]), lead=np.array([lead]), events=np.array([1]))
    ...     user = moves.standing
    ...     print(bool(moves.shifted[0]), int(user.intent[0]), int(moves.changed[0]), int(moves.held_for[0]))
    False 3 1 0
    True 7 2 40
    """

    def __init__(self, config: ShiftConfig) -> None:
        self.config = config
        # decayed counts of shifts by (way: persisted or at once, level of the lead)
        self._held = np.zeros((2, _LEVELS))
        self._known = np.zeros((2, _LEVELS))
        self._fitted: NDArray[np.float64] | None = None  # made when it is asked for

    def look(
        self,
        standing: IntentState,
        nearest: NDArray[np.integer[Any]],
        lead: NDArray[np.floating[Any]],
        events: NDArray[np.integer[Any]],
        retired: NDArray[np.bool_] | None = None,
        began: NDArray[np.integer[Any]] | None = None,
        settling: NDArray[np.bool_] | None = None,
    ) -> Moves:
        """Look at B users after a step; the caller stores what comes back.

        Parameters
        ----------
        standing
            What was remembered.
        nearest
            (B,) id of the nearest intent now, -1 for a user without history.
        lead
            (B,) log-odds of the nearest against the held intent; not read where there is no held one.
        events
            (B,) events of the user in this step, at least 1.
        retired
            (B,) the held intent exists no more, or is not what the model sees in the user's older items: whatever is
            nearest follows at once, which says nothing about the user.
        began
            (B,) events since the nearest intent began, where that is known better than by when it first led.
        settling
            (B,) users whose intent is still looked for: they move to the nearest without a shift.
        """
        config = self.config
        gone = np.zeros(len(nearest), dtype=bool) if retired is None else retired
        nearest = np.asarray(nearest, dtype=np.int32)
        known = nearest >= 0
        open_yet = standing.intent < 0
        if settling is not None:
            open_yet |= settling
        first = known & open_yet & (nearest != standing.intent)
        leads = known & ~open_yet & (nearest != standing.intent) & ((lead >= config.margin) | gone)
        again = leads & (standing.candidate == nearest)
        waited = np.where(leads, np.where(again, standing.waited, 0) + events, 0)
        at_once = leads & ((lead >= config.sure_margin) | gone)
        # a candidate must lead in two looks, or in one when persistence is one event: a step may hold several events
        shifted = at_once | (leads & (waited >= config.persistence) & (again | (config.persistence == 1)))
        some = bool(shifted.any())
        level = self._levels(lead, at_once) if some else standing.level
        held_now = standing.events + events
        self._learn_outcomes(np.where(gone, 0, standing.level), shifted, held_now)
        confidence = np.zeros(len(shifted))
        if some:
            confidence[shifted] = self.probabilities().ravel()[level[shifted] - 1]
        moved = first | shifted
        waiting = leads & ~shifted
        changed = waited if began is None else np.where(shifted, np.maximum(began, 1), waited)
        after = IntentState(
            np.where(moved, nearest, standing.intent).astype(np.int32),
            np.where(shifted & ~gone, changed, held_now),
            np.where(waiting, nearest, NO_INTENT).astype(np.int32),
            np.where(waiting, np.minimum(waited, MAX_COUNT), 0),
            np.where(shifted & ~gone, level, np.where(shifted | (held_now > config.hold_events), 0, standing.level)),
        )
        held_for = np.where(shifted, np.maximum(held_now - changed, 0), 0)
        return Moves(after, first, shifted, np.where(shifted | waiting, changed, 0), confidence, held_for)

    def _levels(self, lead: NDArray[np.floating[Any]], at_once: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Cell of the tables from 1, (B,)."""
        above = (np.asarray(lead, dtype=np.float64) - self.config.margin) / _LEVEL_WIDTH
        level = np.fmin(np.fmax(above, 0), _LEVELS - 1).astype(np.int64)  # 0 where the lead is no number
        return np.asarray(1 + level + np.where(at_once, _LEVELS, 0))

    def _learn_outcomes(self, level: NDArray[np.int64], shifted: NDArray[np.bool_], held: NDArray[np.int64]) -> None:
        """Count shifts whose end is known by now: left again too early, or held for long enough."""
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
        """Probability that a shift holds, (2, levels): the ones that persisted, then the ones at once, by lead."""
        if self._fitted is None:
            self._fitted = self._fit()
        return self._fitted.copy()

    # -- durable ----------------------------------------------------------------------------------------------------

    def to_state(self) -> dict[str, Any]:
        """Everything that the next look depends on, JSON-able, exact."""
        return {"format": FORMAT, "held": self._held.tolist(), "known": self._known.tolist()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `to_state` gave.

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


def strongest(handles: NDArray[np.int64], pull: NDArray[np.floating[Any]], count: int) -> NDArray[np.int64]:
    """The items that pulled most, best first, (m, count), 0 where there are fewer; an item is named once.

    Parameters
    ----------
    handles
        (m, w) newest items of each user's history, newest last, 0 = empty
    pull
        (m, w) how much each drew the user to the new intent; only positive pulls count
    count
        items to name
    """
    m, w = handles.shape
    if not m or not w or not count:
        return np.zeros((m, count), dtype=np.int64)
    # the newer occurrence of an item stands for all of them
    same = (handles[:, :, None] == handles[:, None, :]) & (np.arange(w)[None, :, None] < np.arange(w)[None, None, :])
    usable = (handles != 0) & (pull > 0) & ~same.any(axis=2)
    order = np.argsort(np.where(usable, -np.asarray(pull, dtype=np.float64), np.inf), axis=1, kind="stable")[:, :count]
    found = np.where(np.take_along_axis(usable, order, axis=1), np.take_along_axis(handles, order, axis=1), 0)
    return np.pad(found, ((0, 0), (0, count - found.shape[1])))


__all__ = [
    "IntentState",
    "MAX_COUNT",
    "Moves",
    "NO_INTENT",
    "ShiftRule",
    "history_before",
    "strongest",
]
