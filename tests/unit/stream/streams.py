"""Small streams and configurations for the tests of the engine and the worker."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np

from intentstream.config import Config
from learner.config import LearnerConfig
from learner.model.config import EncoderConfig, IntentConfig
from stream.log.base import Message, RecordBatch
from stream.log.partitioner import partition_of
from stream.schema import topics

START_MS = 1_700_000_000_000


def small_config(partitions: int = 2, url: str = "var/log", **engine: Any) -> Config:
    """A configuration whose model takes milliseconds."""
    default = Config()
    learner = LearnerConfig(
        max_len=10,
        capacity=1000,
        batch=64,
        replay=32,
        recent_pairs=500,
        uniform_pairs=500,
        encoder=EncoderConfig(hidden=16, layers=1, heads=2),
        intents=IntentConfig(count=4, queue=64),
    )
    replace = msgspec.structs.replace
    return replace(
        default,
        log=replace(default.log, partitions=partitions, url=url),
        engine=replace(
            default.engine,
            **{
                "list_len": 5,
                "max_step_records": 64,
                "checkpoint_every_steps": 3,
                "checkpoint_redo_s": 3600.0,
                **engine,
            },
        ),
        state=replace(default.state, write_buffer_bytes=1 << 20, cache_bytes=1 << 20),
        learner=learner,
    )


def events(count: int, seed: int = 0, users: int = 40, items: int = 60) -> list[bytes]:
    """Records of users who walk through the items in order, some of them twice, late or broken."""
    rng = np.random.default_rng(seed)
    position = rng.integers(items, size=users)
    records = []
    for number in range(count):
        user = int(rng.integers(users))
        position[user] = (position[user] + 1 + int(rng.random() < 0.1)) % items
        ts = START_MS + number * 1000 - (5_000_000 if rng.random() < 0.05 else 0)
        event = {"user": f"u{user}", "item": f"i{position[user]}", "ts": ts}
        if rng.random() < 0.1:
            event["action"] = str(rng.choice(["cart", "dislike"]))
        records.append(json.dumps(event).encode())
        if rng.random() < 0.03:
            records.append(records[-1])
        if rng.random() < 0.03:
            records.append(b'{"user": "u1", "item": "", "ts": 1}')
    return records[:count]


def as_messages(records: list[bytes]) -> list[Message]:
    """The records as messages to the event topic, keyed by user."""
    return [Message(topics.EVENTS, json.loads(record)["user"].encode(), record, START_MS) for record in records]


def as_batches(records: list[bytes], partitions: int, step: int) -> list[list[RecordBatch]]:
    """The records as the batches of successive steps of at most `step` records of the stream."""
    steps = []
    ends = [0] * partitions
    for start in range(0, len(records), step):
        parts: list[list[bytes]] = [[] for _ in range(partitions)]
        for record in records[start : start + step]:
            parts[partition_of(json.loads(record)["user"].encode(), partitions)].append(record)
        batches = []
        for partition, values in enumerate(parts):
            offsets = list(range(ends[partition], ends[partition] + len(values)))
            ends[partition] += len(values)
            keys: list[bytes | None] = [json.loads(value)["user"].encode() for value in values]
            n = len(values)
            batches.append(
                RecordBatch(
                    topics.EVENTS, partition, offsets, keys, list(values), [START_MS] * n, [()] * n, ends[partition]
                )
            )
        steps.append(batches)
    return steps
