"""JSON Schemas of everything on the topics, and one example of each."""

from __future__ import annotations

from typing import Final

import msgspec

from stream.schema import topics
from stream.schema.events import BehaviorEvent
from stream.schema.messages import (
    AsOf,
    DriftAlert,
    ErasureReceipt,
    Intent,
    IntentShift,
    JournalEntry,
    Recommendations,
    Recommended,
    StreamMetrics,
)

_TS: Final = 1_767_268_800_000  # 2026-01-01 12:00 UTC
_AS_OF: Final = AsOf(partition=2, offset=48_211, ts=_TS)

EXAMPLES: Final[dict[str, msgspec.Struct]] = {
    topics.EVENTS: BehaviorEvent(user="u4711", item="lamp-17", ts=_TS, action="cart"),
    topics.RECOMMENDATIONS: Recommendations(
        user="u4711",
        items=[
            Recommended(item="lamp-4", score=-1.8721, because=["lamp-17"]),
            Recommended(item="sofa-201", score=-2.4406),
        ],
        intent=12,
        source="model",
        because=["lamp-17", "lamp-63"],
        step=1_904,
        model_step=1_902,
        as_of=_AS_OF,
    ),
    topics.INTENT_SHIFTS: IntentShift(
        user="u4711",
        from_intent=3,
        to_intent=12,
        cause="user",
        confidence=0.93,
        evidence=["lamp-17", "lamp-63"],
        held_for=21,
        step=1_904,
        as_of=_AS_OF,
    ),
    topics.INTENT_CATALOG: Intent(
        intent=12,
        name="lamp-17, lamp-63, lamp-4",
        top_items=["lamp-17", "lamp-63", "lamp-4"],
        share=0.081,
        separation=0.74,
        speed=0.012,
        position=[0.31, -0.66],
        born_at=400,
        step=1_904,
        ts=_TS,
    ),
    topics.DRIFT_ALERTS: DriftAlert(
        episode=7,
        state="opened",
        kind="unknown",
        signals=["served_hits", "distance"],
        detector="page_hinkley",
        before=0.214,
        after=0.131,
        since_event=486_200,
        since_ts=_TS - 90_000,
        at_event=487_424,
        action="more_steps",
        action_until=493_424,
        step=1_904,
        ts=_TS,
    ),
    topics.METRICS: StreamMetrics(
        worker="worker-0",
        ts=_TS,
        state="running",
        step=1_904,
        model_step=1_902,
        counters={"events": 487_424, "users": 5_216, "dead_letters": 488, "recommendations": 201_377},
        gauges={"events_per_second": 3_120.5, "freshness_p50_ms": 61.0, "loss": 5.31, "served_hr@10": 0.187},
        lag={"0": 12, "1": 0},
        event_ts=_TS,
    ),
    topics.ERASURES: ErasureReceipt(
        user="u4711",
        erased=["history", "recommendations"],
        remains={
            "older checkpoints": "removed when the newest `engine.keep_checkpoints` checkpoints have replaced them"
        },
        step=1_904,
        as_of=_AS_OF,
    ),
    topics.JOURNAL: JournalEntry(
        worker="worker-0",
        step=1_904,
        ranges=[(0, 121_807, 121_871), (2, 48_150, 48_212)],
        learn_steps=1,
        messages=118,
        checksum=2_774_061_553,
    ),
}
"""An example of the value on every topic but the dead letters, whose values are the bytes that were refused."""


def schema(kind: type[msgspec.Struct]) -> dict[str, object]:
    """JSON Schema of a struct, with the dialect it is written in.

    >>> schema(AsOf)["title"]
    'AsOf'
    """
    made = msgspec.json.schema(kind)
    definitions: dict[str, dict[str, object]] = made.pop("$defs")
    own = definitions.pop(kind.__name__)
    whole: dict[str, object] = {"$schema": "https://json-schema.org/draft/2020-12/schema", **own}
    return whole | ({"$defs": definitions} if definitions else {})


def schema_files() -> dict[str, str]:
    """File names and contents: a schema and an example per topic."""
    files: dict[str, str] = {}
    for topic, example in EXAMPLES.items():
        files[f"{topic}.schema.json"] = _pretty(msgspec.json.encode(schema(type(example))))
        files[f"{topic}.example.json"] = _pretty(msgspec.json.encode(example))
    return files


def _pretty(data: bytes) -> str:
    return msgspec.json.format(data, indent=2).decode() + "\n"


__all__ = ["EXAMPLES", "schema", "schema_files"]
