"""Repartitioning by user: one history per user, whatever partitions the records are in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream.config import StreamConfig
from stream.engine.engine import Engine
from stream.engine.keying import key_by_user
from stream.log.base import RecordBatch
from stream.log.partitioner import partition_of
from stream.schema import topics
from stream.schema.decoder import decode_events
from tests.unit.stream.streams import START_MS, as_batches, small_config


def record(user: str, item: str, second: int, **more: Any) -> bytes:
    return json.dumps({"user": user, "item": item, "ts": START_MS + 1000 * second} | more).encode()


def batch(partition: int, records: list[bytes], start: int = 0, arrived_ms: list[int] | None = None) -> RecordBatch:
    n = len(records)
    offsets, times = list(range(start, start + n)), arrived_ms or [START_MS] * n
    return RecordBatch(topics.EVENTS, partition, offsets, [None] * n, list(records), times, [()] * n, start + n)


def dealt(records: list[bytes], partitions: int, step: int, seed: int) -> list[list[RecordBatch]]:
    """The records as a producer without keys places them: anywhere."""
    rng, ends, steps = np.random.default_rng(seed), [0] * partitions, []
    for start in range(0, len(records), step):
        parts: list[list[bytes]] = [[] for _ in range(partitions)]
        for value in records[start : start + step]:
            parts[int(rng.integers(partitions))].append(value)
        steps.append([batch(p, values, ends[p]) for p, values in enumerate(parts)])
        ends = [end + len(values) for end, values in zip(ends, parts, strict=True)]
    return steps


def stream(count: int) -> list[bytes]:
    """Records in the order of their times, some of them twice."""
    rng = np.random.default_rng(5)
    records = [record(f"u{rng.integers(30)}", f"i{rng.integers(50)}", n) for n in range(count)]
    for place in rng.integers(10, count, 20).tolist():
        records[place] = records[place - 1]
    return records


def run(config: StreamConfig, folder: Path, steps: list[list[RecordBatch]]) -> Engine:
    engine = Engine.open(config, folder)
    for batches in steps:
        engine.learn(engine.plan_learning(engine.step(batches).records, 0))
    return engine


def users_of(engine: Engine) -> list[tuple[int, bytes, bytes]]:
    return [
        (partition, name, row.tobytes())
        for partition in range(engine.store.partitions)
        for names, records in engine.store.scan(partition)
        for name, row in zip(names, records, strict=True)
    ]


@pytest.mark.parametrize(("topic", "state"), [(3, 3), (5, 2), (3, 1)])
def test_a_topic_placed_at_random_gives_the_state_of_one_placed_by_user(tmp_path: Path, topic: int, state: int) -> None:
    records = stream(600)
    well = run(small_config(state), tmp_path / "well", as_batches(records, state, 48))
    other = run(small_config(state), tmp_path / "other", dealt(records, topic, 48, seed=1))
    assert users_of(other) == users_of(well)
    assert {name for _, name, _ in users_of(other)} == {f"u{n}".encode() for n in range(30)}
    assert other.learner.model_step == well.learner.model_step
    assert other.recommend(b"u3", 5) == well.recommend(b"u3", 5)
    counts = dict(other.counters)
    misplaced = counts.pop("misplaced")
    assert counts == {name: count for name, count in well.counters.items() if name != "misplaced"}
    assert (misplaced > 100) == (topic > 1) and well.counters["misplaced"] == 0
    well.close()
    other.close()


def test_users_whose_keys_move_to_an_added_partition_keep_their_one_history(tmp_path: Path) -> None:
    config, records = small_config(2), stream(400)
    before, after = as_batches(records[:200], 2, 50), as_batches(records[200:], 5, 50)
    ends = {one.partition: one.next_offset for batches in before for one in batches}
    after = [
        [replace(one, offsets=[ends.get(one.partition, 0) + n for n in one.offsets]) for one in batches]
        for batches in after
    ]
    after = [[replace(one, next_offset=ends.get(one.partition, 0) + one.next_offset) for one in b] for b in after]
    engine = run(config, tmp_path / "engine", before + after)
    assert engine.positions.keys() == set(range(5)) and engine.store.partitions == 2
    assert engine.counters["misplaced"] == 0
    found = [name for _, name, _ in users_of(engine)]
    assert len(found) == len(set(found)) == 30
    one = run(config, tmp_path / "one", as_batches(records, 2, 50))
    assert users_of(engine) == users_of(one)
    engine.checkpoint()
    digest = engine.digest()
    engine.close()
    one.close()
    again = Engine.open(config, tmp_path / "engine")
    assert (again.digest(), again.store.partitions, len(again.positions)) == (digest, 2, 5)
    again.close()


def test_partitions_are_merged_by_time_and_each_keeps_its_order() -> None:
    parts = [[("a", 1), ("b", 9), ("a", 4)], [("a", 2), ("a", 3), ("b", 10)]]
    values = [record(user, f"i{second}", second) for part in parts for user, second in part]
    events = replace(
        decode_events(values).events, partitions=np.array([0, 0, 0, 1, 1, 1]), offsets=np.array([0, 1, 2, 0, 1, 2])
    )
    keyed = key_by_user(events, np.arange(6) != 1, [], 1)
    assert keyed.events.items == ["i1", "i2", "i3", "i9", "i4", "i10"]
    assert keyed.keep.tolist() == [True, True, True, False, True, True]
    assert [keyed.names[row] for row in keyed.events.user_rows] == keyed.events.users
    placed = key_by_user(replace(events, partitions=np.zeros(6, dtype=np.int64)), np.ones(6, dtype=bool), [], 1)
    assert placed.events.items == events.items


def test_an_erasure_concerns_events_of_other_partitions_that_arrived_before_it(tmp_path: Path) -> None:
    engine = Engine.open(small_config(2), tmp_path)
    home = partition_of(b"ada", 2)
    engine.step([batch(1 - home, [record("ada", "old", 0)])])
    erase = json.dumps({"user": "ada", "action": "erase"}).encode()
    here = batch(
        home,
        [record("ada", "before", 1), erase, record("ada", "after", 9)],
        arrived_ms=[START_MS + n for n in (100, 200, 300)],
    )
    away = batch(
        1 - home,
        [record("ada", "beside", 2), record("ada", "later", 8)],
        start=1,
        arrived_ms=[START_MS + 200, START_MS + 201],
    )
    engine.step([here, away])
    assert engine.recommend(b"ada", 3).history == ["later", "after"]
    assert engine.counters["erased"] == 1
    engine.close()
