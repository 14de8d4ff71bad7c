"""The configuration of the stream: frozen structs, every section beside the code that it configures."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from learner.config import LearnerConfig
from learner.drift.config import DriftConfig, FallbackConfig
from learner.intents.config import ShiftConfig
from stream.log.kafka.config import KafkaConfig
from stream.mapping.config import EventsConfig
from stream.schema.events import ActionsConfig

_DAY_MS = 24 * 3600 * 1000


class LogConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The log: where events are read and messages are written."""

    url: Annotated[
        str,
        Meta(min_length=1, description="file:///DIR or a plain path: the embedded log; kafka://host:port[,host:port]"),
    ] = "var/log"
    partitions: Annotated[
        int, Meta(ge=1, le=1024, description="partitions of the topics keyed by user, fixed once they exist; count")
    ] = 4
    kafka: KafkaConfig = KafkaConfig()


class StateConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Histories on disk and the checkpoints."""

    history_ttl_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=100 * 365 * _DAY_MS,
            description="age of the newest event at which a user is forgotten, 0 never; ms of event time",
        ),
    ] = 90 * _DAY_MS
    cache_bytes: Annotated[
        int, Meta(ge=1 << 20, le=1 << 40, description="block cache shared by all partitions; bytes")
    ] = 64 << 20
    write_buffer_bytes: Annotated[
        int, Meta(ge=1 << 20, le=1 << 40, description="write buffers of all partitions together; bytes")
    ] = 32 << 20
    checkpoint_location: Annotated[
        str,
        Meta(description='any fsspec URL for copies of the checkpoints, such as s3://bucket/checkpoints; "" for none'),
    ] = ""


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Steps: how many records each takes, learns from, and publishes for."""

    worker: Annotated[
        str,
        Meta(pattern=r"^[A-Za-z0-9._-]{1,100}$", description="stable id of this worker: journal key, transactional id"),
    ] = "worker-0"
    max_step_records: Annotated[int, Meta(ge=1, le=100_000, description="most records in one step; records")] = 2000
    poll_max_wait_ms: Annotated[int, Meta(ge=0, le=60_000, description="longest wait for the first record; ms")] = 50
    step_records: Annotated[
        int, Meta(ge=1, le=100_000, description="records per `learn_steps`, and per step of a replayed file; records")
    ] = 256
    learn_steps: Annotated[
        int, Meta(ge=0, le=100, description="learning steps for every `step_records` records; steps")
    ] = 1
    max_learn_steps: Annotated[int, Meta(ge=0, le=1000, description="most learning steps after one step; steps")] = 16
    backlog_records: Annotated[
        int,
        Meta(ge=1, le=10**9, description="waiting records above which learning steps shrink in proportion; records"),
    ] = 10_000
    learn_floor: Annotated[
        int, Meta(ge=0, le=1000, description="fewest learning steps after a step under backlog; steps")
    ] = 1
    evaluate_every: Annotated[
        int, Meta(ge=0, le=10**9, description="steps between prequential evaluations, 0 never; steps")
    ] = 1
    list_len: Annotated[int, Meta(ge=1, le=100, description="length k of a published list; items")] = 20
    republish_changes: Annotated[
        int, Meta(ge=1, le=100, description="number of new items with which a list is published again; items")
    ] = 3
    republish_after_ms: Annotated[
        int, Meta(ge=0, le=365 * _DAY_MS, description="age at which a list is published again; ms of event time")
    ] = 3600 * 1000
    catalog_events: Annotated[
        int,
        Meta(ge=1, le=10**9, description="events between publications of the intent catalog; events"),
    ] = 2000
    checkpoint_every_steps: Annotated[int, Meta(ge=1, le=10**9, description="steps between checkpoints; steps")] = 200
    checkpoint_redo_s: Annotated[
        float,
        Meta(
            gt=0,
            le=3600,
            description="a checkpoint is also due when the steps since the last one took this long; seconds",
        ),
    ] = 3.0
    keep_checkpoints: Annotated[int, Meta(ge=1, le=100, description="number of newest checkpoints kept; count")] = 3
    metrics_every_s: Annotated[
        float, Meta(gt=0, le=3600, description="time between reports of the worker; seconds")
    ] = 5.0
    on_replay_mismatch: Annotated[
        Literal["warn", "fail"],
        Meta(description="reaction when recovery makes other messages than were published"),
    ] = "warn"
    on_truncated_input: Annotated[
        Literal["fail", "earliest", "latest"],
        Meta(description="when retention removed unread input: stop, or continue at this end"),
    ] = "fail"

    def __post_init__(self) -> None:
        if self.republish_changes > self.list_len:
            raise ValueError(
                f"republish_changes = {self.republish_changes}: must not be above list_len = {self.list_len}"
            )
        if self.learn_floor > self.max_learn_steps:
            raise ValueError(
                f"learn_floor = {self.learn_floor}: must not be above max_learn_steps = {self.max_learn_steps}"
            )

    def evaluates(self, step: int) -> bool:
        """Whether step number `step` counts for the prequential evaluation."""
        return self.evaluate_every > 0 and step % self.evaluate_every == 0


class StreamConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What log, engine, worker and replay are configured with."""

    log: LogConfig = LogConfig()
    events: EventsConfig = msgspec.field(default_factory=EventsConfig)
    state: StateConfig = StateConfig()
    engine: EngineConfig = EngineConfig()
    actions: ActionsConfig = msgspec.field(default_factory=ActionsConfig)
    learner: LearnerConfig = msgspec.field(default_factory=LearnerConfig)
    shifts: ShiftConfig = msgspec.field(default_factory=ShiftConfig)
    drift: DriftConfig = msgspec.field(default_factory=DriftConfig)
    fallback: FallbackConfig = msgspec.field(default_factory=FallbackConfig)


__all__ = ["EngineConfig", "LogConfig", "StateConfig", "StreamConfig"]
