from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from state.checkpoints import CheckpointStore
from stream.engine.engine import Engine
from stream.engine.event_clock import WINDOW_EVENTS, EventClock
from stream.schema.event_batch import EventBatch
from tests.unit.stream.streams import START_MS, as_batches, small_config

DAY_MS = 24 * 3_600_000


def batch(users: list[int], ts: list[int], partitions: list[int]) -> EventBatch:
    n = len(users)
    names = [b"%d" % user for user in users]
    return EventBatch(names, ["x"] * n, np.array(ts), np.zeros(n, dtype=np.uint8), np.array(partitions, dtype=np.int64))


def test_one_event_a_day_ahead_stretches_no_bin_of_the_arrival_rate(tmp_path: Path) -> None:
    config = small_config()
    engine = Engine(config, tmp_path, CheckpointStore(tmp_path))
    signal = engine.drift._monitor._monitors["arrival_rate"].signal
    rates: list[float] = []
    value = signal.value

    def note() -> tuple[float, float]:
        rates.append(value()[0])
        return rates[-1], 1.0

    signal.value = note  # type: ignore[method-assign]
    records = [
        json.dumps({"user": f"u{n % 60}", "item": f"i{n % 7}", "ts": START_MS + 1000 * n}).encode() for n in range(5000)
    ]
    records[2600] = json.dumps({"user": "u1", "item": "i1", "ts": START_MS + DAY_MS}).encode()
    for batches in as_batches(records, 2, 64):
        engine.step(batches)
    usual = np.log(1 / 1000)  # an event a second
    assert len(rates) > 15
    assert np.allclose(rates[2:], usual, atol=0.2)  # infinitely slow, then not a number, with the maximum
    assert START_MS + 4_700_000 < engine.event_clock.now < START_MS + 5_000_000
    engine.close()


@pytest.mark.parametrize("size", [1, 7, 300])
def test_the_clock_after_a_state_is_that_of_one_run(size: int) -> None:
    rng = np.random.default_rng(1)
    steps = [
        batch(rng.integers(50, size=size).tolist(), rng.integers(1000, 9000, size=size).tolist(), [0] * size)
        for _ in range(20)
    ]
    whole, resumed = EventClock(), EventClock()
    for number, step in enumerate(steps):
        whole.advance(step)
        if number == 9:
            resumed.load_state(json.loads(json.dumps(whole.to_state())))
        elif number > 9:
            resumed.advance(step)
    assert whole.now == resumed.now > 0
    assert len(whole.to_state()["ts"]) <= WINDOW_EVENTS


def test_the_clock_hears_every_partition_of_a_step_and_each_user_once() -> None:
    clock = EventClock()
    n = 2 * WINDOW_EVENTS
    ts = [1000 + row for row in range(n)]
    clock.advance(batch(list(range(2 * n)), ts + ts, [0] * n + [1] * n))
    assert 1000 + n - WINDOW_EVENTS <= clock.now <= 1000 + n
    before = clock.now
    clock.advance(
        batch([7] * (WINDOW_EVENTS // 2), [before + DAY_MS] * (WINDOW_EVENTS // 2), [0] * (WINDOW_EVENTS // 2))
    )
    assert before <= clock.now < before + WINDOW_EVENTS
