"""`intentstream replay`: a file through the engine, step by step, with baselines beside it and a report at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from state.checkpoints import CheckpointStore
from stream.config import StreamConfig
from stream.engine.decoding import decode_batches
from stream.engine.engine import Engine
from stream.errors import SourceError
from stream.log.base import RecordBatch
from stream.replay.comparison import BaselineComparison
from stream.replay.folder import ReplayFolder
from stream.replay.report import DriftEpisodes, IntentsFile, RejectionCounts, UserCount, build_report
from stream.replay.steps import FileSteps
from stream.schema.decoder import Decoder
from stream.sources.files.source import EventSource
from stream.sources.item_metadata import Titles


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """The progress after a step."""

    records: int
    fraction: float  # of the file, 0 to 1
    engine: Engine


class ReplayError(SourceError):
    """The replay ended with an error; `report` covers what it did."""

    def __init__(self, message: str, report: dict[str, Any]) -> None:
        super().__init__(message)
        self.report = report


class FileTruncated(ReplayError):
    """The file cannot be read to its end; `report` covers the part before."""


class NoEvents(ReplayError):
    """None of the records is an event."""


def replay(
    config: StreamConfig,
    file: EventSource,
    state: Path,
    *,
    keep: bool,
    step_records: int,
    baselines: bool = True,
    init: Path | None = None,
    titles: Titles | None = None,
    intents: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[ReplayProgress], None] | None = None,
    now_ms: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Send the records of a file through an engine and return the report.

    Parameters
    ----------
    config
        With `log.partitions` 1: a file has one order.
    state
        State folder. With `keep` it gets checkpoints, and a replay of the same file continues from them; a short last
        step is repeated in full then, so that the result is that of one run.
    step_records
        Records of one step.
    init
        Folder of the fitted model for a new state folder.
    titles
        Title and category by item id; they name the intents.
    intents
        File for the shifts and, at the end, every user's intent, as JSON lines.
    stop
        Called after every step; when it returns true, the replay takes a checkpoint and ends.
    now_ms
        Epoch milliseconds; events more than `actions.max_ahead_ms` after it are dead letters. 0 sets no bound.

    Raises
    ------
    NoEvents
        The whole file holds no event.
    FileTruncated
        The file cannot be read to its end; with `keep` a checkpoint holds the part before.
    SourceError
        The state folder belongs to another file or to a worker.
    StateInUse
        Another process uses the state folder, or it cannot be written.
    """
    began = clock()
    with ExitStack() as stack:
        engine, folder = _open(stack, config, state, step_records, titles, init, keep=keep)
        _check_limit(file, engine.positions[0], state)
        intents_file = None if intents is None else stack.enter_context(closing(IntentsFile(intents)))
        comparison = BaselineComparison(config) if baselines else None
        steps = FileSteps(file, step_records, now_ms)
        run = _Replay(config, engine, steps, folder, comparison, intents_file, clock, began)
        complete = run.steps_until(stop, on_step)
        return run.finish(complete, titles)


def _open(
    stack: ExitStack,
    config: StreamConfig,
    state: Path,
    step_records: int,
    titles: Titles | None,
    init: Path | None,
    *,
    keep: bool,
) -> tuple[Engine, ReplayFolder | None]:
    """Open the engine and, with `keep`, its folder; `stack` closes them."""
    if not keep:
        engine = Engine(config, state, CheckpointStore(state / "checkpoints"), titles=titles, init=init)
        return stack.enter_context(closing(engine)), None
    folder = ReplayFolder(state, step_records, config.engine.keep_checkpoints, config.state.history_ttl_ms)
    stack.callback(folder.close)
    return stack.enter_context(closing(folder.open(config, titles, init))), folder


def _check_limit(file: EventSource, done: int, state: Path) -> None:
    if file.limit is not None and file.limit < done:
        raise SourceError(f"{state}: holds {done} records already: give a larger --limit, or --state another folder")


class _Replay:
    """One run over a file.

    Parameters
    ----------
    engine
        With the state that the run continues from.
    steps
        The file from its start.
    folder, comparison, intents_file
        None where not wanted.
    clock
        Seconds, for the pace; `began` is its value at the start.
    """

    def __init__(
        self,
        config: StreamConfig,
        engine: Engine,
        steps: FileSteps,
        folder: ReplayFolder | None,
        comparison: BaselineComparison | None,
        intents_file: IntentsFile | None,
        clock: Callable[[], float],
        began: float,
    ) -> None:
        self._config = config.engine
        self._engine, self._steps, self._folder = engine, steps, folder
        self._comparison, self._intents_file = comparison, intents_file
        self._episodes, self._rejections = DriftEpisodes(), RejectionCounts()
        self._decoder = Decoder(config.actions)
        # the engine counts histories: one more for a user who comes back after being forgotten
        self._users = UserCount(config.actions) if config.state.history_ttl_ms else None
        self._clock = clock
        self._began = began
        self._engine_seconds = 0.0
        self._records = 0  # through the engine in this run
        self._before = engine.positions[0]  # records in the state that the run continues from

    def steps_until(self, stop: Callable[[], bool], on_step: Callable[[ReplayProgress], None] | None) -> bool:
        """Make the steps of the file until its end or until `stop`; returns whether it came to the end."""
        for batch in self._steps:
            self._compare(batch)
            if self._users is not None:
                self._users.add(batch)
            if self._folder is not None:
                self._folder.compare(batch, self._engine)
            if batch.next_offset <= self._before:
                # the report covers the whole file
                self._rejections.count(decode_batches(self._decoder, [batch]).dead_letters)
                continue
            began = self._clock()
            self._step(batch)
            self._engine_seconds += self._clock() - began
            self._records += len(batch)
            if on_step is not None:
                on_step(ReplayProgress(batch.next_offset, self._steps.file.fraction, self._engine))
            if stop():
                return False
        return self._steps.error is None

    def _compare(self, batch: RecordBatch) -> None:
        if self._comparison is not None:
            step = -(-batch.next_offset // self._steps.step_records)
            self._comparison.rank_then_count(batch, evaluate=self._config.evaluates(step))

    def _step(self, batch: RecordBatch) -> None:
        engine = self._engine
        result = engine.step([batch])
        engine.learn(engine.plan_learning(result.records, 0))
        self._episodes.add(result)
        self._rejections.count(result.messages)
        if self._intents_file is not None:
            self._intents_file.write_shifts(result)
        if self._folder is not None and result.step % self._config.checkpoint_every_steps == 0:
            self._folder.checkpoint(engine)

    def finish(self, complete: bool, titles: Titles | None) -> dict[str, Any]:
        """Take the last checkpoint, write the intents and return the report; raises when the file broke off."""
        engine, error = self._engine, self._steps.error
        if error is not None and self._steps.read < self._before:
            raise error
        if self._folder is not None:
            self._folder.checkpoint(engine)
        if self._intents_file is not None:
            self._intents_file.write_intents(engine)
        report = build_report(
            engine,
            baselines=self._comparison.result() if self._comparison is not None else {},
            seconds=self._clock() - self._began,
            engine_seconds=self._engine_seconds,
            records=self._records,
        )
        if self._users is not None:
            report["users"] = self._users.number
        report["values_dropped"] += self._steps.values_dropped
        report["skipped"] = self._steps.file.skipped
        report |= self._rejections.report()
        report |= {"complete": complete, "drift": {"episodes": self._episodes.report()}}
        if titles is not None:
            report["items_in_file_only"] = int((engine.learner.lookup(list(titles)) == 0).sum())
        if error is not None:
            raise FileTruncated(f"{error}; the figures are of the part before", report)
        if complete and not report["events"] and not report["erased"]:
            raise NoEvents(_no_events(self._steps.file.path, report), report)
        return report


def _no_events(path: Path, report: dict[str, Any]) -> str:
    first = report["first_dead_letter"]
    reason = f": {first['field']} = {first['value']!r}: {first['rule']}" if first else ""
    return f"{path}: none of its {report['records']:,} records is an event{reason}"


__all__ = ["FileTruncated", "NoEvents", "ReplayError", "ReplayProgress", "replay"]
