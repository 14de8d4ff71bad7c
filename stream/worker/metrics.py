"""The worker's figures: rate, freshness, the parts of a step; published every few seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import NamedTuple

import msgspec

from stream.config import EngineConfig
from stream.engine.engine import Engine, StepResult
from stream.log.base import Message, RecordBatch
from stream.schema import topics
from stream.schema.messages import StreamMetrics
from stream.worker.checkpointing import CheckpointWriter

_FRESHNESS_STEPS = 10_000  # most steps behind the freshness percentiles
_FRESHNESS_S, _RATE_S = 300.0, 10.0  # how far back the percentiles and the rate look
_SMOOTHING = 0.05  # of the running means over steps


@dataclass(frozen=True, slots=True)
class StepTimes:
    """The clock at the ends of a step's parts, seconds."""

    polled: float
    stepped: float
    committed: float
    learned: float

    @property
    def redo_s(self) -> float:
        """What a recovery spends on the step: all but the commit."""
        return self.stepped - self.polled + self.learned - self.committed


@dataclass(slots=True)
class StepParts:
    """How long the parts of a step took, milliseconds; running means over steps."""

    engine_ms: float = 0.0
    commit_ms: float = 0.0
    learn_ms: float = 0.0
    step_ms: float = 0.0

    @classmethod
    def of(cls, times: StepTimes) -> StepParts:
        """The parts of one step."""
        return cls(
            (times.stepped - times.polled) * 1000,
            (times.committed - times.stepped) * 1000,
            (times.learned - times.committed) * 1000,
            (times.learned - times.polled) * 1000,
        )

    def smoothed(self, newest: StepParts) -> StepParts:
        """The means after one more step."""
        return StepParts(
            *(mean + _SMOOTHING * (new - mean) for mean, new in zip(astuple(self), astuple(newest), strict=True))
        )

    def gauges(self) -> dict[str, float]:
        """By name, rounded."""
        return {name: round(getattr(self, name), 3) for name in self.__slots__}


class _Taken(NamedTuple):
    """A step that counts for the rate."""

    clock: float  # its end, seconds
    began: float
    records: int


class _Fresh(NamedTuple):
    """A step that counts for the freshness."""

    clock: float  # seconds
    age_ms: float  # from the append of its oldest record to the commit of its messages


class WorkerMetrics:
    """Collects the figures of steps and makes the messages of the metrics topic.

    They carry the wall clock, so they are no part of a step's checksum.
    """

    def __init__(self, config: EngineConfig, clock: Callable[[], float], checkpoints: CheckpointWriter) -> None:
        self._config = config
        self._clock = clock
        self._checkpoints = checkpoints
        self._taken: deque[_Taken] = deque(maxlen=1_000)
        self._fresh: deque[_Fresh] = deque(maxlen=_FRESHNESS_STEPS)
        self._parts = StepParts()
        self._due = 0.0

    @property
    def due(self) -> bool:
        """Whether it is time for the next report."""
        return self._clock() >= self._due

    def note_step(self, result: StepResult, batches: Sequence[RecordBatch], times: StepTimes) -> None:
        """Keep the figures of a step."""
        self._taken.append(_Taken(times.learned, times.polled, result.records))
        appended = [batch.timestamps_ms[0] for batch in batches if len(batch)]
        if appended:
            self._fresh.append(_Fresh(times.committed, max(0.0, times.committed * 1000 - min(appended))))
        self._parts = self._parts.smoothed(StepParts.of(times))

    def report(self, engine: Engine, state: str, lag: Mapping[str, int], *, failed: bool = False) -> StreamMetrics:
        """The figures at this moment; `failed`: the worker ends with an error."""
        return StreamMetrics(
            worker=self._config.worker,
            ts=int(self._clock() * 1000),
            state=state,  # type: ignore[arg-type]  # a Literal on the wire, a str here
            step=engine.step_number,
            model_step=engine.model_step,
            counters=dict(engine.counters),
            gauges={
                "lag": float(sum(lag.values())),
                **self._rates(),
                "checkpoint_hold_ms": round(self._checkpoints.hold_ms, 1),
                "checkpoints_failed": float(self._checkpoints.failed),
                "checkpoints_failing": float(self._checkpoints.failing),
                **self._parts.gauges(),
                **({"failed": 1.0} if failed else {}),
                **engine.gauges(),
            },
            lag=dict(lag),
            event_ts=engine.event_clock.now,
        )

    def message(self, report: StreamMetrics) -> Message:
        """The report as a message; the next one is due `engine.metrics_every_s` later."""
        self._due = self._clock() + self._config.metrics_every_s
        return Message(topics.METRICS, report.worker.encode(), msgspec.json.encode(report), report.ts)

    def _rates(self) -> dict[str, float]:
        now = self._clock()
        # A step may take longer than the window: until the next one can have come, the newest one counts.
        longest_s = 2 * (self._taken[-1].clock - self._taken[-1].began) if self._taken else 0.0
        _drop_before(self._taken, now - max(_RATE_S, longest_s))
        _drop_before(self._fresh, now - _FRESHNESS_S)
        span_s = now - self._taken[0].began if self._taken else 0.0
        ages = sorted(step.age_ms for step in self._fresh)
        return {
            "events_per_second": round(sum(step.records for step in self._taken) / max(span_s, 1e-3), 1),
            **{f"freshness_p{p}_ms": ages[len(ages) * p // 100] for p in (50, 99) if ages},
        }


def _drop_before(steps: deque[_Taken] | deque[_Fresh], clock: float) -> None:
    while steps and steps[0].clock < clock:
        steps.popleft()


__all__ = ["StepTimes", "WorkerMetrics"]
