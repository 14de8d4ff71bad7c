"""What the engine does about intents and drift: shifts with their cause, the catalogue, episodes and their actions.

Called by the engine between the learner and the messages; deterministic, everything remembered is in `to_state`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from learner import (
    ActiveActions,
    DriftMonitor,
    EpisodeChange,
    IntentInfo,
    IntentState,
    IntentView,
    Learner,
    Observed,
    PrequentialResult,
    ShiftRule,
    StepBatch,
    history_before,
    name_intent,
    strongest,
)
from learner.drift.config import GATE
from learner.drift.fallback import FallbackPolicy, exclude_seen, gain_of, gains
from stream.config import StreamConfig
from stream.engine.message_builders import Coordinates, shift_message
from stream.errors import StateMismatch
from stream.log.base import Message
from stream.schema import topics
from stream.schema.messages import DriftAlert, Intent, IntentShift

_FORMAT: Final = 4  # 4: learning steps since the last step
LOOKS: Final = 8  # newest events of a user in a step after each of which there is a look
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class StepStats:
    """What a step showed besides what the learner took; filled by the engine while the step goes on."""

    records: int = 0
    dead_letters: int = 0
    events: int = 0
    served: int = 0
    hits: int = 0
    taken: PrequentialResult | None = None
    items: NDArray[np.int64] | None = None


class _Found(NamedTuple):
    """Shifts of one round of looks, every field (m,)."""

    rows: NDArray[np.int64]
    """of the looks"""
    by_model: NDArray[np.bool_]
    origin: NDArray[np.int32]
    to: NDArray[np.int32]
    confidence: NDArray[np.float64]
    held_for: NDArray[np.int64]


class _Looks:
    """The looks of a step: n of them, one after each of the newest `depth` events of every user.

    Parameters
    ----------
    depth
        Most looks at a user.
    events
        (U,) events of each user in the step, at least 1.
    all_events
        (U,) events of each user ever, these included.
    settle_events
        A user's first events, in which the intent is still looked for.
    """

    def __init__(
        self, depth: int, events: NDArray[np.int64], all_events: NDArray[np.int64], settle_events: int
    ) -> None:
        each = np.minimum(events, depth)
        later = [np.full(int((events > back).sum()), back) for back in range(depth - 1, -1, -1)]
        self.later = np.concatenate([*later, np.zeros(0, dtype=np.int64)]).astype(np.int64)
        """(n,) events of the user in this step that are still to come; the furthest back first"""
        users = [np.flatnonzero(events > back) for back in range(depth - 1, -1, -1)]
        self.users = np.concatenate([*users, np.zeros(0, dtype=np.int64)]).astype(np.int64)
        """(n,) of whom"""
        self.so_far = events[self.users] - self.later
        """(n,) events of the user in this step up to the look"""
        first = self.later == each[self.users] - 1
        self.new = np.where(first, self.so_far, 1)
        """(n,) events since the look before"""
        self.settling = all_events[self.users] - self.later <= settle_events
        """(n,) whether the user's intent is still looked for"""

    def after(self, row: int, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """The looks behind look `row` at these users, but those in which the intent is still looked for."""
        if not len(users):
            return users
        wanted = np.zeros(int(self.users.max()) + 1, dtype=bool)
        wanted[users] = True
        return row + 1 + np.flatnonzero(wanted[self.users[row + 1 :]] & ~self.settling[row + 1 :])

    def rounds(self) -> Iterator[NDArray[np.int64]]:
        """The looks that can be made at once, at one per user: numbers, rising."""
        starts = np.flatnonzero(np.diff(self.later, prepend=-1))
        yield from (rows for rows in np.split(np.arange(len(self.later)), starts) if len(rows))


class ShadowScores(NamedTuple):
    """What the gate compares of a step, beside the learner."""

    events: NDArray[np.int64]
    """(m,) which events of the step"""
    snapshot: NDArray[np.float64] | None
    """(m,) gains of the snapshot's lists; None: there is none"""
    popular: NDArray[np.float64]
    """(m,) gains of the popular list"""


class Meaning:
    """Shifts, catalogue, drift.

    Parameters
    ----------
    config
        Its sections `shifts`, `drift` and `engine`.
    learner
        Asked about users; `after_learning` lets it re-seed dead intents.
    titles
        Title and category by item id, from the file given with `--items`; names the intents.
    """

    def __init__(
        self, config: StreamConfig, learner: Learner, titles: Mapping[str, tuple[str, str]] | None = None
    ) -> None:
        self._config = config
        self._learner = learner
        self._titles = dict(titles or {})
        self._rule = ShiftRule(config.shifts)
        self._monitor = DriftMonitor(config.drift, config.learner.seed)
        self._gate = FallbackPolicy(config.gate)
        self._lead: float | None = None  # of the learner over its snapshot, where that has just taken over
        self._movement = 0.0
        self._updates = 0.0
        self._refused = 0
        self._dead: list[int] = []  # intents whose tombstone is still to be published
        self._catalogued_at = -1  # records at which the catalogue was last published
        self._aged_at = 0  # records up to which the memories have aged
        self.shifts: list[IntentShift] = []  # of the newest step, also those that are not published

    # -- shifts -----------------------------------------------------------------------------------------------------

    def update_intents(
        self,
        back: Sequence[Coordinates],
        histories: NDArray[np.int64],
        actions: NDArray[np.uint8],
        events: NDArray[np.int64],
        records: NDArray[Any],
        counters: dict[str, int],
        step: int,
    ) -> list[Message]:
        """Look where the touched users stand after each of their events; returns the shifts to publish.

        Parameters
        ----------
        back
            Coordinates of the U users' newest events, of those before, and so on; from the oldest of these on there is
            a look after each event.
        histories, actions
            (U, L) handles and action codes after the step.
        events
            (U,) events of each user in the step, at least 1.
        records
            (U,) records of the users, changed in place.
        counters
            `shifts` and `model_shifts` are added to.
        step
            Engine step.
        """
        self.shifts = []
        held = self._learner.current_intents(records["intent"])
        standing = IntentState(
            held,
            records["intent_events"].astype(np.int64),
            self._learner.current_intents(records["candidate"]),
            records["candidate_count"].astype(np.int64),
            records["shift_level"].astype(np.int64),
        )
        looks = _Looks(len(back), events, records["events"].astype(np.int64), self._config.shifts.settle_events)
        # one question for all looks, as if nobody moved; whoever does is asked about again
        width = max(self._config.learner.evidence.memory, self._config.shifts.evidence_window)
        newest = slice(-width - len(back) + 1, None)
        past = history_before(histories[looks.users, newest], actions[looks.users, newest], looks.later)
        span = standing.events[looks.users] + looks.so_far
        view = self._learner.intents(*past, held[looks.users], span, looks.settling)
        columns: list[NDArray[Any]] = [*view]
        found: list[_Found] = []
        for rows in looks.rounds():
            users = looks.users[rows]
            now = IntentView(*(column[rows] for column in columns))
            mine = standing.of(users)
            settling = looks.settling[rows]
            nearest = np.where(settling, now.best, now.nearest)
            forced = now.retired | now.stale
            moves = self._rule.look(mine, nearest, now.lead, looks.new[rows], forced, now.began, settling)
            fields: Iterator[tuple[Any, NDArray[Any]]] = zip(standing, moves.standing, strict=True)
            for field, value in fields:
                field[users] = value
            again = looks.after(rows[-1], users[moves.standing.intent != mine.intent])
            if len(again):
                these = looks.users[again]
                span = standing.events[these] + looks.later[rows[0]] - looks.later[again]
                nobody = np.zeros(len(again), dtype=bool)
                anew = self._learner.intents(past[0][again], past[1][again], standing.intent[these], span, nobody)
                answers: list[NDArray[Any]] = [*anew]
                for column, answer in zip(columns, answers, strict=True):
                    column[again] = answer
            shifted = np.flatnonzero(moves.shifted)
            if len(shifted):
                by_model = (now.before | forced)[shifted]
                confidence, held_for = moves.confidence[shifted], moves.held_for[shifted]
                origin, to = mine.intent[shifted], nearest[shifted]
                found.append(_Found(rows[shifted], by_model, origin, to, confidence, held_for))
        records["intent"], records["intent_events"] = standing.intent, standing.events
        records["candidate"], records["candidate_count"] = standing.candidate, standing.waited
        records["shift_level"] = standing.level
        return self._tell(found, looks, back, past, counters, step) if found else []

    def _tell(
        self,
        found: list[_Found],
        looks: _Looks,
        back: Sequence[Coordinates],
        past: tuple[NDArray[np.int64], NDArray[np.uint8]],
        counters: dict[str, int],
        step: int,
    ) -> list[Message]:
        """Count the shifts, give them to `shifts`, and return the messages of those to publish."""
        rows, by_model, origin, to, confidence, held_for = (np.concatenate(c) for c in zip(*found, strict=True))
        counters["shifts"] += int((~by_model).sum())
        counters["model_shifts"] += int(by_model.sum())
        evidence = self._evidence(past[0][rows], past[1][rows], origin, to)
        messages = []
        for number, (row, items) in enumerate(zip(rows.tolist(), evidence, strict=True)):
            user, where = int(looks.users[row]), back[int(looks.later[row])]
            shift = IntentShift(
                user=where.users[user].decode(),
                from_intent=int(origin[number]),
                to_intent=int(to[number]),
                cause="model" if by_model[number] else "user",
                confidence=round(float(confidence[number]), 4),
                evidence=items,
                held_for=int(held_for[number]),
                step=step,
                as_of=where.as_of(user),
            )
            self.shifts.append(shift)
            if not by_model[number] or self._config.shifts.publish_model_shifts:
                messages.append(shift_message(where, user, shift))
        return messages

    def _evidence(
        self,
        histories: NDArray[np.int64],
        actions: NDArray[np.uint8],
        origin: NDArray[np.int32],
        to: NDArray[np.int32],
    ) -> list[list[str]]:
        """The items that drew each of m users to the new intent, strongest first."""
        shifts = self._config.shifts
        newest, codes = histories[:, -shifts.evidence_window :], actions[:, -shifts.evidence_window :]
        if not len(newest) or not shifts.evidence:
            return [[] for _ in range(len(newest))]
        handles = strongest(newest, self._learner.pull(newest, codes, origin, to), shifts.evidence)
        ids = self._learner.item_ids(handles.ravel())
        k = shifts.evidence
        return [[item for item in ids[start : start + k] if item] for start in range(0, len(ids), k)]

    # -- drift ------------------------------------------------------------------------------------------------------

    def compare(self, batch: StepBatch, step: int) -> ShadowScores | None:
        """How snapshot and popular list do on events (n,) of a step that nobody has learned yet; None: it is not due.

        Call before the learner takes them, and `update_gate` after that, which needs the answer.
        """
        if not self._gate.due(step):
            return None
        # the learner's own ranks are those of `take`, which of the first chunk are from before anything is learned
        wanted = np.flatnonzero((batch.contexts > 0).any(axis=1) & (batch.weights > 0))[: self._gate.config.sample]
        some = wanted[wanted < self._config.learner.mix.chunk]
        histories, actions, times = batch.contexts[some], batch.context_actions[some], batch.context_ts[some]
        items, k, learner = batch.items[some], self._config.engine.list_len, self._learner
        snapshot = None
        if learner.has_snapshot:
            snapshot = gains(learner.recommend(histories, actions, times, k, batch.ts[some], "snapshot").items, items)
        popular = learner.popular(k + histories.shape[1])
        return ShadowScores(some, snapshot, gains(exclude_seen(popular, histories, k), items))

    def update_gate(self, compared: ShadowScores | None, placed: NDArray[np.int64], step: int) -> None:
        """Give the gate what was compared beside the learner's own ranks `placed` (n,) of the step's events.

        Who answers from then on, in this step too, may be another.
        """
        if compared is None:
            return
        own = gain_of(placed[compared.events], self._config.engine.list_len)
        snapshot = own if compared.snapshot is None else compared.snapshot
        verdict = self._gate.compare(step, own, snapshot, compared.popular, calm=not self._monitor.is_open)
        if verdict.renew:
            self._learner.keep_snapshot()
        if verdict.changed:
            self._learner.serving = verdict.serving
            self._lead = verdict.against_snapshot if verdict.serving == "snapshot" else None

    def detect_drift(self, tally: StepStats, number: int, ts: int, step: int) -> list[Message]:
        """Give the step to the detectors; returns the alerts.

        Parameters
        ----------
        tally
            What the step showed.
        number
            Records taken so far, this step included.
        ts
            Newest event time so far, epoch milliseconds.
        step
            Engine step.
        """
        taken, nobody = tally.taken, np.zeros(0, dtype=np.int64)
        if taken is None:
            self.shifts = []  # nobody was followed in this step
        seen = Observed(
            events=tally.events,
            records=tally.records,
            dead_letters=tally.dead_letters,
            ts=ts,
            served=tally.served,
            hits=tally.hits,
            loss=float("nan") if taken is None else taken.loss,
            distance=float("nan") if taken is None else taken.distance,
            intents=nobody if taken is None else taken.intents,
            items=nobody if tally.items is None else tally.items,
            new_items=0 if taken is None else taken.new_items,
            movement=self._movement,
            updates=self._updates,
            refused=self._refused,
            groups=self._learner.tracker.merging.representatives,
        )
        self._movement, self._updates, self._refused = 0.0, 0.0, 0
        changes = []
        can_go_back = self._learner.has_snapshot
        if self._lead is not None:
            changes += self._monitor.tell(GATE, 0.0, self._lead, number, ts, can_go_back=can_go_back)
            self._lead = None
        hold = self._gate.serving == "snapshot"  # its episode lasts as long
        changes += self._monitor.step(seen, number, hold=hold, can_go_back=can_go_back)
        return [self._alert(change, step) for change in changes]

    def _alert(self, change: EpisodeChange, step: int) -> Message:
        alert = DriftAlert(
            episode=change.episode,
            state=change.state,
            kind=change.kind,
            signals=list(change.signals),
            detector=change.detector,
            before=round(change.before, 6),
            after=round(change.after, 6),
            since_event=change.since_event,
            since_ts=change.since_ts,
            at_event=change.at_event,
            action="+".join(change.actions),
            action_until=change.until,
            step=step,
            ts=change.ts,
        )
        return Message(topics.DRIFT_ALERTS, change.signals[0].encode(), _encode(alert), change.ts)

    def effects(self) -> ActiveActions:
        """What the open episode's actions ask of the learning after this step."""
        return self._monitor.effects()

    def notes(self) -> dict[str, str]:
        """For the journal: the actions in force."""
        effects, neutral = self._monitor.effects(), ActiveActions()
        asked = {name: value for name, value in effects._asdict().items() if value != getattr(neutral, name)}
        notes = {f"drift.{name}": str(value) for name, value in asked.items()}
        return notes | ({"serving": "snapshot"} if self._gate.serving == "snapshot" else {})

    def after_learning(self, number: int, updates: float, refused: int) -> None:
        """Call after every step's learning, also when there was none: steps made, by their rate, and those refused.

        Measures the centers, places dead ones anew, and does what an open episode asks for beside the learning.
        """
        effects = self._monitor.effects()
        if effects.half_lives < 1:
            passed = max(number - self._aged_at, 0)
            self._learner.age_popularity(passed * (1 / effects.half_lives - 1))
        self._aged_at = number
        if effects.followers < 1:
            self._learner.fade_followers(effects.followers)
        if effects.rollback and self._learner.go_back():
            self._gate.went_back()
        turned = self._learner.tracker.update_centers(number, effects.reseed)
        self._movement += turned.movement
        self._updates += updates
        self._refused += refused
        self._dead += [birth.died for birth in turned.births] + turned.absorbed
        self._monitor.acted()

    # -- catalogue --------------------------------------------------------------------------------------------------

    def catalogue(self, number: int, ts: int, step: int) -> list[Message]:
        """The intents' entries, when they are due, and tombstones of the dead."""
        if not self._dead and number - self._catalogued_at < self._config.engine.catalog_events:
            return []
        self._catalogued_at = number
        gone = [Message(topics.INTENT_CATALOG, str(intent).encode(), None, ts) for intent in self._dead]
        self._dead = []
        return gone + [self._entry(info, ts, step) for info in self._learner.catalog(turn_map=True)]

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

    # -- durable ----------------------------------------------------------------------------------------------------

    def to_state(self) -> dict[str, Any]:
        """Everything that the next step depends on, JSON-able, exact."""
        return {
            "format": _FORMAT,
            "rule": self._rule.to_state(),
            "monitor": self._monitor.to_state(),
            "gate": self._gate.to_state(),
            "movement": self._movement,
            "updates": self._updates,
            "refused": self._refused,
            "dead": self._dead,
            "catalogued_at": self._catalogued_at,
            "aged_at": self._aged_at,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what `to_state` gave; the learner has been loaded.

        Raises
        ------
        StateMismatch
            Another format.
        """
        if state.get("format") != _FORMAT:
            raise StateMismatch(
                f"intents and drift: state of format {state.get('format')!r}, this version reads {_FORMAT}: "
                "use the version that wrote it, or start from an empty state folder"
            )
        self._rule.load_state(state["rule"])
        self._monitor.load_state(state["monitor"])
        self._gate.load_state(state["gate"])
        self._learner.serving = self._gate.serving
        self._movement, self._updates, self._refused = state["movement"], state["updates"], state["refused"]
        self._dead, self._catalogued_at = list(state["dead"]), state["catalogued_at"]
        self._aged_at = state["aged_at"]


__all__ = ["LOOKS", "Meaning", "StepStats"]
