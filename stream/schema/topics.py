"""Names, keys, partitions and retention of every topic, once."""

from __future__ import annotations

from typing import Final

from stream.log.base import TopicSpec

EVENTS: Final = "behavior-events"
RECOMMENDATIONS: Final = "recommendations"
INTENT_SHIFTS: Final = "intent-shifts"
INTENT_CATALOG: Final = "intent-catalog"
DRIFT_ALERTS: Final = "drift-alerts"
METRICS: Final = "stream-metrics"
ERASURES: Final = "erasures"
DEAD_LETTERS: Final = "behavior-events.dead-letter"
JOURNAL: Final = "intentstream-journal"

DAY_MS: Final = 24 * 3600 * 1000
OUTPUTS: Final = (RECOMMENDATIONS, INTENT_SHIFTS, INTENT_CATALOG, DRIFT_ALERTS, METRICS, ERASURES, DEAD_LETTERS)


def topic_specs(partitions: int, events: str = EVENTS) -> list[TopicSpec]:
    """The specs of all topics; those keyed by user have as many partitions as `events`, the input."""
    keep = 30 * DAY_MS
    return [
        TopicSpec(events, partitions, retention_ms=7 * DAY_MS, max_message_bytes=128 * 1024),
        TopicSpec(RECOMMENDATIONS, partitions, cleanup="compact"),
        TopicSpec(INTENT_SHIFTS, partitions, retention_ms=keep),
        TopicSpec(INTENT_CATALOG, 1, cleanup="compact"),
        TopicSpec(DRIFT_ALERTS, 1, retention_ms=keep),
        TopicSpec(METRICS, 1, retention_ms=7 * DAY_MS, retention_records=1_000_000),
        TopicSpec(ERASURES, partitions, retention_ms=keep),
        TopicSpec(DEAD_LETTERS, 1, retention_ms=keep, max_message_bytes=1024 * 1024),
        TopicSpec(JOURNAL, 1, retention_ms=7 * DAY_MS),
    ]
