"""The engine: the deterministic core. Records in, messages out, everything that is learned in memory and on disk.

It uses no clock, no network and no global randomness: the same records in the same steps give the same bits. The worker
around it does the input and output; tests and benchmarks drive it from arrays.

One step, in this order: decode and validate, score what was published, admit new items, put the events into the
histories, let the learner take them (test, then train), recommend, follow the intents, watch for drift. Items are
admitted
before the histories are written because a history holds item handles, not ids.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from learner import Learner, LearnerStateError, Ranking, RankMetrics, StepBatch, WindowedRankMetrics
from learner.offline.init_learner import fingerprint, start_from
from state import Checkpoint, CheckpointStore, PendingCheckpoint, UserStore, Watermarks, append, is_live
from stream.config import StreamConfig
from stream.engine import message_builders
from stream.engine.event_batch import Arrivals, gather, unique_users
from stream.engine.init_model import NOTE, keep_model, kept_model, warn_of_other
from stream.engine.meaning import LOOKS, Meaning, StepStats
from stream.engine.queries import Answer, Explanation, answer, explanation
from stream.errors import EngineError, StateMismatch
from stream.log.base import Message, RecordBatch
from stream.log.partitioner import partitions_of
from stream.schema.decoder import Decoder
from stream.schema.events import user_keys
from stream.schema.messages import AsOf

logger = logging.getLogger(__name__)

ENGINE_FORMAT: Final = 3  # 2: forget_ts; 3: a clock per partition, users know when they were seen
_SWEPT: Final = 64  # most users per partition looked at after a step, to remove the forgotten: one for four records
_SWEPT_LEAST: Final = 4
_FULL: Final = 10  # of so many parts of a mini-batch's records at least one is there before it is made
RECENT_RANKS: Final = 10_000  # newest scored events behind the accuracy gauges: a fall shows within minutes
_COUNTERS: Final = (
    "events",
    "users",
    "dead_letters",
    "unknown_fields",
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
    events: int  # records taken, bad ones included
    event_ts: int  # newest event time seen so far, epoch milliseconds
    notes: dict[str, str]  # the actions of a drift episode in force; in step 1, the model that it all began with


class Engine:
    """The deterministic core; `Engine.open` continues from the newest valid checkpoint of a state folder.

    Parameters
    ----------
    config
        The whole configuration; the parts that shape stored data must be those of the checkpoint.
    folder
        The state folder: `live/` holds the running RocksDB, `checkpoints/` the snapshots.
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
        self._decoder = Decoder(config.actions)
        self._action_weights = np.array(config.actions.weights(), dtype=np.float32)
        self._max_len = config.learner.max_len
        self._learner = Learner(config.learner, config.actions.weights())
        self.init_fingerprint = ""  # fingerprint of a fitted model
        self._init = init if checkpoint is None else None
        if self._init is not None:
            start_from(self._learner, self._init)
            self.init_fingerprint = fingerprint(self._init)
        live = folder / "live"
        if checkpoint is not None:
            _refuse_other_shape(checkpoint, _shape(config))
            UserStore.restore(checkpoint.path / "histories", live)
        else:
            UserStore.destroy(live)
        self._store = UserStore(
            live,
            partitions=config.log.partitions,
            max_len=self._max_len,
            list_len=config.engine.list_len,
            history_ttl_ms=config.state.history_ttl_ms,
            cache_bytes=config.state.cache_bytes,
            write_buffer_bytes=config.state.write_buffer_bytes,
        )
        self.meaning = Meaning(config, self._learner, titles)
        self.step_number = 0
        self.event_number = 0
        self.record_number = 0
        self.event_ts = 0
        self.clocks = Watermarks(config.log.partitions, config.state.history_ttl_ms)  # by which users are forgotten
        self.positions: dict[int, int] = {partition: 0 for partition in range(config.log.partitions)}
        self.counters: dict[str, int] = dict.fromkeys(_COUNTERS, 0)
        self.served = RankMetrics()
        self.prequential = RankMetrics()
        # For the gauges only, so not in the checkpoint: recovery fills them again from the journal's steps.
        self._recent_served = WindowedRankMetrics(RECENT_RANKS)
        self._recent_prequential = WindowedRankMetrics(RECENT_RANKS)
        self._taken = 0  # records of the newest step
        self.last_loss = float("nan")
        self.journal_from = (
            0  # a journal offset at or before the entry of the newest step that a checkpoint was due after
        )
        if checkpoint is not None:
            self._load(checkpoint)

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
        batches = sorted(batches, key=lambda batch: batch.partition)
        messages: list[Message] = []
        ranges = [(b.partition, self.positions[b.partition], b.next_offset) for b in batches]
        tally = StepStats(records=sum(len(batch) for batch in batches))
        arrivals = gather(self._decoder, batches)
        messages += arrivals.letters
        tally.dead_letters = len(arrivals.letters)
        self.counters["dead_letters"] += tally.dead_letters
        self.counters["unknown_fields"] += arrivals.unknown_fields
        if arrivals.users or arrivals.erasures:
            self._take(arrivals, messages, tally)
        for batch in batches:
            self.positions[batch.partition] = batch.next_offset
        self._taken = tally.records
        self.record_number += tally.records
        alerts = self.meaning.detect_drift(tally, self.record_number, self.event_ts, self.step_number)
        self.counters["alerts"] += len(alerts)
        messages += alerts
        messages += self.meaning.catalogue(self.record_number, self.event_ts, self.step_number)
        return StepResult(
            self.step_number,
            ranges,
            messages,
            message_builders.checksum(messages),
            tally.records,
            self.event_ts,
            self._notes(),
        )

    def _notes(self) -> dict[str, str]:
        notes = self.meaning.notes()
        return {**notes, NOTE: self.init_fingerprint} if self.step_number == 1 and self.init_fingerprint else notes

    def seek(self, partition: int, offset: int) -> None:
        """Take the next records of the partition from `offset`; those in between are counted as truncated."""
        self.counters["truncated"] += max(0, offset - self.positions[partition])
        self.positions[partition] = offset

    def _take(self, arrivals: Arrivals, messages: list[Message], tally: StepStats) -> None:
        n = len(arrivals.users)
        ts = np.concatenate(arrivals.ts) if n else np.zeros(0, np.int64)
        actions = np.concatenate(arrivals.actions) if n else np.zeros(0, np.uint8)
        partitions = np.concatenate(arrivals.partitions) if n else np.zeros(0, np.int64)
        offsets = np.concatenate(arrivals.offsets) if n else np.zeros(0, np.int64)
        self.event_ts = max(self.event_ts, int(ts.max(initial=0)))

        users, user_index, user_partition = unique_users(arrivals, partitions)
        records = self._read(users, user_partition)
        clock = self.clocks.advance(partitions, ts)
        expected = partitions_of(users, self.config.log.partitions)
        self.counters["misplaced"] += int((expected != user_partition)[user_index].sum())
        keep = self._erase(arrivals, users, user_partition, user_index, records, messages)
        if not keep.all():
            chosen = np.flatnonzero(keep)
            self.counters["events"] += len(keep) - len(chosen)  # as if the request came a step later
            user_index, ts, actions, clock = user_index[chosen], ts[chosen], actions[chosen], clock[chosen]
            partitions, offsets = partitions[chosen], offsets[chosen]
            arrivals.items = [arrivals.items[i] for i in chosen.tolist()]
        if not len(user_index):
            self._write(users, user_partition, records)
            return

        known = self._learner.lookup(arrivals.items)
        tally.served, tally.hits = self._score_published(records, user_index, known, actions)
        numbers = np.arange(self.event_number, self.event_number + len(known), dtype=np.int64)
        self.event_number += len(known)
        handles = self._learner.admit(arrivals.items, numbers)
        # a full vocabulary may give away an item's row and take the item in again within a step
        self.counters["items_admitted"] += len(set(handles[handles != known].tolist()))

        ttl_ms = self.config.state.history_ttl_ms
        appended = append(records, user_index, handles, ts, actions, ttl_ms=ttl_ms, clock=clock)
        records, accepted = appended.records, appended.accepted
        self.counters["users"] += int(appended.new_user.sum())
        self.counters["events"] += int(accepted.sum())
        self.counters["duplicates"] += int((~accepted).sum())
        self.counters["late"] += int((appended.late & accepted).sum())

        taken = np.flatnonzero(accepted)
        if len(taken):
            keys = user_keys(users)
            batch = StepBatch(
                users=keys[user_index[taken]],
                contexts=appended.contexts[taken],
                context_actions=appended.context_actions[taken],
                context_ts=appended.context_ts[taken],
                items=handles[taken],
                weights=self._action_weights[actions[taken]],
                ts=ts[taken],
            )
            compared = self.meaning.compare(batch, self.step_number)
            result = self._learner.observe(batch, self._evaluates(), self.meaning.effects().update_window)
            self.meaning.update_gate(compared, result.placed, self.step_number)
            self.prequential.add(result.ranks[result.ranks >= 0])
            self._recent_prequential.add(result.ranks)
            tally.events, tally.taken, tally.items = len(taken), result, batch.items
            self._publish(users, user_index[taken], partitions[taken], offsets[taken], ts[taken], records, messages)
        self._write(users, user_partition, records)

    def _evaluates(self) -> bool:
        every = self.config.engine.evaluate_every
        return every > 0 and self.step_number % every == 0

    def _score_published(
        self,
        records: NDArray[Any],
        user_index: NDArray[np.int64],
        items: NDArray[np.int64],
        actions: NDArray[np.uint8],
    ) -> tuple[int, int]:
        """Where the items stand in the lists last published for their users; returns events scored, and hits.

        Served accuracy, test then train.
        """
        scored = (records["list_step"][user_index] > 0) & (self._action_weights[actions] > 0)
        listed = records["list"][user_index[scored]]  # (m, k)
        hits = (listed == items[scored, None]) & (listed != 0)
        hit = hits.any(axis=1)
        ranks = np.where(hit, hits.argmax(axis=1), self.config.engine.list_len)
        self.served.add(ranks)
        self._recent_served.add(ranks)
        return len(hit), int(hit.sum())

    def _publish(
        self,
        users: list[bytes],
        user_index: NDArray[np.int64],
        partitions: NDArray[np.int64],
        offsets: NDArray[np.int64],
        ts: NDArray[np.int64],
        records: NDArray[Any],
        messages: list[Message],
    ) -> None:
        """Recommend to the users touched and follow their intents; writes what was published into `records`."""
        touched, counts, back = message_builders.latest_coordinates(users, user_index, partitions, offsets, ts, LOOKS)
        where = back[0]
        histories = np.ascontiguousarray(records["items"][touched])
        history_actions = np.ascontiguousarray(records["actions"][touched])
        history_ts = np.ascontiguousarray(records["ts"][touched])
        ranking = self._learner.recommend(histories, history_actions, history_ts, self.config.engine.list_len)

        followed = records[touched]
        messages += self.meaning.update_intents(
            back, histories, history_actions, counts, followed, self.counters, self.step_number
        )
        records[touched] = followed
        intents = followed["intent"].astype(np.int64)
        rows = self._changed(ranking, records[touched], where.ts)
        listed = self._learner.item_ids(ranking.items[rows].ravel())
        reasons = self._learner.item_ids(ranking.because[rows].ravel())
        k, r = ranking.items.shape[1], ranking.because.shape[1]
        messages += message_builders.recommendation_messages(
            where,
            rows,
            ranking,
            [[item for item in listed[i : i + k] if item] for i in range(0, len(listed), k)],
            [[item for item in reasons[i : i + r] if item] for i in range(0, len(reasons), r)],
            intents,
            self.step_number,
            self._learner.serving_step,
            self._learner.serving,
        )
        self.counters["recommendations"] += len(rows)
        published = touched[rows]
        lists = np.zeros((len(rows), self.config.engine.list_len), dtype=np.int64)
        lists[:, :k] = ranking.items[rows]
        records["list"][published] = lists
        records["list_ts"][published] = where.ts[rows]
        records["list_step"][published] = self.step_number

    def _changed(self, ranking: Ranking, records: NDArray[Any], ts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows whose list is new, changed in enough places, too old, or holds an item that the user has meanwhile
        taken.
        """
        old = records["list"][:, : ranking.items.shape[1]]
        entered = ((ranking.items[:, :, None] != old[:, None, :]).all(axis=2) & (ranking.items != 0)).sum(axis=1)
        aged = ts - records["list_ts"] > self.config.engine.republish_after_ms
        taken = ((old[:, :, None] == records["items"][:, None, :]) & (old != 0)[:, :, None]).any(axis=(1, 2))
        due = (records["list_step"] == 0) | (entered >= self.config.engine.republish_changes) | aged | taken
        return np.flatnonzero(due & (ranking.items != 0).any(axis=1))

    # -- answers ----------------------------------------------------------------------------------------------------

    def recommend(self, user: bytes, k: int) -> Answer:
        """Recommend to one user from the state as it is; changes nothing. An unknown user gets the popular items."""
        return answer(self._learner, self._record(user), user, k)

    def explain(self, user: bytes, k: int) -> Explanation:
        """Recommend to one user and say what decided it; changes nothing."""
        return explanation(self._learner, self._record(user), user, k)

    def _record(self, user: bytes) -> NDArray[Any]:
        return self._read([user], partitions_of([user], self.config.log.partitions))

    def lookup(self, items: Sequence[str]) -> list[int]:
        """Handles of items, 0 for one that is not known."""
        handles: list[int] = self._learner.lookup(items).tolist()
        return handles

    def user_intents(self) -> Iterator[tuple[str, int]]:
        """Every user who holds an intent, with it."""
        for partition in range(self.config.log.partitions):
            for users, found in self._store.scan(partition):
                records = self._remembered(found, self.clocks.now[partition])
                intents = self._learner.current_intents(records["intent"]).tolist()
                yield from ((user.decode(), intent) for user, intent in zip(users, intents, strict=True) if intent >= 0)

    # -- learning ---------------------------------------------------------------------------------------------------

    def plan_learning(self, events: int, backlog: int) -> int:
        """Mini-batches for a step of `events` records with `backlog` records still waiting; decided before the
        commit.

        Small steps wait for each other until what they brought fills a tenth of a mini-batch, or all that is kept.
        """
        engine, unlearned = self.config.engine, self._learner.unlearned
        few = max(events, unlearned) * engine.learn_steps * _FULL < engine.step_events
        if few and unlearned < self.config.learner.recent_pairs:
            return 0
        steps = -(-events * engine.learn_steps // engine.step_events)
        steps = round(steps * self.meaning.effects().steps)
        if backlog > engine.backlog_events:
            steps = max(engine.learn_floor, steps * engine.backlog_events // backlog)
        return min(steps, engine.max_learn_steps)

    def learn(self, steps: int) -> None:
        """Make `steps` mini-batch updates from the users touched and replayed ones."""
        moved, refused = 0.0, 0
        if steps > 0:
            effects = self.meaning.effects()
            report = self._learner.learn(steps, effects.rate, effects.newest)
            moved, refused = report.steps * effects.rate, report.refused
            self.counters["learn_steps"] += report.steps
            self.counters["learn_refused"] += refused
            self.counters["examples"] += report.examples
            self.last_loss = report.loss
        self.meaning.after_learning(self.record_number, moved, refused)
        # No result depends on it, so that what it takes may: all 64 are a tenth of the learning after 14 records.
        self._store.sweep(self.clocks.now, max_users=min(_SWEPT, max(_SWEPT_LEAST, self._taken // 4)))

    @property
    def model_step(self) -> int:
        """Optimizer steps behind the weights."""
        return self._learner.model_step

    def gauges(self) -> dict[str, float]:
        """Figures of the learner and of the served lists, for the metrics topic; no part of the state.

        Accuracy is that of the newest `RECENT_RANKS` scored events, so that a fall is seen however long it runs; before
        the first one, after a restart too, it is left out: a 0 would look like a fall.
        """
        health = self._learner.intent_health()
        gauges = {
            "items": float(self._learner.size),
            "intents_active": float(health["active"]),
            "intents_effective": round(health["effective"], 2),
            "serving_snapshot": float(self._learner.serving == "snapshot"),
        }
        for kind, recent in (("served", self._recent_served), ("prequential", self._recent_prequential)):
            found = recent.result()
            if found["n"]:
                gauges |= {f"{kind}_{name}": round(value, 5) for name, value in found.items()}
        if not np.isnan(self.last_loss):
            gauges["loss"] = round(self.last_loss, 4)
        return gauges

    # -- durable ----------------------------------------------------------------------------------------------------

    def begin_checkpoint(self) -> PendingCheckpoint:
        """Begin an atomic snapshot of everything after the last step; `finish` of what is returned may run in a thread.

        What must hold still is copied here; files are linked, written, checked and published by `finish`. A crash in
        between leaves a folder without a manifest, which the next start deletes.
        """

        def save(folder: Path) -> Callable[[], None]:
            checkpoint = self._store.begin_checkpoint(folder / "histories")
            write = self._learner.begin_save()

            def rest() -> None:
                checkpoint()  # first: until it is made, the writes of every step stay in memory
                write(folder / "learner")

            return rest

        # a copy, lists and all: a thread writes it while the next steps go on
        small: dict[str, Any] = msgspec.to_builtins({"engine": self._small_state(), "shape": _shape(self.config)})
        return self._checkpoints.begin(self.step_number, small, save)

    def checkpoint(self) -> Path:
        """Take a checkpoint from begin to end; returns its folder."""
        return self.begin_checkpoint().finish()

    def _small_state(self) -> dict[str, Any]:
        return {
            "format": ENGINE_FORMAT,
            "step": self.step_number,
            "event_number": self.event_number,
            "record_number": self.record_number,
            "meaning": self.meaning.to_state(),
            "event_ts": self.event_ts,
            "clocks": self.clocks.to_state(),
            "positions": {str(partition): offset for partition, offset in sorted(self.positions.items())},
            "counters": self.counters,
            "served": self.served.to_state(),
            "prequential": self.prequential.to_state(),
            "last_loss": None if np.isnan(self.last_loss) else self.last_loss,
            "journal_from": self.journal_from,
            "began_with": self.init_fingerprint,
        }

    def _load(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.manifest["engine"]
        if state["format"] != ENGINE_FORMAT:
            raise StateMismatch(
                f"checkpoint {checkpoint.path} has engine format {state['format']}, this version reads "
                f"{ENGINE_FORMAT}: "
                "run the version that wrote it, or start from an empty state folder"
            )
        self.step_number = state["step"]
        self.event_number = state["event_number"]
        self.record_number = state["record_number"]
        self._learner.load(checkpoint.path / "learner")
        try:
            self.meaning.load_state(state["meaning"])
        except LearnerStateError as exc:
            raise StateMismatch(
                f"checkpoint {checkpoint.path}: {exc}: run the version that wrote it, or start "
                "from an empty state folder"
            ) from exc
        self.event_ts = state["event_ts"]
        self.clocks.load_state(state["clocks"])
        self.positions = {int(partition): offset for partition, offset in state["positions"].items()}
        self.counters = dict.fromkeys(_COUNTERS, 0) | state["counters"]
        self.served = RankMetrics.from_state(state["served"])
        self.prequential = RankMetrics.from_state(state["prequential"])
        self.last_loss = float("nan") if state["last_loss"] is None else state["last_loss"]
        self.journal_from = state.get("journal_from", 0)
        self.init_fingerprint = state["began_with"]

    def digest(self) -> str:
        """Hash of all state that a replay must reproduce, as 32 hexadecimal digits."""
        small = self._small_state()
        del small["journal_from"]  # where to look, not what is known
        digest = hashlib.blake2b(msgspec.json.encode(small, order="sorted"), digest_size=16)
        self._store.update_digest(digest, self.clocks.now)
        self._learner.update_digest(digest)
        return digest.hexdigest()

    def close(self) -> None:
        """Release the files; without a checkpoint since the last step the journal brings that step back."""
        self._store.close()

    # -- users ------------------------------------------------------------------------------------------------------

    def _read(self, users: list[bytes], partitions: NDArray[np.int64]) -> NDArray[Any]:
        parts = [
            self._store.read(p, [users[i] for i in np.flatnonzero(partitions == p).tolist()])
            for p in np.unique(partitions).tolist()
        ]
        records: NDArray[Any] = np.concatenate(parts) if parts else self._store.read(0, [])
        return self._remembered(records, self.clocks.now[partitions])

    def _remembered(self, records: NDArray[Any], now: NDArray[np.int64]) -> NDArray[Any]:
        """The records, blank where the user is forgotten at the clock, whether `sweep` has come by already or not."""
        alive = is_live(records["seen_ts"], now, self.config.state.history_ttl_ms)
        gone = np.flatnonzero((records["events"] > 0) & ~alive)
        records[gone] = self._store.blank(len(gone))
        return records

    def _write(self, users: list[bytes], partitions: NDArray[np.int64], records: NDArray[Any]) -> None:
        for p in np.unique(partitions).tolist():
            rows = np.flatnonzero(partitions == p)
            self._store.write(p, [users[i] for i in rows.tolist()], records[rows])

    def _erase(
        self,
        arrivals: Arrivals,
        users: list[bytes],
        user_partition: NDArray[np.int64],
        user_index: NDArray[np.int64],
        records: NDArray[Any],
        messages: list[Message],
    ) -> NDArray[np.bool_]:
        """Forget the users who asked for it; returns which events of this step remain (those after the request)."""
        keep = np.ones(len(user_index), dtype=bool)
        if not arrivals.erasures:
            return keep
        row_of = {(user, int(p)): row for row, (user, p) in enumerate(zip(users, user_partition, strict=True))}
        for before, user, partition, offset, ts in arrivals.erasures:
            for other in range(self.config.log.partitions):  # misplaced events made a record outside the user's own
                row = row_of.get((user, other))
                if row is not None:
                    keep[:before] &= user_index[:before] != row
                    records[row : row + 1] = self._store.blank(1)
                self._store.erase(other, [user])
            self._learner.forget(int(user_keys([user])[0]))
            self.counters["erased"] += 1
            as_of = AsOf(partition=partition, offset=offset, ts=ts)
            messages += message_builders.erasure_messages(user, self.step_number, as_of)
        return keep


def _shape(config: StreamConfig) -> dict[str, Any]:
    """The settings that shape stored data: a checkpoint made with others cannot be continued."""
    learner = config.learner
    return {
        "log.partitions": config.log.partitions,
        "engine.list_len": config.engine.list_len,
        "actions": [f"{name}{'-' if weight < 0 else ''}" for name, weight in config.actions.weights_by_name.items()],
        **{f"learner.{key}": value for key, value in learner.shape().items()},
    }


def _refuse_other_shape(checkpoint: Checkpoint, shape: dict[str, Any]) -> None:
    stored = dict(checkpoint.manifest["shape"])
    known = stored.pop("actions", [])  # checkpoints of earlier versions do not have it
    if shape["actions"][: len(known)] != known:
        raise StateMismatch(
            f"{checkpoint.path}: made with the actions {', '.join(known)}, the configuration says "
            f"{', '.join(shape['actions'])}: histories hold their places in this list; put new ones at its end, or "
            "give another state folder"
        )
    shape = {key: value for key, value in shape.items() if key != "actions"}
    for key in sorted(stored.keys() | shape.keys()):
        if stored.get(key) != shape.get(key):
            raise StateMismatch(
                f"{checkpoint.path}: made with {key} = {stored.get(key)!r}, the configuration says {shape.get(key)!r}: "
                f"set {key} back, or give another state folder"
                + (" and another engine.worker: intentstream worker --state NEW" if key == "log.partitions" else "")
            )


@contextmanager
def open_checkpoint(config: StreamConfig, state: Path) -> Iterator[Engine]:
    """Open the newest checkpoint of a state folder for reading, beside a worker that may be running on it.

    Raises
    ------
    EngineError
        There is no checkpoint yet.
    """
    checkpoints = (
        CheckpointStore(state / "checkpoints", keep=config.engine.keep_checkpoints)
        if (state / "checkpoints").is_dir()
        else None
    )
    checkpoint = checkpoints.peek() if checkpoints is not None else None
    if checkpoints is None or checkpoint is None:
        raise EngineError(
            f"{state}: no checkpoint in it yet: a worker takes one every {config.engine.checkpoint_every_steps} steps "
            "and when it stops"
        )
    with TemporaryDirectory() as folder:
        engine = Engine(config, Path(folder), checkpoints, checkpoint)
        try:
            yield engine
        finally:
            engine.close()


__all__ = ["Answer", "Engine", "Explanation", "StepResult", "open_checkpoint"]
