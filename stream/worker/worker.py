"""The worker: input and output around the engine. Poll, step, commit, learn; and recovery from a checkpoint and the
journal.

Between any two lines a crash may happen:

1. before `log.commit`: nothing was published; the journal does not have the step; the records are polled again
2. after it, before or in `learn` or `checkpoint`: the journal has the step; recovery makes it again, learning included,
unpublished
3. the answer to the commit lost: the journal is asked, never guessed
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from learner import release_freed_memory
from state import PendingCheckpoint, StateError, lock_folder
from stream.config import StreamConfig
from stream.engine.engine import Engine, StepResult
from stream.engine.init_model import refuse_other
from stream.errors import JournalError
from stream.log.base import (
    CommitOutcomeUnknown,
    EventLog,
    LogUnavailable,
    Message,
    OffsetOutOfRange,
    RecordBatch,
    TopicPartition,
    WriterFenced,
)
from stream.schema import topics
from stream.schema.messages import JournalEntry, StreamMetrics
from stream.worker.journal import (
    entry_message,
    journal_end,
    last_entry,
    last_step,
    positions_after,
    read_entries,
    read_input,
)

logger = logging.getLogger(__name__)

_FRESHNESS_KEPT = 10_000  # newest steps over which the freshness percentiles are taken, at most
_FRESHNESS_S, _RATE_S = 300.0, 10.0  # how long ago such a step, and one that counts for the pace, may be
_RETRY_S = 0.5
_PARTS = ("engine_ms", "commit_ms", "learn_ms", "step_ms")  # gauges: running means over steps
_SMOOTHING = 0.05
_WRITING_SHARE = 3  # a checkpoint that took a second to write is not followed by the next within three seconds of work


@dataclass(slots=True)
class Status:
    """What the worker is doing, for the terminal view; `last` holds the newest step's messages."""

    state: str = "recovering"
    step: int = 0
    lag: dict[str, int] = field(default_factory=dict)
    metrics: StreamMetrics | None = None
    last: Sequence[Message] = ()


class Worker:
    """One worker over one log and one state folder.

    Parameters
    ----------
    clock
        Wall clock in seconds, for freshness and the pace of metrics only; no decision about state depends on it
        that is not written to the journal.
    feed
        Called before every poll; the one-process default appends the simulator's events here.
    on_status
        Called after every step and while idle.
    init
        Folder of the fitted model that a new stream begins with.
    titles
        Title and category by item id, to name the intents with.
    """

    def __init__(
        self,
        config: StreamConfig,
        log: EventLog,
        state: Path,
        *,
        clock: Callable[[], float] = time.time,
        feed: Callable[[], object] | None = None,
        on_status: Callable[[Status], None] | None = None,
        init: Path | None = None,
        titles: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        self._config = config
        self._state = state
        self._titles = titles
        self._log = log
        self._clock = clock
        self._feed = feed
        self._on_status = on_status
        self._lock = lock_folder(state)
        try:
            self.engine = Engine.open(config, state, titles, init=init)
        except BaseException:
            self._lock.release()
            raise
        self.status = Status()
        self._freshness_ms: deque[tuple[float, float]] = deque(maxlen=_FRESHNESS_KEPT)  # (clock, milliseconds)
        self._rate: deque[tuple[float, int]] = deque(maxlen=1_000)  # (clock, records before it)
        self._parts_ms = dict.fromkeys(_PARTS, 0.0)
        self._records = 0
        self._metrics_due = 0.0
        self._ends: list[int] = []  # of the input
        self._ends_due = 0.0
        self._cutting: threading.Thread | None = None
        self._control_record_ends: dict[
            int, int
        ] = {}  # offsets before which a partition holds only marks of transactions
        self._since_checkpoint_s = 0.0  # what a restart would take to redo
        self._checkpoint_write_s = 0.0
        self.checkpoint_hold_ms = 0.0
        self.checkpoints_failed = 0

    # -- recovery ---------------------------------------------------------------------------------------------------

    def recover(self) -> int:
        """Claim the log, then redo every journalled step after the checkpoint without publishing; returns how many.

        Raises
        ------
        JournalError
            Entries or input are missing, or a step recomputed other messages and `on_replay_mismatch` is `fail`.
        """
        self._log.check_topics(topics.topic_specs(self._config.log.partitions))
        self._log.claim(self._config.engine.worker)
        self._publish_metrics(force=True)
        self._leave_a_lost_step()
        replayed = 0
        for entry in read_entries(
            self._log, self._config.engine.worker, self.engine.step_number, self.engine.journal_from
        ):
            began = self._clock()
            self._redo(entry)
            self._since_checkpoint_s += self._clock() - began
            replayed += 1
            self._publish_metrics()
            if self._on_status is not None and replayed % 20 == 0:
                self._report()
        self.engine.keep_init()
        self._refresh_end_offsets()
        self.status.state = "running"
        logger.info(
            "recovered: checkpoint plus %d journalled steps, now at step %d, positions %s",
            replayed,
            self.engine.step_number,
            self.engine.positions,
        )
        return replayed

    def _leave_a_lost_step(self) -> None:
        """Go back before a checkpoint whose last step the journal does not have: brokers answered its commit and lost
        it.
        """
        step, worker = self.engine.step_number, self._config.engine.worker
        if not step or last_step(self._log, worker, self.engine.journal_from) >= step:
            return
        if self._log.begin_offsets(topics.JOURNAL)[0] > self.engine.journal_from:
            return  # retention took it
        known = last_step(self._log, worker)
        if known < step - 1 or journal_end(self._log) < self.engine.journal_from:
            raise JournalError(
                f"journal of worker {worker!r}: its newest step is {known}, the checkpoint in {self._state} "
                "is after step "
                f"{step}: this state folder belongs to another log or worker"
            )
        logger.warning(
            "the journal does not have step %d, which the newest checkpoint holds: going on from the one before", step
        )
        self.engine.close()
        self.engine = Engine.open(self._config, self._state, self._titles, up_to=known)

    def _redo(self, entry: JournalEntry) -> None:
        if entry.step == 1:
            refuse_other(entry.notes, self.engine.init_fingerprint, self._state)
        batches = self._reread(entry)
        for partition, start, _ in entry.ranges:
            self.engine.seek(partition, start)  # a jump over truncated input shows as a gap between ranges
        result = self.engine.step(batches)
        if result.checksum != entry.checksum:
            text = (
                f"step {entry.step}: recovery made {len(result.messages)} messages with checksum "
                f"{result.checksum:#010x}, the journal has {entry.messages} with {entry.checksum:#010x}: this is other "
                "code, another library, another `--items` file or another kind of machine than what published them"
            )
            if self._config.engine.on_replay_mismatch == "fail":
                raise JournalError(text + '; set `engine.on_replay_mismatch = "warn"` to go on')
            logger.warning("%s; going on", text)
        self.engine.learn(entry.learn_steps)

    def _reread(self, entry: JournalEntry) -> list[RecordBatch]:
        batches, gone = read_input(self._log, entry)
        if gone:
            text = f"step {entry.step}: {gone} records of {topics.EVENTS} in the ranges {entry.ranges} are gone"
            if self._config.engine.on_truncated_input == "fail":
                raise JournalError(
                    f"{text}, and the journal needs them to rebuild the state; use a newer checkpoint, or set "
                    '`engine.on_truncated_input` to "earliest" to go on without them'
                )
            self.engine.counters["truncated"] += gone
            logger.warning("%s: going on without them", text)
        return batches

    # -- the loop ---------------------------------------------------------------------------------------------------

    def run(self, stop: Callable[[], bool]) -> None:
        """Work until `stop()`; finishes the step at hand and takes a checkpoint."""
        self.recover()
        while not stop():
            if self._feed is not None:
                self._feed()
            self.turn()
            self._report()
        if marks := self._marks():
            self._take(marks)
        self.status.state = "stopped"
        self._publish_metrics(force=True)
        self.checkpoint()
        self._report()

    def turn(self) -> bool:
        """Poll, step, commit, learn, and checkpoint when due; False when there was nothing to do."""
        batches = self._poll()
        if not any(len(batch) for batch in batches):
            self._control_record_ends |= {batch.partition: batch.next_offset for batch in batches}
            batches = self._marks() if self._publish_metrics() else []
            if not batches:
                return False
        self._take(batches)
        return True

    def _marks(self) -> list[RecordBatch]:
        """What was read without a record in it: marks of transactions.

        They are taken like records, only not at once: retention may remove them, and a position before them would then
        look like lost input.
        """
        read = self._read_to().items()
        passed = {p: offset for p, offset in read if offset > self.engine.positions[p]}
        return [RecordBatch(topics.EVENTS, p, [], [], [], [], [], offset) for p, offset in sorted(passed.items())]

    def _take(self, batches: Sequence[RecordBatch]) -> None:
        marks = [self._clock()]
        self._prepare(batches)
        result = self.engine.step(batches)
        entry = self._decide(result)
        # before this step's own entry: a restart from the checkpoint looks whether it is there
        journal_from = self._journal_end() if entry.checkpoint else self.engine.journal_from
        marks.append(self._clock())
        self._commit(result, entry)
        self.engine.journal_from = journal_from
        marks.append(self._clock())
        self.engine.learn(entry.learn_steps)
        marks.append(self._clock())
        self._refresh_end_offsets()
        self._since_checkpoint_s += marks[1] - marks[0] + marks[3] - marks[2]
        if entry.checkpoint:
            self._begin_checkpoint()
        self._note(result, batches, marks)

    def _prepare(self, batches: Sequence[RecordBatch]) -> None:
        """Tell the log what is certain of the step's commit: its positions, its entry, a list for each partition."""
        positions = self.engine.positions | {batch.partition: batch.next_offset for batch in batches}
        lists = [TopicPartition(topics.RECOMMENDATIONS, batch.partition) for batch in batches if len(batch)]
        self._log.prepare(positions_after(positions), [*lists, TopicPartition(topics.JOURNAL, 0)])

    def _poll(self) -> list[RecordBatch]:
        engine = self._config.engine
        try:
            return self._log.poll(positions_after(self._read_to()), engine.max_step_events, engine.poll_max_wait_ms)
        except LogUnavailable as exc:
            logger.warning("poll: %s; trying again", exc)
            time.sleep(_RETRY_S)
            return []
        except OffsetOutOfRange as exc:
            self._jump(exc)
            return []

    def _read_to(self) -> dict[int, int]:
        """Where to read on: behind the engine's positions when nothing that it could take comes next."""
        return {p: max(offset, self._control_record_ends.get(p, 0)) for p, offset in self.engine.positions.items()}

    def _jump(self, error: OffsetOutOfRange) -> None:
        """Input that was to come next is gone: stop, or go on where the policy says; the journal's next range
        shows the jump.
        """
        policy = self._config.engine.on_truncated_input
        if policy == "fail":
            raise JournalError(
                f'{error}: set `engine.on_truncated_input` to "earliest" or "latest" to go on without these records'
            ) from error
        self._control_record_ends.clear()
        begins, ends = self._log.begin_offsets(topics.EVENTS), self._log.end_offsets(topics.EVENTS)
        for partition, position in self.engine.positions.items():
            if not begins[partition] <= position <= ends[partition]:
                target = begins[partition] if policy == "earliest" else ends[partition]
                logger.warning("%s: going on at %s[%d] offset %d", error, topics.EVENTS, partition, target)
                self.engine.seek(partition, target)

    def _decide(self, result: StepResult) -> JournalEntry:
        """Everything that a replay must repeat is decided here, before the commit."""
        engine = self._config.engine
        return JournalEntry(
            worker=engine.worker,
            step=result.step,
            ranges=result.ranges,
            learn_steps=self.engine.plan_learning(result.events, self._waiting()),
            checkpoint=result.step % engine.checkpoint_every_steps == 0 or self._much_to_redo(),
            messages=len(result.messages),
            checksum=result.checksum,
            notes=result.notes,
            records=result.events,
        )

    def _much_to_redo(self) -> bool:
        limit_s = max(self._config.engine.checkpoint_redo_s, _WRITING_SHARE * self._checkpoint_write_s)
        return self._since_checkpoint_s >= limit_s and not self._is_cutting()

    def _is_cutting(self) -> bool:
        return self._cutting is not None and self._cutting.is_alive()

    def _commit(self, result: StepResult, entry: JournalEntry) -> None:
        messages = [*result.messages, *self._metrics_messages(), entry_message(entry, result.event_ts)]
        positions = positions_after(self.engine.positions)
        while True:
            try:
                self._log.commit(messages, positions)
                return
            except (CommitOutcomeUnknown, LogUnavailable) as exc:
                newest, begin = self._resolve_commit(entry)
                found = 0 if newest is None else newest.step
                logger.warning("commit of step %d: %s; the journal's newest step is %d", entry.step, exc, found)
                if newest == entry:
                    return
                _refuse_if_taken(entry, newest)
                if found < entry.step - 1 and begin <= self.engine.journal_from:
                    raise JournalError(
                        f"worker {entry.worker}: the commit of step {entry.step - 1} was answered and is not in the "
                        'journal: the brokers lost it (see "broker killed" in docs/failures.md); start this worker '
                        "again: it makes the step anew from the same input"
                    ) from exc

    def _resolve_commit(self, entry: JournalEntry) -> tuple[JournalEntry | None, int]:
        """The newest entry that is in the journal, once every open transaction is decided, and the journal's begin;
        waits for the log.

        The journal is looked at before the claim, too: who took this worker's place meanwhile is not to be fenced.
        """
        worker, start = entry.worker, self.engine.journal_from
        while True:
            time.sleep(_RETRY_S)
            try:
                _refuse_if_taken(entry, last_entry(self._log, worker, start, decided=True))
                self._log.claim(worker)
                newest = last_entry(self._log, worker, start)
                return newest, self._log.begin_offsets(topics.JOURNAL)[0]
            except LogUnavailable as exc:
                logger.warning("finding out what was committed: %s; trying again", exc)

    def _begin_checkpoint(self) -> None:
        """Begin a checkpoint and let a thread finish it; passed over while the last one is still being written."""
        if self._is_cutting():
            logger.warning(
                "checkpoint at step %d passed over: the last one is still being written", self.engine.step_number
            )
            return
        began = self._clock()
        self._since_checkpoint_s = 0.0  # also when it fails: the next try is not in every step from then on
        try:
            pending = self.engine.begin_checkpoint()
        except StateError as exc:
            self._checkpoint_failed(exc)
            return
        self.checkpoint_hold_ms = (self._clock() - began) * 1000
        self._cutting = threading.Thread(target=self._finish_checkpoint, args=(pending,), name="checkpoint")
        self._cutting.start()

    def _journal_end(self) -> int:
        """The journal's end, or an older place: that only costs a restart time."""
        try:
            return journal_end(self._log)
        except LogUnavailable as exc:
            logger.warning("end of the journal: %s; the one noted last serves", exc)
            return self.engine.journal_from

    def _finish_checkpoint(self, pending: PendingCheckpoint) -> None:
        began = self._clock()
        try:
            logger.info("checkpoint: %s", pending.finish())
            self._checkpoint_write_s = self._clock() - began
            release_freed_memory()
        except StateError as exc:
            self._checkpoint_failed(exc)
        except Exception as exc:  # nobody else hears of an error in this thread, and no alert would come of it
            logger.exception("finishing a checkpoint")
            self._checkpoint_failed(exc)

    def _checkpoint_failed(self, error: Exception) -> None:
        """The stream goes on: the older checkpoint and a longer replay serve until a checkpoint succeeds."""
        self.checkpoints_failed += 1
        logger.error("no checkpoint at step %d, the one before it serves: %s", self.engine.step_number, error)

    def checkpoint(self) -> None:
        """Take a checkpoint from begin to end, after the one that is being written; raises `StateError` when it
        fails.
        """
        if self._cutting is not None:
            self._cutting.join()
        logger.info("checkpoint: %s", self.engine.checkpoint())

    def close(self) -> None:
        """Release the state folder; the log belongs to the caller."""
        if self._cutting is not None:
            self._cutting.join()
        self.engine.close()
        self._lock.release()

    # -- figures ----------------------------------------------------------------------------------------------------

    def _refresh_end_offsets(self) -> None:
        """Ask for the input's end, at most twice a second; never between records and their answer."""
        now = self._clock()
        if now < self._ends_due:
            return
        self._ends_due = now + 0.5
        try:
            self._ends = self._log.end_offsets(topics.EVENTS)
        except LogUnavailable as exc:
            logger.warning("lag: %s; the last figure stands", exc)

    def _waiting(self) -> int:
        """Records not yet taken, of those that are known of."""
        read = sorted(self._read_to().items())
        self.status.lag = {str(p): max(0, end - offset) for (p, offset), end in zip(read, self._ends, strict=False)}
        return sum(self.status.lag.values())

    def _note(self, result: StepResult, batches: Sequence[RecordBatch], marks: Sequence[float]) -> None:
        """Keep the figures of a step; `marks` are the moments of poll's end, step's end, commit's end and
        learning's end.
        """
        polled, stepped, committed, learned = marks
        self._rate.append((polled, self._records))
        self._records += result.events
        appended = [batch.timestamps_ms[0] for batch in batches if len(batch)]
        if appended:
            self._freshness_ms.append((committed, max(0.0, committed * 1000 - min(appended))))
        parts = (stepped - polled, committed - stepped, learned - committed, learned - polled)
        for name, seconds in zip(_PARTS, parts, strict=True):
            self._parts_ms[name] += _SMOOTHING * (seconds * 1000 - self._parts_ms[name])
        self.status.step, self.status.last = result.step, result.messages

    def metrics(self) -> StreamMetrics:
        """The worker's figures at this moment."""
        now = self._clock()
        _drop_before(self._rate, now - _RATE_S)
        _drop_before(self._freshness_ms, now - _FRESHNESS_S)
        start, before = self._rate[0] if self._rate else (now, self._records)
        fresh = sorted(milliseconds for _, milliseconds in self._freshness_ms)
        gauges = {
            "events_per_second": round((self._records - before) / max(now - start, 1e-3), 1),
            "lag": float(self._waiting()),
            **{f"freshness_p{p}_ms": fresh[len(fresh) * p // 100] for p in (50, 99) if fresh},
            "checkpoint_hold_ms": round(self.checkpoint_hold_ms, 1),
            "checkpoints_failed": float(self.checkpoints_failed),
            **{name: round(value, 3) for name, value in self._parts_ms.items()},
            **self.engine.gauges(),
        }
        return StreamMetrics(
            worker=self._config.engine.worker,
            ts=int(self._clock() * 1000),
            state=self.status.state,  # type: ignore[arg-type]  # a Literal on the wire, a str here
            step=self.engine.step_number,
            model_step=self.engine.model_step,
            counters=dict(self.engine.counters),
            gauges=gauges,
            lag=dict(self.status.lag),
            event_ts=self.engine.event_ts,
        )

    def _metrics_messages(self) -> list[Message]:
        """The figures as a message when they are due; they carry the wall clock, so they are no part of the step's
        checksum.
        """
        now = self._clock()
        if now < self._metrics_due:
            return []
        self._metrics_due = now + self._config.engine.metrics_every_s
        self.status.metrics = metrics = self.metrics()
        return [Message(topics.METRICS, metrics.worker.encode(), msgspec.json.encode(metrics), metrics.ts)]

    def _publish_metrics(self, force: bool = False) -> bool:
        """Publish the figures when they are due; whether they were."""
        if force:
            self._metrics_due = 0.0
        if self._clock() >= self._metrics_due:
            self._refresh_end_offsets()
        messages = self._metrics_messages()
        if messages:
            try:
                self._log.append(messages)
            except LogUnavailable as exc:
                logger.warning("metrics: %s", exc)
        return bool(messages)

    def _report(self) -> None:
        if self._on_status is not None:
            self._on_status(self.status)


def _refuse_if_taken(entry: JournalEntry, newest: JournalEntry | None) -> None:
    """Raise `WriterFenced` when the journal has this step, or a later one, from another process: whoever journalled it
    has the stream, and to go on would answer its events a second time.
    """
    if newest is not None and newest.step >= entry.step and newest != entry:
        raise WriterFenced(
            f"worker {entry.worker}: step {newest.step} in the journal is not from this process: another one ran as "
            "this worker meanwhile, this one must stop"
        )


def _drop_before(entries: deque[Any], moment: float) -> None:
    """Forget the entries of before `moment`; each begins with its own."""
    while entries and entries[0][0] < moment:
        entries.popleft()
