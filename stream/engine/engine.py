"""The engine: the deterministic core. It takes records, returns messages, and owns all learned state.

No clock, no network, no global randomness: the same records in the same steps give the same bits.

One step, in this order: decode, bring the events to their users, score what was published, admit new items, append to
the histories, learn from the events (test, then train), recommend, follow the intents, detect drift. Items are admitted
before the histories are written because a history holds item handles, not ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learner.offline.init_learner import fingerprint, start_from
from learner.online.histories import Histories
from learner.online.learner import Learner
from learner.online.step import PrequentialResult, StepBatch
from state.checkpoints import Checkpoint, CheckpointStore, PendingCheckpoint
from state.histories import Appended
from state.watermarks import Watermarks
from stream.config import StreamConfig
from stream.engine import checkpoint as saved
from stream.engine.accuracy import Accuracy, ServedScore
from stream.engine.decoding import DecodedStep, decode_batches
from stream.engine.drift import DriftControl, StepStats
from stream.engine.event_clock import EventClock
from stream.engine.gauges import gauges
from stream.engine.init_model import first_notes, keep_model, kept_model, warn_of_other
from stream.engine.intents import IntentFollower
from stream.engine.keying import KeyedEvents, key_by_user
from stream.engine.learning_plan import plan_learning
from stream.engine.message_builders import checksum, erasure_messages
from stream.engine.migrations import read_state
from stream.engine.publishing import Publisher
from stream.engine.queries import Answer, Explanation, answer, explanation
from stream.engine.step import COUNTERS, Arrivals, Outcome, StepResult
from stream.engine.users import StepUsers, TouchedUsers, UserRecords, open_store, put_intents
from stream.log.base import Message, RecordBatch
from stream.mapping.decoder import make_decoder
from stream.schema.event_batch import EventBatch
from stream.schema.events import Erasure
from stream.schema.user_keys import user_keys


class Engine:
    """The deterministic core; `Engine.open` continues from the newest valid checkpoint of a state folder.

    Parameters
    ----------
    config
        The whole configuration; the parts that shape stored data must be those of the checkpoint.
    folder
        The state folder: `live/` holds the running RocksDB, `checkpoints/` the checkpoints.
    checkpoint
        Where to continue from; None starts empty.
    titles
        Title and category by item id, to name the intents with.
    init
        Folder of the fitted model that an engine without a checkpoint begins with; None begins with nothing.
    """

    def __init__(
        self,
        config: StreamConfig,
        folder: Path,
        checkpoints: CheckpointStore,
        checkpoint: Checkpoint | None = None,
        titles: Mapping[str, tuple[str, str]] | None = None,
        init: Path | None = None,
    ) -> None:
        self.config = config
        self._folder = folder
        self._checkpoints = checkpoints
        self.decoder = make_decoder(config.events, config.actions)
        self._action_weights = np.array(config.actions.weights(), dtype=np.float32)
        self.learner = Learner(config.learner, config.actions.weights())
        self.init_fingerprint = ""  # of a fitted model
        self._init = init if checkpoint is None else None
        if self._init is not None:
            start_from(self.learner, self._init)
            self.init_fingerprint = fingerprint(self._init)
        stored = read_state(checkpoint) if checkpoint is not None else None
        if stored is not None:
            saved.refuse_other_shape(stored, saved.shape(config))
        self.partition_counts = saved.partition_counts(stored, config)  # that the event topic has had, the present last
        partitions = self.partition_counts[0]  # of the state, whatever the topic has now
        self.store = open_store(config, partitions, folder / "live", checkpoint)
        self._users = UserRecords(self.store, config.state.history_ttl_ms)
        self.intents = IntentFollower(config, self.learner, titles)
        self.drift = DriftControl(config, self.learner)
        self._publisher = Publisher(config.engine, self.learner)
        self.step_number = 0
        self.record_number = 0
        self.event_clock = EventClock()
        self.clocks = Watermarks(partitions, config.state.history_ttl_ms)  # by which users are forgotten
        self.positions: dict[int, int] = {partition: 0 for partition in range(partitions)}
        self.counters: dict[str, int] = dict.fromkeys(COUNTERS, 0)
        self.accuracy = Accuracy()
        self._step_records = 0  # of the newest step
        self.last_loss = float("nan")
        # a journal offset at or before the entry of the newest step that a checkpoint was due after
        self.journal_from = 0
        if stored is not None:
            saved.load(self, stored)

    @classmethod
    def open(
        cls,
        config: StreamConfig,
        folder: Path,
        titles: Mapping[str, tuple[str, str]] | None = None,
        init: Path | None = None,
        up_to: int | None = None,
    ) -> Engine:
        """Continue from the newest valid checkpoint in `folder`, or begin with the fitted model in `init`, or with
        nothing.

        A copy of the model that `keep_init` left in `folder` goes before `init`. Checkpoints after step `up_to` are
        removed.

        Raises
        ------
        StateMismatch
            The checkpoint was made with another shape of model or histories.
        StateError
            The folder cannot be read or written, or its format is unknown.
        ModelFileError
            There is no fitted model in `init`, or one of another shape.
        """
        folder.mkdir(parents=True, exist_ok=True)
        checkpoints = CheckpointStore(
            folder / "checkpoints",
            keep=config.engine.keep_checkpoints,
            location=config.state.checkpoint_location or None,
        )
        if up_to is not None:
            checkpoints.drop_after(up_to)
        engine = cls(config, folder, checkpoints, checkpoints.latest(), titles, kept_model(folder) or init)
        if init is not None:
            warn_of_other(init, engine.init_fingerprint, folder)
        return engine

    def keep_init(self) -> None:
        """Copy the fitted model that this engine began with into the state folder, before anything is made from it."""
        if self._init is not None and kept_model(self._folder) is None:
            keep_model(self._init, self._folder)

    # -- one step ---------------------------------------------------------------------------------------------------

    def step(self, batches: Sequence[RecordBatch]) -> StepResult:
        """Take the records, return what is to be published. Nothing is durable before the worker's commit.

        The batches may come in any order; they are taken by partition, so that the outcome is a function of the ranges.
        """
        self.step_number += 1
        self.add_partitions(batch.partition for batch in batches)
        batches = sorted(batches, key=lambda batch: batch.partition)
        decoded = decode_batches(self.decoder, batches)
        arrived = self._arrive(decoded)
        served = self._score(arrived)
        events = self._admit(arrived.events)
        appended = self._append(events, arrived.users)
        outcome = self._learn_and_recommend(events, appended, arrived.users)
        self._users.write(outcome.users)
        ranges = self._advance(batches)
        stats = StepStats(
            records=self._step_records,
            dead_letters=len(decoded.dead_letters),
            events=len(outcome.items),
            served=served.events,
            hits=served.hits,
            items=outcome.items,
            learned=outcome.learned,
        )
        alerts = self.drift.detect(stats, self.event_number, self.event_clock.now, self.step_number)
        catalog = self.intents.catalog(self.event_number, self.event_clock.now, self.step_number)
        self.counters["alerts"] += len(alerts)
        messages = [*decoded.dead_letters, *arrived.receipts, *outcome.messages, *alerts, *catalog]
        return StepResult(
            self.step_number,
            ranges,
            messages,
            checksum(messages),
            self._step_records,
            self.event_clock.now,
            outcome.shifts,
            self._notes(),
        )

    def _notes(self) -> dict[str, str]:
        notes = self.drift.notes()
        return notes | first_notes(self.partition_counts[0], self.init_fingerprint) if self.step_number == 1 else notes

    def seek(self, partition: int, offset: int) -> None:
        """Take the next records of the partition from `offset`; those in between are counted as truncated."""
        self.counters["truncated"] += max(0, offset - self.positions[partition])
        self.positions[partition] = offset

    def add_partitions(self, named: Iterable[int]) -> None:
        """Add partitions of the topic created since the last step; users stay in their state partitions.

        They come with the batches of one step, so that a recovery from the journal takes them over at the same step.
        """
        partitions = 1 + max(named, default=-1)
        if partitions <= len(self.positions):
            return
        self.positions |= {partition: 0 for partition in range(len(self.positions), partitions)}
        self.partition_counts.append(partitions)

    def _advance(self, batches: Sequence[RecordBatch]) -> list[tuple[int, int, int]]:
        """Advance the positions past the records of a step; returns their ranges: partition, start, stop."""
        ranges = [(batch.partition, self.positions[batch.partition], batch.next_offset) for batch in batches]
        self.positions |= {batch.partition: batch.next_offset for batch in batches}
        self._step_records = sum(len(batch) for batch in batches)
        self.record_number += self._step_records
        return ranges

    def _arrive(self, decoded: DecodedStep) -> Arrivals:
        """Read the users' records, advance the clocks and erase users on request."""
        self.counters["dead_letters"] += len(decoded.dead_letters)
        self.counters["unknown_fields"] += decoded.unknown_fields
        self.counters["values_dropped"] += decoded.values_dropped
        self.counters |= {"skipped": n + self.counters.get("skipped", 0)} if (n := decoded.skipped) else {}
        self.event_clock.advance(decoded.events)
        keyed = key_by_user(decoded.events, decoded.kept(), decoded.erasures, self.store.partitions)
        users = self._users.read(keyed.names, keyed.partitions, self.clocks.floor)
        events, user_rows = keyed.events, keyed.events.user_rows
        clock = self.clocks.advance(users.partitions[user_rows], events.ts, users.keys[user_rows])
        self.counters["misplaced"] += keyed.misplaced(self.partition_counts[1:])
        return self._erase(decoded.erasures, replace(keyed, events=replace(events, clock=clock)), users)

    def _erase(self, erasures: Sequence[Erasure], keyed: KeyedEvents, users: StepUsers) -> Arrivals:
        """Erase users on request, with their events of this step that came before it."""
        receipts: list[Message] = []
        for erasure in erasures:
            users = self._users.blank(users, erasure.user)
            self.learner.forget(int(user_keys([erasure.user])[0]))
            self.counters["erased"] += 1
            receipts += erasure_messages(erasure, self.step_number, self.config.events.topic)
        self.counters["events"] += int((~keyed.keep).sum())  # as if the request came a step later
        return Arrivals(keyed.events.select(keyed.keep), users, receipts)

    def _score(self, arrived: Arrivals) -> ServedScore:
        """Score the lists last published on the events; served accuracy, test then train."""
        events, records = arrived.events, arrived.users.records[arrived.events.user_rows]
        published = (records["list_step"] > 0) & (self._action_weights[events.actions] > 0)
        return self.accuracy.score_published(records["list"], published, self.learner.lookup(events.items))

    def _admit(self, events: EventBatch) -> EventBatch:
        """Give every event its item's handle; items not known yet are taken into the vocabulary."""
        if not len(events):
            return events
        known = self.learner.lookup(events.items)
        numbers = np.arange(self.record_number, self.record_number + len(events), dtype=np.int64)
        handles = self.learner.admit(events.items, numbers)
        # a full vocabulary may give away an item's row and take the item in again within a step
        self.counters["items_admitted"] += len(set(handles[handles != known].tolist()))
        return replace(events, handles=handles)

    def _append(self, events: EventBatch, users: StepUsers) -> Appended:
        """Put the events into the histories."""
        appended = self._users.append(events, users)
        accepted = appended.accepted
        self.counters["users"] += int(appended.new_user.sum())
        self.counters["events"] += int(accepted.sum())
        self.counters["duplicates"] += int((~accepted).sum())
        self.counters["late"] += int((appended.late & accepted).sum())
        return appended

    def _learn_and_recommend(self, arrived: EventBatch, appended: Appended, users: StepUsers) -> Outcome:
        """Learn from the accepted events, recommend to their users and follow the users' intents."""
        users = replace(users, records=appended.records)
        events = arrived.select(appended.accepted)
        if not len(events):
            return Outcome(users, np.zeros(0, dtype=np.int64), None, [], [])
        learned = self._take(events, appended, users)
        touched = TouchedUsers.of(events)
        records = users.records[touched.rows]
        histories = Histories.of_records(records)
        ranking = self.learner.recommend(histories, self.config.engine.list_len)
        update = self.intents.follow(touched, histories, records, self.step_number)
        put_intents(records, update.state)
        published = self._publisher.publish(touched, ranking, records, self.step_number)
        published.put(records, touched.ts, self.step_number)
        users.records[touched.rows] = records
        by_model = sum(shift.cause == "model" for shift in update.shifts)
        self.counters["shifts"] += len(update.shifts) - by_model
        self.counters["model_shifts"] += by_model
        self.counters["recommendations"] += len(published.rows)
        messages = [*update.messages, *published.messages]
        return Outcome(users, events.handles, learned, update.shifts, messages)

    def _take(self, events: EventBatch, appended: Appended, users: StepUsers) -> PrequentialResult:
        """Test the learner on the accepted events, then let it have them."""
        accepted = np.flatnonzero(appended.accepted)
        batch = StepBatch(
            users=users.keys[events.user_rows],
            histories=Histories(
                appended.contexts[accepted], appended.context_actions[accepted], appended.context_ts[accepted]
            ),
            items=events.handles,
            weights=self._action_weights[events.actions],
            ts=events.ts,
        )
        shadows = self.drift.score_shadows(batch, self.step_number)
        evaluate = self.config.engine.evaluates(self.step_number)
        learned = self.learner.observe(batch, evaluate, self.drift.effects().update_window)
        self.drift.choose_serving(shadows, learned.placed, self.step_number)
        self.accuracy.add_prequential(learned.ranks)
        return learned

    # -- answers ----------------------------------------------------------------------------------------------------

    def recommend(self, user: bytes, k: int) -> Answer:
        """Recommend to one user from the state as it is; changes nothing. An unknown user gets the popular items."""
        return answer(self.learner, self.records([user]), user, k)

    def explain(self, user: bytes, k: int) -> Explanation:
        """Recommend to one user and say what decided it; changes nothing."""
        return explanation(self.learner, self.records([user]), user, k)

    def records(self, users: Sequence[bytes]) -> NDArray[Any]:
        """Return the records (B,) of users; blank where nothing is known."""
        return self._users.of_names(users, self.clocks.now)

    def user_intents(self) -> Iterator[tuple[str, int]]:
        """Every user who holds an intent, with it."""
        for names, records in self._users.scan(self.clocks.now):
            intents = self.learner.current_intents(records["intent"]).tolist()
            yield from ((name.decode(), intent) for name, intent in zip(names, intents, strict=True) if intent >= 0)

    # -- learning ---------------------------------------------------------------------------------------------------

    def plan_learning(self, records: int, backlog: int) -> int:
        """Mini-batches for a step of `records` records with `backlog` records still waiting; decided before the
        commit.
        """
        return plan_learning(self.config, records, self.learner.unlearned, backlog, self.drift.effects().steps)

    def learn(self, steps: int) -> None:
        """Make `steps` mini-batch updates from the users touched and replayed ones."""
        updates, refused = 0.0, 0
        effects = self.drift.effects()
        if steps > 0:
            report = self.learner.learn(steps, effects.rate, effects.newest, max(round(steps / effects.steps), 1))
            updates, refused = report.steps * effects.rate, report.refused
            self.counters["learn_steps"] += report.steps
            self.counters["learn_refused"] += refused
            self.counters["examples"] += report.examples
            self.last_loss = report.loss
        self.drift.apply_actions(self.event_number)
        movement = self.intents.follow_centers(self.event_number, effects.reseed)
        self.drift.note_learning(movement, updates, refused)
        self._users.sweep(self.clocks.floor, self._step_records)

    @property
    def event_number(self) -> int:
        """Events accepted so far; `record_number` also counts duplicates and dead letters."""
        return self.counters["events"]

    @property
    def model_step(self) -> int:
        """Optimizer steps behind the weights."""
        return self.learner.model_step

    def gauges(self) -> dict[str, float]:
        """Figures of the learner and of the served lists, for the metrics topic; no part of the state."""
        return gauges(self)

    # -- durable ----------------------------------------------------------------------------------------------------

    def begin_checkpoint(self) -> PendingCheckpoint:
        """Begin an atomic snapshot of everything after the last step; `finish` of what is returned may run in a
        thread.
        """
        return saved.begin_checkpoint(self, self._checkpoints)

    def checkpoint(self) -> Path:
        """Take a checkpoint from begin to end; returns its folder."""
        return self.begin_checkpoint().finish()

    def digest(self) -> str:
        """Hash of all state that a replay must reproduce, as 32 hexadecimal digits."""
        return saved.digest(self)

    def close(self) -> None:
        """Release the files; without a checkpoint since the last step the journal brings that step back."""
        self.store.close()


__all__ = ["Answer", "Engine", "Explanation", "StepResult"]
