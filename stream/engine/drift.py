"""Drift in the engine: detectors and episodes, the fallback policy, and what an episode changes about learning.

Deterministic; everything remembered beyond a step is in `to_state`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from learner.drift.config import FALLBACK
from learner.drift.episodes import ActiveActions, DriftMonitor, EpisodeChange
from learner.drift.fallback import FallbackPolicy, exclude_seen, gain_of, gains
from learner.drift.signal import Observed
from learner.online.learner import Learner
from learner.online.step import PrequentialResult, StepBatch
from stream.config import StreamConfig
from stream.log.base import Message
from stream.schema import topics
from stream.schema.messages import DriftAlert

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class StepStats:
    """What a step showed."""

    records: int
    dead_letters: int
    events: int
    """accepted events"""
    served: int
    """events whose user had a published list"""
    hits: int
    """of those, on an item of the list"""
    items: NDArray[np.int64]
    """(events,) item handles"""
    learned: PrequentialResult | None
    """None: no event was accepted"""


class ShadowScores(NamedTuple):
    """Gains of the lists that the snapshot and popularity would have served, beside the learner's."""

    events: NDArray[np.int64]
    """(m,) which events of the step"""
    snapshot: NDArray[np.float64] | None
    """(m,) gains of the snapshot's lists; None: there is no snapshot"""
    popular: NDArray[np.float64]
    """(m,) gains of the popular list"""


class DriftControl:
    """Detects drift, chooses between the learner and its snapshot, and applies an episode's actions.

    Parameters
    ----------
    config
        Its sections `drift`, `fallback`, `engine` and `learner`.
    learner
        Scored, switched to its snapshot and back, aged and rolled back.
    """

    def __init__(self, config: StreamConfig, learner: Learner) -> None:
        self._config = config
        self._learner = learner
        self._monitor = DriftMonitor(config.drift, config.learner.seed)
        self._fallback = FallbackPolicy(config.fallback)
        self._lead: float | None = None  # of the learner over its snapshot, which has just taken over
        self._movement = 0.0  # of the centers since the last step
        self._updates = 0.0  # learning steps since the last step, by their rate
        self._refused = 0  # learning steps that the guard refused since the last step
        self._aged_event = 0  # event number up to which the item statistics have aged

    # -- fallback ---------------------------------------------------------------------------------------------------

    def score_shadows(self, batch: StepBatch, step: int) -> ShadowScores | None:
        """Score snapshot and popular list on events (n,) that nobody has learned yet; None when that is not due.

        Call before the learner takes the batch, and `choose_serving` after that.
        """
        if not self._fallback.due(step):
            return None
        # the learner's own ranks are those of `take`, which of the first chunk are from before anything is learned
        wanted = np.flatnonzero((batch.histories.items > 0).any(axis=1) & (batch.weights > 0))[
            : self._fallback.config.sample
        ]
        some = wanted[wanted < self._config.learner.mix.chunk]
        histories = batch.histories.select(some)
        items, k, learner = batch.items[some], self._config.engine.list_len, self._learner
        snapshot = None
        if learner.has_snapshot:
            snapshot = gains(learner.recommend(histories, k, batch.ts[some], "snapshot").items, items)
        popular = learner.popular(k + histories.items.shape[1])
        return ShadowScores(some, snapshot, gains(exclude_seen(popular, histories.items, k), items))

    def choose_serving(self, shadows: ShadowScores | None, placed: NDArray[np.int64], step: int) -> None:
        """Compare the learner's own ranks `placed` (n,) of the step's events with the shadows; this may change who
        answers, from this step on.
        """
        if shadows is None:
            return
        own = gain_of(placed[shadows.events], self._config.engine.list_len)
        snapshot = own if shadows.snapshot is None else shadows.snapshot
        verdict = self._fallback.compare(step, own, snapshot, shadows.popular, calm=not self._monitor.is_open)
        if verdict.renew:
            self._learner.keep_snapshot()
        if verdict.changed:
            self._learner.serving = verdict.serving
            self._lead = verdict.against_snapshot if verdict.serving == "snapshot" else None

    # -- detection --------------------------------------------------------------------------------------------------

    def detect(self, stats: StepStats, event_number: int, ts: int, step: int) -> list[Message]:
        """Give what a step showed to the detectors; returns the alerts.

        Parameters
        ----------
        stats
            What the step showed.
        event_number
            Events accepted so far, this step included.
        ts
            The stream's own time, epoch milliseconds; it may go back.
        step
            Engine step.
        """
        seen = self._observed(stats, ts)
        self._movement, self._updates, self._refused = 0.0, 0.0, 0
        changes = []
        can_roll_back = self._learner.has_snapshot
        if self._lead is not None:
            changes += self._monitor.report_alarm(
                FALLBACK, 0.0, self._lead, event_number, ts, can_roll_back=can_roll_back
            )
            self._lead = None
        hold = self._fallback.serving == "snapshot"  # its episode lasts as long
        self._judge_trial(event_number)
        changes += self._monitor.step(seen, event_number, hold=hold, can_roll_back=can_roll_back)
        if changes:
            self._learner.end_trial()  # of an episode that closed before its actions ended
            if self._monitor.on_trial(event_number):
                self._learner.begin_trial(seed=self._config.learner.seed + self._monitor.episodes)
        return [_alert(change, step) for change in changes]

    def _judge_trial(self, event_number: int) -> None:
        """End the trial of an episode's actions once they have ended, or when they do harm."""
        trial, acts = self._learner.trial, self._monitor.on_trial(event_number)
        if trial is not None and (trial.lost or not acts) and not self._learner.end_trial():
            self._monitor.take_back(event_number)

    def _observed(self, stats: StepStats, ts: int) -> Observed:
        learned, nobody = stats.learned, np.zeros(0, dtype=np.int64)
        return Observed(
            events=stats.events,
            records=stats.records,
            dead_letters=stats.dead_letters,
            ts=ts,
            served=stats.served,
            hits=stats.hits,
            loss=float("nan") if learned is None else learned.loss,
            distance=float("nan") if learned is None else learned.distance,
            intents=nobody if learned is None else learned.intents,
            items=stats.items,
            new_items=0 if learned is None else learned.new_items,
            movement=self._movement,
            updates=self._updates,
            refused=self._refused,
            groups=self._learner.tracker.merging.representatives,
        )

    # -- actions ----------------------------------------------------------------------------------------------------

    def effects(self) -> ActiveActions:
        """What the open episode's actions change about the learning after this step."""
        return self._monitor.effects()

    def notes(self) -> dict[str, str]:
        """For the journal: the actions in force."""
        effects, neutral = self._monitor.effects(), ActiveActions()
        changed = {name: value for name, value in effects._asdict().items() if value != getattr(neutral, name)}
        notes = {f"drift.{name}": str(value) for name, value in changed.items()}
        return notes | ({"serving": "snapshot"} if self._fallback.serving == "snapshot" else {})

    def apply_actions(self, event_number: int) -> None:
        """Do what the open episode changes beside learning; call after every step's learning."""
        effects = self._monitor.effects()
        if effects.half_lives < 1:
            passed = event_number - self._aged_event
            self._learner.age_popularity(passed * (1 / effects.half_lives - 1))
        self._aged_event = event_number
        if effects.followers < 1:
            self._learner.fade_followers(effects.followers)
        if effects.rollback and self._learner.roll_back():
            self._fallback.rolled_back()

    def note_learning(self, movement: float, updates: float, refused: int) -> None:
        """Remember a step's learning for the next `detect`; the actions that happen once have happened.

        Parameters
        ----------
        movement
            Mean distance that the centers moved.
        updates
            Learning steps made, by their rate.
        refused
            Learning steps that the guard refused.
        """
        self._movement += movement
        self._updates += updates
        self._refused += refused
        self._monitor.acted()

    # -- durable ----------------------------------------------------------------------------------------------------

    def to_state(self) -> dict[str, Any]:
        """Everything that the next step depends on, JSON-able, exact."""
        return {
            "monitor": self._monitor.to_state(),
            "fallback": self._fallback.to_state(),
            "movement": self._movement,
            "updates": self._updates,
            "refused": self._refused,
            "aged_event": self._aged_event,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what `to_state` gave; the learner has been loaded."""
        self._monitor.load_state(state["monitor"])
        self._fallback.load_state(state["fallback"])
        self._learner.serving = self._fallback.serving
        self._movement, self._updates, self._refused = state["movement"], state["updates"], state["refused"]
        self._aged_event = state["aged_event"]


def _alert(change: EpisodeChange, step: int) -> Message:
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
        taken_back=change.taken_back,
        step=step,
        ts=change.ts,
    )
    return Message(topics.DRIFT_ALERTS, change.signals[0].encode(), _encode(alert), change.ts)


__all__ = ["DriftControl", "ShadowScores", "StepStats"]
