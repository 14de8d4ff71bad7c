"""The worker: input and output around the engine. Poll, step, commit, learn, checkpoint.

Between any two lines a crash may happen:

1. before `commit_step`: nothing was published; the journal does not have the step; the records are polled again
2. after it, before or in `learn` or a checkpoint: the journal has the step; recovery redoes it, learning included,
unpublished
3. the answer to the commit lost: the journal decides, never a guess
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from state.folder_lock import lock_folder
from stream.config import StreamConfig
from stream.engine.decoding import fetch_schemas
from stream.engine.engine import Engine, StepResult
from stream.errors import SchemasUnavailable
from stream.log.base import (
    EventLog,
    LogError,
    LogUnavailable,
    Message,
    OffsetOutOfRange,
    RecordBatch,
    TopicPartition,
    WriterFenced,
)
from stream.schema import topics
from stream.schema.messages import JournalEntry, StreamMetrics
from stream.worker.checkpointing import CheckpointWriter
from stream.worker.commit import commit_step
from stream.worker.event_input import EventInput
from stream.worker.journal import entry_message, journal_end, log_positions, read_entries
from stream.worker.metrics import StepTimes, WorkerMetrics
from stream.worker.recovery import is_as_published, redo, without_lost_step

logger = logging.getLogger(__name__)

_SHOWN_EVERY = 20  # recovered steps


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
        Wall clock in seconds, for freshness and the pace of metrics only; every decision about state that depends on
        it is written to the journal.
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
        self._log = log
        self._state = state
        self._clock = clock
        self._feed = feed
        self._on_status = on_status
        self._titles = titles
        self._lock = lock_folder(state)
        try:
            self.engine = Engine.open(config, state, titles, init=init)
        except BaseException:
            self._lock.release()
            raise
        self.status = Status()
        self.input = EventInput(log, config.engine, clock, config.events.topic)
        self.checkpoints = CheckpointWriter(config.engine, clock)
        self._metrics = WorkerMetrics(config.engine, clock, self.checkpoints)

    # -- recovery ---------------------------------------------------------------------------------------------------

    def recover(self) -> int:
        """Claim the log, then redo every journalled step after the checkpoint without publishing; returns how many.

        Raises
        ------
        JournalError
            Entries or input are missing, or a step recomputed other messages and `on_replay_mismatch` is `fail`.
        """
        config, log, worker = self._config.engine, self._log, self._config.engine.worker
        specs = topics.topic_specs(self._config.log.partitions, self._config.events.topic)
        log.check_topics(specs, may_have_grown={spec.name for spec in specs})
        log.claim(worker)
        self.publish_metrics()
        self.engine = without_lost_step(self.engine, log, worker, self._state, self._reopen)
        redone = differing = 0
        truncated = self.engine.counters["truncated"]
        for entry in read_entries(log, worker, self.engine.step_number, self.engine.journal_from):
            began = self._clock()
            result = redo(self.engine, log, entry, self._state, config.on_truncated_input)
            seen = differing and config.on_replay_mismatch == "warn"  # one line, not one for every step
            differing += not is_as_published(entry, result, "seen" if seen else config.on_replay_mismatch)
            self.checkpoints.redo_s += self._clock() - began
            redone += 1
            self._publish_metrics_when_due()
            if redone % _SHOWN_EVERY == 0:
                self._show()
        if differing:
            logger.warning("recovered: %d of %d steps made other messages than were published", differing, redone)
        if gone := self.engine.counters["truncated"] - truncated:
            logger.warning("recovered: %d records of the %d steps are gone: went on without them", gone, redone)
        self.engine.keep_init()
        self.input.refresh_ends()
        self.status.state = "running"
        logger.info(
            "recovered: checkpoint plus %d journalled steps, now at step %d, positions %s",
            redone,
            self.engine.step_number,
            self.engine.positions,
        )
        return redone

    def _reopen(self, up_to: int) -> Engine:
        return Engine.open(self._config, self._state, self._titles, up_to=up_to)

    # -- the loop ---------------------------------------------------------------------------------------------------

    def run(self, stop: Callable[[], bool]) -> None:
        """Work until `stop()`; finishes the step at hand and takes a checkpoint.

        The last report says `stopped`; after an error it has the gauge `failed`, so that a monitor need not wait until
        the reports are missing.
        """
        try:
            self._run(stop)
        except WriterFenced:
            raise  # another process is this worker now: the next report is its own
        except Exception:
            self._report_failure()
            raise

    def _run(self, stop: Callable[[], bool]) -> None:
        self.recover()
        while not stop():
            if self._feed is not None:
                self._feed()
            self.turn()
            self._show()
        if control_records := self.input.control_records(self.engine.positions):
            self.make_step(control_records)
        self.status.state = "stopped"
        self.publish_metrics()
        self.checkpoint()
        self._show()

    def turn(self) -> bool:
        """Poll, step, commit, learn, and checkpoint when due; False when there was nothing to do."""
        if added := self.input.added_partitions(self.engine.positions):
            self.make_step(added)
            return True
        batches = self._poll()
        if not any(len(batch) for batch in batches):
            self.input.skip_control_records(batches)
            idle = self._publish_metrics_when_due()
            batches = self.input.control_records(self.engine.positions) if idle else []
            if not batches:
                return False
        self.make_step(batches)
        return True

    def make_step(self, batches: Sequence[RecordBatch]) -> None:
        """One step from records to published messages and learning."""
        polled = self._clock()
        self._prepare(batches)
        result = self.engine.step(batches)
        entry = self._decide(result)
        # before this step's own entry: a restart from the checkpoint checks that it is there
        journal_from = self._journal_end() if entry.checkpoint else self.engine.journal_from
        stepped = self._clock()
        self._commit(result, entry)
        self.engine.journal_from = journal_from
        committed = self._clock()
        self.engine.learn(entry.learn_steps)
        times = StepTimes(polled, stepped, committed, learned=self._clock())
        self.input.refresh_ends()
        self.input.name_misplaced(self.engine.counters["misplaced"])
        self.checkpoints.redo_s += times.redo_s
        if entry.checkpoint:
            self.checkpoints.begin(self.engine)
        self._metrics.note_step(result, batches, times)
        self.status.step, self.status.last = result.step, result.messages

    def _poll(self) -> list[RecordBatch]:
        try:
            batches = self.input.poll(self.engine.positions)
            fetch_schemas(self.engine.decoder, batches)
            self.input.registry.over()
            return batches
        except SchemasUnavailable as exc:
            self.input.wait_for_registry(exc)
            return []  # polled again
        except OffsetOutOfRange as exc:
            try:
                targets = self.input.after_lost_input(self.engine.positions, exc)
            except LogUnavailable as away:
                self.input.wait_for_log(away)
                return []
            for partition, offset in targets.items():
                self.engine.seek(partition, offset)  # the gap before the journal's next range shows the jump
            return []

    def _prepare(self, batches: Sequence[RecordBatch]) -> None:
        """Tell the log what is certain of the step's commit: its positions, its entry, a list for each partition."""
        positions = self.engine.positions | {batch.partition: batch.next_offset for batch in batches}
        known = self._config.log.partitions  # the topic of lists need not grow with that of events
        lists = [TopicPartition(topics.RECOMMENDATIONS, b.partition) for b in batches if len(b) and b.partition < known]
        self._log.prepare(
            log_positions(positions, self._config.events.topic), [*lists, TopicPartition(topics.JOURNAL, 0)]
        )

    def _decide(self, result: StepResult) -> JournalEntry:
        """Everything that a replay must repeat is decided here, before the commit."""
        return JournalEntry(
            worker=self._config.engine.worker,
            step=result.step,
            ranges=result.ranges,
            learn_steps=self.engine.plan_learning(result.records, sum(self._lag().values())),
            checkpoint=self.checkpoints.due(result.step),
            messages=len(result.messages),
            checksum=result.checksum,
            notes=result.notes,
            records=result.records,
        )

    def _journal_end(self) -> int:
        """The journal's end, or an older place: that only costs a restart time."""
        try:
            return journal_end(self._log)
        except LogUnavailable as exc:
            logger.warning("cannot read the end of the journal: %s; using the last known offset", exc)
            return self.engine.journal_from

    def _commit(self, result: StepResult, entry: JournalEntry) -> None:
        figures = [self._metrics_message()] if self._metrics.due else []
        messages = [*result.messages, *figures, entry_message(entry, result.event_ts)]
        positions = log_positions(self.engine.positions, self._config.events.topic)
        commit_step(self._log, entry, messages, positions, self.engine.journal_from)

    def checkpoint(self) -> None:
        """Take a checkpoint from begin to end; raises `StateError` when it fails."""
        self.checkpoints.write(self.engine)

    def close(self) -> None:
        """Release the state folder; the log belongs to the caller."""
        self.checkpoints.wait()
        self.engine.close()
        self._lock.release()

    # -- figures ----------------------------------------------------------------------------------------------------

    def metrics(self) -> StreamMetrics:
        """The worker's figures at this moment."""
        return self._metrics.report(self.engine, self.status.state, self._lag())

    def publish_metrics(self) -> None:
        """Publish the worker's figures; if the log is unavailable the report is dropped."""
        self.input.refresh_ends()
        try:
            self._log.append([self._metrics_message()])
        except LogUnavailable as exc:
            logger.warning("metrics: %s", exc)

    def _report_failure(self) -> None:
        self.status.state = "stopped"
        report = self._metrics.report(self.engine, self.status.state, self._lag(), failed=True)
        try:
            self._log.append([self._metrics.message(report)])
        except LogError as exc:
            logger.warning("the last report was not published: %s", exc)

    def _publish_metrics_when_due(self) -> bool:
        due = self._metrics.due
        if due:
            self.publish_metrics()
        return due

    def _metrics_message(self) -> Message:
        self.status.metrics = report = self.metrics()
        return self._metrics.message(report)

    def _lag(self) -> dict[str, int]:
        self.status.lag = self.input.lag(self.engine.positions)
        return self.status.lag

    def _show(self) -> None:
        if self._on_status is not None:
            self._on_status(self.status)


__all__ = ["Status", "Worker"]
