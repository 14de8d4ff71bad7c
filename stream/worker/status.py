"""The health of a worker, read from the log and the state folder beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from state.checkpoints import Checkpoint, CheckpointStore
from stream.config import StreamConfig
from stream.log.base import EventLog, OffsetRange, TopicPartition
from stream.schema import topics
from stream.schema.messages import StreamMetrics
from stream.worker.journal import last_entry

_REPORTS_READ = 100  # newest reports, of all workers
_REPORTS_MISSING = 10  # reporting intervals without a report after which a worker counts as gone
_metrics = msgspec.json.Decoder(StreamMetrics).decode


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """Figures for an operator; `problems` is empty when the worker is healthy."""

    lag: dict[int, int]  # records not yet committed, per input partition
    last_step: int
    checkpoint_step: int | None
    behind_checkpoint: int  # journalled steps that a restart would redo
    recovery_seconds: float | None  # estimate, at the worker's recent pace; None without a report
    metrics: StreamMetrics | None
    problems: list[str]
    repartitioned: int = 0  # events lately that were in another partition than their user's


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
    ends = log.end_offsets(config.events.topic)
    lag = {p: end - committed.get(TopicPartition(config.events.topic, p), 0) for p, end in enumerate(ends)}
    checkpoint = _newest_checkpoint(config, state)
    checkpoint_step = checkpoint.step if checkpoint is not None else None
    hint = checkpoint.manifest["engine"].get("journal_from", 0) if checkpoint is not None else 0
    entry = last_entry(log, worker, hint, decided=True)  # a worker that hangs in a commit is reported, not waited for
    newest = max(0 if entry is None else entry.step, checkpoint_step or 0)
    reports: list[StreamMetrics] = []
    problems = []
    try:
        reports = _newest_reports(log, worker)
    except msgspec.MsgspecError as exc:
        problems.append(f"the newest figures in {topics.METRICS} are of another version ({exc}): use that version")
    else:
        problems += _problems_of_figures(config, reports, now_ms)
    metrics = reports[0] if reports else None
    waiting = sum(lag.values())
    if waiting > max_lag:
        problems.append(f"lag {waiting} records is above {max_lag}: the worker is down or too slow for the stream")
    if checkpoint is None:
        problems.append(f"no checkpoint in {state}: a restart would replay the whole journal")
    behind = newest - (checkpoint_step or 0)
    step_ms = metrics.gauges.get("step_ms") if metrics is not None else None
    return WorkerHealth(
        lag=lag,
        last_step=newest,
        checkpoint_step=checkpoint_step,
        behind_checkpoint=behind,
        recovery_seconds=behind * step_ms / 1000 if step_ms else None,
        metrics=metrics,
        problems=problems,
        repartitioned=_misplaced_lately(reports),
    )


def _newest_checkpoint(config: StreamConfig, state: Path) -> Checkpoint | None:
    if not (state / "checkpoints").is_dir():
        return None
    return CheckpointStore(state / "checkpoints", keep=config.engine.keep_checkpoints).peek()


def _problems_of_figures(config: StreamConfig, reports: list[StreamMetrics], now_ms: int) -> list[str]:
    """What the worker's newest reports, newest first, say against it."""
    if not reports:
        return [f"no figures of worker {config.engine.worker!r} in {topics.METRICS}: it never ran on this log"]
    metrics = reports[0]
    if metrics.gauges.get("failed"):
        return ["the worker ended with an error, which is in its log; start it to go on"]
    if metrics.state == "stopped":
        return ["the worker was stopped in order; start it to go on"]
    age_s = (now_ms - metrics.ts) / 1000
    if age_s > _REPORTS_MISSING * config.engine.metrics_every_s:
        return [f"the newest figures are {age_s:.0f} s old: the worker is gone or hangs"]
    problems = []
    if failing := int(metrics.gauges.get("checkpoints_failing", 0)):
        problems.append(f"the last {failing} checkpoints failed: a restart redoes more and more; see the worker's log")
    return problems


def _newest_reports(log: EventLog, worker: str) -> list[StreamMetrics]:
    """The worker's newest reports, newest first; ends before one of another version, unless that is the newest."""
    begin, end = log.begin_offsets(topics.METRICS)[0], log.stable_offsets(topics.METRICS)[0]
    batch = log.read(OffsetRange(topics.METRICS, 0, max(begin, end - _REPORTS_READ), end))
    reports: list[StreamMetrics] = []
    for key, value in zip(reversed(batch.keys), reversed(batch.values), strict=True):
        if key == worker.encode() and value is not None:
            try:
                reports.append(_metrics(value))
            except msgspec.MsgspecError:
                if not reports:
                    raise
                break
    return reports


def _misplaced_lately(reports: list[StreamMetrics]) -> int:
    """Events in another partition than their user's, within the reports; all of them when there is only one."""
    counts = [report.counters.get("misplaced", 0) for report in reports]
    return (counts[0] - counts[-1] if len(counts) > 1 else counts[0]) if counts else 0
