"""Users' intents in the engine: which intent each user follows, the shifts between intents, and the catalog.

Deterministic; everything remembered beyond a step is in `to_state` and in the users' records.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from learner.intents.naming import name_intent
from learner.intents.shifts import IntentState, ShiftRule, strongest
from learner.intents.tracker import IntentView
from learner.online.histories import Histories
from learner.online.learner import Learner
from learner.online.step import IntentInfo
from stream.config import StreamConfig
from stream.engine.shift_tests import MAX_TESTS, ShiftTests
from stream.engine.users import TouchedUsers
from stream.log.base import Message
from stream.schema import topics
from stream.schema.messages import Intent, IntentShift

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class IntentUpdate:
    """What became of the intents of U users in a step."""

    state: IntentState
    """(U,) what is remembered of each"""
    shifts: list[IntentShift]
    """all shifts, also those that are not published"""
    messages: list[Message]
    """the shifts to publish"""


class _Shifts(NamedTuple):
    """Shifts found in one round of tests, every field (m,)."""

    tests: NDArray[np.int64]
    """number of the test"""
    by_model: NDArray[np.bool_]
    origin: NDArray[np.int32]
    to: NDArray[np.int32]
    confidence: NDArray[np.float64]
    held_for: NDArray[np.int64]


class IntentFollower:
    """Follows users between intents and publishes the intent catalog.

    Parameters
    ----------
    config
        Its sections `shifts`, `engine` and `learner.evidence`.
    learner
        Says where users stand; `follow_centers` lets it place dead centers anew.
    titles
        Title and category by item id, from the file given with `--items`; they name the intents.
    """

    def __init__(
        self, config: StreamConfig, learner: Learner, titles: Mapping[str, tuple[str, str]] | None = None
    ) -> None:
        self._config = config
        self._learner = learner
        self._titles = dict(titles or {})
        self._rule = ShiftRule(config.shifts)
        self._dead: list[int] = []  # intents whose tombstone is still to be published
        self._catalog_event = -1  # event number at which the catalog was last published

    # -- shifts -----------------------------------------------------------------------------------------------------

    def follow(self, users: TouchedUsers, histories: Histories, records: NDArray[Any], step: int) -> IntentUpdate:
        """Test after each of the users' newest events whether their intent has shifted; changes no record.

        Parameters
        ----------
        users
            The U users with events in the step.
        histories
            (U, L) after the step.
        records
            (U,) records of the users after the step, with the intents of before.
        step
            Engine step.
        """
        state = self._state_before(records)
        tests = ShiftTests(MAX_TESTS, users.event_counts, records["events"].astype(np.int64), self._settle_events)
        past = self._past(histories, tests)
        # one query for all tests, as if nobody moved; those who do move are queried again
        span = state.events[tests.users] + tests.so_far
        view = self._view(past, state.intent[tests.users], span, tests.settling)
        found: list[_Shifts] = []
        for rows in tests.rounds():
            held = state.intent[tests.users[rows]]
            found += self._test(rows, tests, view, state)
            moved = tests.after(rows[-1], tests.users[rows][state.intent[tests.users[rows]] != held])
            self._renew(view, moved, past, state, tests, int(tests.later[rows[0]]))
        shifts = self._shifts(found, tests, users, past, step)
        publish_all = self._config.shifts.publish_model_shifts
        messages = [_shift_message(one) for one in shifts if one.cause == "user" or publish_all]
        return IntentUpdate(state, shifts, messages)

    @property
    def _settle_events(self) -> int:
        return self._config.shifts.settle_events

    def _state_before(self, records: NDArray[Any]) -> IntentState:
        return IntentState(
            self._learner.current_intents(records["intent"]),
            records["intent_events"].astype(np.int64),
            self._learner.current_intents(records["candidate"]),
            records["candidate_count"].astype(np.int64),
            records["shift_level"].astype(np.int64),
        )

    def _past(self, histories: Histories, tests: ShiftTests) -> Histories:
        """The histories as they were at each test, as far back as any question goes: (n, W)."""
        width = max(self._config.learner.evidence.memory, self._config.shifts.evidence_window)
        return histories.newest(width + tests.depth - 1).select(tests.users).before(tests.later)

    def _view(
        self,
        past: Histories,
        held: NDArray[np.int32],
        span: NDArray[np.int64],
        settling: NDArray[np.bool_],
    ) -> IntentView:
        return self._learner.intents(past, held, span, settling)

    def _test(self, rows: NDArray[np.int64], tests: ShiftTests, view: IntentView, state: IntentState) -> list[_Shifts]:
        """Make the tests `rows`, of different users; their intents in `state` go on, the shifts are returned."""
        users, settling = tests.users[rows], tests.settling[rows]
        columns_now: Iterator[Any] = (column[rows] for column in view)
        now = IntentView(*columns_now)
        before = state.of(users)
        nearest = np.where(settling, now.best, now.nearest)
        forced = now.retired | now.stale
        update = self._rule.update(before, nearest, now.lead, tests.new[rows], forced, now.began, settling)
        columns: Iterator[tuple[Any, NDArray[Any]]] = zip(state, update.state, strict=True)
        for column, values in columns:
            column[users] = values
        shifted = np.flatnonzero(update.shifted)
        if not len(shifted):
            return []
        return [
            _Shifts(
                rows[shifted],
                (now.before | forced)[shifted],
                before.intent[shifted],
                nearest[shifted],
                update.confidence[shifted],
                update.held_for[shifted],
            )
        ]

    def _renew(
        self,
        view: IntentView,
        moved: NDArray[np.int64],
        past: Histories,
        state: IntentState,
        tests: ShiftTests,
        later: int,
    ) -> None:
        """Query the tests `moved` again, whose users hold another intent since the round `later` events from the end;
        their rows of `view` are replaced.
        """
        if not len(moved):
            return
        users = tests.users[moved]
        span = state.events[users] + later - tests.later[moved]
        anew = self._view(past.select(moved), state.intent[users], span, np.zeros(len(moved), dtype=bool))
        columns: Iterator[tuple[Any, NDArray[Any]]] = zip(view, anew, strict=True)
        for column, values in columns:
            column[moved] = values

    def _shifts(
        self, found: Sequence[_Shifts], tests: ShiftTests, users: TouchedUsers, past: Histories, step: int
    ) -> list[IntentShift]:
        if not found:
            return []
        all_of = _Shifts(*(np.concatenate(column) for column in zip(*found, strict=True)))
        evidence = self._evidence(past.select(all_of.tests), all_of.origin, all_of.to)
        shifts = []
        for number, (test, items) in enumerate(zip(all_of.tests.tolist(), evidence, strict=True)):
            user = int(tests.users[test])
            shifts.append(
                IntentShift(
                    user=users.names[user].decode(),
                    from_intent=int(all_of.origin[number]),
                    to_intent=int(all_of.to[number]),
                    cause="model" if all_of.by_model[number] else "user",
                    confidence=round(float(all_of.confidence[number]), 4),
                    evidence=items,
                    held_for=int(all_of.held_for[number]),
                    step=step,
                    as_of=users.as_of(user, int(tests.later[test])),
                )
            )
        return shifts

    def _evidence(self, past: Histories, origin: NDArray[np.int32], to: NDArray[np.int32]) -> list[list[str]]:
        """The items that drew each of m users to the new intent, strongest first."""
        shifts = self._config.shifts
        newest, k = past.newest(shifts.evidence_window), shifts.evidence
        if not k:
            return [[] for _ in range(len(newest))]
        attraction = self._learner.attraction(newest, origin, to)
        ids = self._learner.item_ids(strongest(newest.items, attraction, k).ravel())
        return [[item for item in ids[start : start + k] if item] for start in range(0, len(ids), k)]

    # -- catalog ----------------------------------------------------------------------------------------------------

    def follow_centers(self, event_number: int, reseed: bool) -> float:
        """Follow the centers after a step's learning: place dead ones anew, merge what is one; returns how far the
        centers moved.

        Parameters
        ----------
        event_number
            Events accepted so far.
        reseed
            Whether dead and crowded centers are placed anew at once.
        """
        update = self._learner.maintain_centers(event_number, reseed)
        self._dead += [birth.died for birth in update.births] + update.absorbed
        return update.movement

    def catalog(self, event_number: int, ts: int, step: int) -> list[Message]:
        """Build tombstones of dead intents and the entries of all others, when they are due at `event_number`."""
        if not self._dead and event_number - self._catalog_event < self._config.engine.catalog_events:
            return []
        self._catalog_event = event_number
        tombstones = [Message(topics.INTENT_CATALOG, str(intent).encode(), None, ts) for intent in self._dead]
        self._dead = []
        self._learner.update_map()
        return tombstones + [self._entry(info, ts, step) for info in self._learner.catalog()]

    def _entry(self, info: IntentInfo, ts: int, step: int) -> Message:
        entry = Intent(
            intent=info.intent,
            name=name_intent(info.items, self._titles),
            top_items=info.items,
            share=round(min(max(info.share, 0.0), 1.0), 6),
            separation=round(info.separation, 4),
            speed=round(info.speed, 4),
            position=[round(place, 4) for place in info.position],
            born_at=info.born_at,
            step=step,
            ts=ts,
        )
        return Message(topics.INTENT_CATALOG, str(info.intent).encode(), _encode(entry), ts)

    def retire(self, intents: Sequence[int]) -> None:
        """End intents that a new network does not have; the next catalog publishes their tombstones."""
        self._dead += intents

    # -- durable ----------------------------------------------------------------------------------------------------

    def to_state(self) -> dict[str, Any]:
        """Everything that the next step depends on, JSON-able, exact."""
        return {"rule": self._rule.to_state(), "dead": self._dead, "catalog_event": self._catalog_event}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what `to_state` gave; the learner has been loaded."""
        self._rule.load_state(state["rule"])
        self._dead, self._catalog_event = list(state["dead"]), state["catalog_event"]


def _shift_message(shift: IntentShift) -> Message:
    return Message(topics.INTENT_SHIFTS, shift.user.encode(), _encode(shift), shift.as_of.ts)


__all__ = ["IntentFollower", "IntentUpdate"]
