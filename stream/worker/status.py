"""How a worker stands, read from the log and the state folder without disturbing it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from state import CheckpointStore
from stream.config import StreamConfig
from stream.log.base import EventLog, OffsetRange, TopicPartition
from stream.schema import topics
from stream.schema.messages import StreamMetrics
from stream.worker.journal import last_entry

_metrics = msgspec.json.Decoder(StreamMetrics).decode


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """Figures for an operator; `problems` is empty when the worker is healthy."""

    lag: dict[int, int]  # records not yet committed, per input partition
    last_step: int
    checkpoint_step: int | None
    behind_checkpoint: int  # journalled steps that a restart would redo
    recovery_seconds: float | None  # estimate: those steps at the worker's own recent pace; None before any figure
    metrics: StreamMetrics | None
    problems: list[str]


def worker_health(config: StreamConfig, log: EventLog, state: Path, *, now_ms: int, max_lag: int) -> WorkerHealth:
    """Read the worker's lag, newest step, newest checkpoint and newest figures.

    Parameters
    ----------
    now_ms
        Wall clock, epoch milliseconds: figures older than ten reporting intervals mean that the worker is gone.
    max_lag
        Records waiting in all partitions above which the worker counts as unhealthy.
    """
    worker = config.engine.worker
    committed = log.committed(worker)
    ends = log.end_offsets(topics.EVENTS)
    lag = {p: end - committed.get(TopicPartition(topics.EVENTS, p), 0) for p, end in enumerate(ends)}
    checkpoint = (
        CheckpointStore(state / "checkpoints", keep=config.engine.keep_checkpoints).peek()
        if (state / "checkpoints").is_dir()
        else None
    )
    hint = checkpoint.manifest["engine"].get("journal_from", 0) if checkpoint is not None else 0
    entry = last_entry(log, worker, hint, decided=True)  # who hangs in a commit is reported, not waited for
    newest = max(0 if entry is None else entry.step, checkpoint.step if checkpoint is not None else 0)
    behind = newest - (checkpoint.step if checkpoint is not None else 0)
    problems = []
    metrics = None
    try:
        metrics = _newest_metrics(log, worker)
    except msgspec.MsgspecError as exc:
        problems.append(f"the newest figures in {topics.METRICS} are of another version ({exc}): ask with that one")
    else:
        if metrics is None:
            problems.append(f"no figures of worker {worker!r} in {topics.METRICS}: it never ran on this log")
    seconds = None
    if metrics is not None and metrics.gauges.get("step_ms"):
        seconds = behind * metrics.gauges["step_ms"] / 1000
    waiting = sum(lag.values())
    if waiting > max_lag:
        problems.append(f"lag {waiting} records is above {max_lag}: the worker is down or too slow for the stream")
    if checkpoint is None:
        problems.append(f"no checkpoint in {state}: a restart would replay the whole journal")
    if metrics is not None and metrics.state == "stopped":
        problems.append("the worker was stopped in order; start it to go on")
    elif metrics is not None and now_ms - metrics.ts > 10_000 * config.engine.metrics_every_s:
        problems.append(f"the newest figures are {(now_ms - metrics.ts) / 1000:.0f} s old: the worker is gone or hangs")
    return WorkerHealth(
        lag, newest, checkpoint.step if checkpoint is not None else None, behind, seconds, metrics, problems
    )


def _newest_metrics(log: EventLog, worker: str) -> StreamMetrics | None:
    begin, end = log.begin_offsets(topics.METRICS)[0], log.stable_offsets(topics.METRICS)[0]
    batch = log.read(OffsetRange(topics.METRICS, 0, max(begin, end - 100), end))
    for key, value in zip(reversed(batch.keys), reversed(batch.values), strict=True):
        if key == worker.encode() and value is not None:
            return _metrics(value)
    return None
