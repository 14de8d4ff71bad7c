"""`intentstream replay`: a file through the engine, step by step, with a report at the end and simple baselines
beside it.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from learner import RankMetrics
from state import CheckpointStore, MemoryUserStore, Watermarks, append
from stream.config import StreamConfig
from stream.engine.engine import Engine
from stream.engine.event_batch import FileBatch, gather
from stream.errors import SourceError
from stream.log.base import RecordBatch
from stream.replay.baselines import ItemToItemBaseline, PopularBaseline
from stream.replay.folder import ReplayFolder
from stream.replay.report import Episodes, IntentsFile, RejectionCounts
from stream.schema import topics
from stream.schema.decoder import Decoder
from stream.sources.files.event_file import EventFile
from stream.sources.item_metadata import Titles


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """How far a replay is; given to the caller after every step."""

    records: int
    fraction: float
    engine: Engine


class FileTruncated(SourceError):
    """The file cannot be read to its end; `report` is of the part before."""

    def __init__(self, cause: SourceError, report: dict[str, Any]) -> None:
        super().__init__(f"{cause}; the figures are of the part before")
        self.report = report


class Baselines:
    """The simple baselines over the same records, with histories of their own, so that they see nothing of the
    engine.
    """

    def __init__(self, config: StreamConfig) -> None:
        self._decoder = Decoder(config.actions)
        self._liked = np.array(config.actions.weights()) > 0
        self._handles: dict[str, int] = {}
        self._ttl_ms = config.state.history_ttl_ms
        self._clocks = Watermarks(1, self._ttl_ms)
        self._users = MemoryUserStore(
            Path(), partitions=1, max_len=config.learner.max_len, list_len=1, history_ttl_ms=self._ttl_ms
        )
        self._methods = {"popular": PopularBaseline(), "item_to_item": ItemToItemBaseline()}
        self._metrics = {name: RankMetrics() for name in self._methods}

    def take(self, batch: RecordBatch, evaluate: bool) -> None:
        """Rank each event's item, then count the event; the ranks count when the model is evaluated on them, too."""
        decoded = self._decoder.decode(batch.values, batch.keys)
        if not decoded.users:
            return
        row_of = {user: row for row, user in enumerate(dict.fromkeys(decoded.users))}
        user_index = np.array([row_of[user] for user in decoded.users], dtype=np.int64)
        items = np.array([self._handles.setdefault(item, len(self._handles) + 1) for item in decoded.items])
        users = list(row_of)
        clock = self._clocks.take(np.zeros(len(items), dtype=np.int64), decoded.ts)
        records = self._users.read(0, users)
        done = append(records, user_index, items, decoded.ts, decoded.actions, ttl_ms=self._ttl_ms, clock=clock)
        self._users.write(0, users, done.records)
        taken = np.flatnonzero(done.accepted)
        contexts = np.where(self._liked[done.context_actions[taken]], done.contexts[taken], 0)
        for name, method in self._methods.items():
            ranks = method.take(contexts, items[taken])
            if evaluate:
                self._metrics[name].add(ranks[self._liked[decoded.actions[taken]]])

    def result(self) -> dict[str, dict[str, float]]:
        """Accuracy by baseline."""
        return {name: metrics.result() for name, metrics in self._metrics.items()}


def replay(
    config: StreamConfig,
    file: EventFile,
    state: Path,
    *,
    keep: bool,
    step_events: int,
    baselines: bool = True,
    init: Path | None = None,
    titles: Titles | None = None,
    intents: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[ReplayProgress], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Send the file's records through an engine; returns the report.

    Parameters
    ----------
    config
        With `log.partitions` 1: a file has one order.
    state
        State folder; with `keep` it gets checkpoints and is continued when it holds some of the same file. A last step
        that was short is then made again in full, so that the outcome is that of one run.
    step_events
        Records of one step.
    init
        Folder of the fitted model that a new state folder begins with.
    titles
        Title and category by item id; they name the intents.
    intents
        File to which shifts, and at the end every user's intent, are written as JSON lines.
    stop
        Asked after every step; when true the replay ends there, with a checkpoint.

    Raises
    ------
    FileTruncated
        The file cannot be read to its end; with `keep` there is a checkpoint, to go on from when it can.
    SourceError
        The state folder belongs to another file or to a worker.
    StateInUse
        Another process has the state folder, or it cannot be written.
    """
    began = clock()
    with ExitStack() as stack:
        kept = ReplayFolder(state, step_events, config.engine.keep_checkpoints) if keep else None
        if kept is not None:
            stack.callback(kept.close)
            engine = kept.open(config, titles, init)
        else:
            engine = Engine(config, state, CheckpointStore(state / "checkpoints"), titles=titles, init=init)
        stack.callback(engine.close)
        done = engine.positions[0]
        if file.limit is not None and file.limit < done:
            raise SourceError(
                f"{state}: holds {done} records already: give a larger --limit, or --state another folder"
            )
        beside = Baselines(config) if baselines else None
        episodes, refused = Episodes(), RejectionCounts()
        decoder = Decoder(config.actions)
        told = None if intents is None else IntentsFile(intents)
        if told is not None:
            stack.callback(told.close)
        inside = 0.0  # seconds in the engine: decode, step, learn
        here, complete = 0, False
        every = config.engine.evaluate_every
        steps = _Steps(file, step_events)
        for batch in steps:
            if beside is not None:
                step = -(-batch.next_offset // step_events)
                beside.take(batch, evaluate=every > 0 and step % every == 0)
            if kept is not None:
                kept.take(batch, engine)
            if batch.next_offset <= done:
                refused.take(gather(decoder, [batch]).letters)  # the report is of the whole file
                continue
            mark = clock()
            result = engine.step([batch])
            engine.learn(engine.plan_learning(result.events, 0))
            episodes.take(result)
            refused.take(result.messages)
            if told is not None:
                told.take(engine)
            if kept is not None and result.step % config.engine.checkpoint_every_steps == 0:
                kept.checkpoint(engine)
            inside += clock() - mark
            here += len(batch)
            if on_step is not None:
                on_step(ReplayProgress(batch.next_offset, file.fraction, engine))
            if stop():
                break
        else:
            complete = steps.error is None
        if steps.error is not None and steps.read < done:
            raise steps.error
        if kept is not None:
            kept.checkpoint(engine)
        if told is not None:
            told.finish(engine)
        report = _report(engine, beside, clock() - began, inside, here)
        report |= refused.report() | {"complete": complete, "drift": {"episodes": episodes.report()}}
        if titles is not None:
            report["items_in_file_only"] = sum(handle == 0 for handle in engine.lookup(list(titles)))
        if steps.error is not None:
            raise FileTruncated(steps.error, report)
        return report


class _Steps:
    """The file's records as steps of exactly `step_events`, the last one may be shorter.

    A file that cannot be read to its end gives what is there; `error` then says why.
    """

    def __init__(self, file: EventFile, step_events: int) -> None:
        self._file = file
        self._step_events = step_events
        self._rule = file.format.rule
        self.error: SourceError | None = None
        self.read = 0

    def __iter__(self) -> Iterator[RecordBatch]:
        keys: list[bytes | None] = []
        values: list[bytes | None] = []
        found: list[bytes | None] = []
        size = self._step_events
        try:
            for chunk in self._file:
                keys += chunk.keys
                values += chunk.values
                found += chunk.originals
                while len(values) >= size:
                    yield self._batch(keys[:size], values[:size], found[:size])
                    del keys[:size], values[:size], found[:size]
        except SourceError as exc:
            self.error = exc
        if values:
            yield self._batch(keys, values, found)

    def _batch(self, keys: list[bytes | None], values: list[bytes | None], found: list[bytes | None]) -> FileBatch:
        n, start = len(values), self.read
        self.read += n
        offsets = list(range(start, start + n))
        return FileBatch(topics.EVENTS, 0, offsets, keys, values, [0] * n, [()] * n, start + n, found, self._rule)


def _report(engine: Engine, beside: Baselines | None, seconds: float, inside: float, records: int) -> dict[str, Any]:
    counters, gauges = engine.counters, engine.gauges()
    return {
        "records": engine.record_number,
        "events": counters["events"],
        "users": counters["users"],
        "items": int(gauges["items"]),
        # a fitted model brings items that were never admitted: then it is not known
        "items_recycled": None if engine.init_fingerprint else counters["items_admitted"] - int(gauges["items"]),
        "dead_letters": counters["dead_letters"],
        "unknown_fields": counters["unknown_fields"],
        "duplicates": counters["duplicates"],
        "late": counters["late"],
        "erased": counters["erased"],
        "seconds": round(seconds, 3),
        "engine_seconds": round(inside, 3),
        "events_per_second": round(records / inside, 1) if inside else 0.0,
        "prequential": engine.prequential.result(),
        "served": engine.served.result(),
        "baselines": beside.result() if beside is not None else {},
        "intents": {"active": gauges["intents_active"], "effective": gauges["intents_effective"]},
        "recommendations": counters["recommendations"],
        "shifts": counters["shifts"],
        "model_shifts": counters["model_shifts"],
        "learn_steps": counters["learn_steps"],
        "learn_refused": counters["learn_refused"],
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "digest": engine.digest(),
    }
