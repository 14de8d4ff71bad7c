"""The log: `open_log` opens the one that a URL names. Neither RocksDB nor the Kafka client is loaded before that."""

from __future__ import annotations

from stream.log.base import (
    AppendRequest,
    CommitOutcomeUnknown,
    EventLog,
    LogDamaged,
    LogError,
    LogInUse,
    LogUnavailable,
    Message,
    MessageTooLarge,
    Mode,
    OffsetOutOfRange,
    OffsetRange,
    RecordBatch,
    TopicMismatch,
    TopicPartition,
    TopicSpec,
    WriterFenced,
)
from stream.log.kafka.config import KafkaConfig
from stream.log.open import open_log

__all__ = [
    "AppendRequest",
    "CommitOutcomeUnknown",
    "EventLog",
    "KafkaConfig",
    "LogDamaged",
    "LogError",
    "LogInUse",
    "LogUnavailable",
    "Message",
    "MessageTooLarge",
    "Mode",
    "OffsetOutOfRange",
    "OffsetRange",
    "RecordBatch",
    "TopicMismatch",
    "TopicPartition",
    "TopicSpec",
    "WriterFenced",
    "open_log",
]
