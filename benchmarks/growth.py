"""What growth costs: a step beside the number of users, a learning step beside the catalogue, memory beside the stream.

    python -m benchmarks.growth [--users 10000,1000000] [--items 10000,100000,1000000] [--steps 40] [--events 1000000]

Users: an engine takes the same warm-up, the store is filled with that many users with a history, then steps of 256
events of users drawn at random are timed (decode, histories, ranking, publishing; learning apart). Items: a learner is
filled with that many items, then the same mini-batches are learned. Both report the median, and the ratio of the
largest to the smallest. Events: an engine takes so many by 100,000 users about 5,000 items, learning from all of them;
resident memory is looked at every 100,000 events, beside what the users' database has in its block cache and its write
buffers, and the last figure compared with that at 400,000, by when the pairs to replay and the block cache are full.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from intentstream.config import Config
from learner.config import LearnerConfig
from learner.online.histories import Histories
from learner.online.learner import Learner
from learner.online.step import StepBatch
from learner.runtime import set_threads
from stream.engine.engine import Engine
from stream.log.base import RecordBatch
from stream.schema import topics

STEP = 256
TEMPLATES = 2_000  # users of the warm-up, whose records all others start with copies of
ITEMS = 5_000  # that the users' events are about
WARM_UP = 40  # steps
START_MS = 1_700_000_000_000
CROWD = 100_000  # users of the long stream
LOOK = 100_000  # events between two looks at the memory
FULL = 400_000  # events after which nothing should grow
BUFFERS = ("rocksdb.block-cache-usage", "rocksdb.cur-size-all-mem-tables")


def batch(start: int, users: NDArray[np.int64], random: np.random.Generator) -> RecordBatch:
    """One step's events of these users, items drawn with a long tail."""
    items = np.minimum(random.zipf(1.3, len(users)), ITEMS)
    names = [b"user-%d" % user for user in users.tolist()]
    values = [
        b'{"user":"%b","item":"%d","ts":%d}' % (name, item, START_MS + start + place)
        for place, (name, item) in enumerate(zip(names, items.tolist(), strict=True))
    ]
    n = len(values)
    offsets = list(range(start, start + n))
    return RecordBatch(topics.EVENTS, 0, offsets, list(names), list(values), [START_MS] * n, [()] * n, start + n)


def fill(engine: Engine, users: int) -> None:
    """Write the templates' records again and again under other users' names."""
    store = engine.store  # a million users through `step` would take minutes and show nothing else
    templates = store.read(0, [b"user-%d" % user for user in range(TEMPLATES)])
    for first in range(TEMPLATES, users, TEMPLATES):
        names = [b"user-%d" % user for user in range(first, min(first + TEMPLATES, users))]
        store.write(0, names, templates[: len(names)])


def engine_step(users: int, steps: int, seed: int = 0) -> dict[str, Any]:
    """Median milliseconds of an engine's step, and of the learning after it, with so many users known."""
    if users < TEMPLATES:
        raise SystemExit(f"--users {users}: expected {TEMPLATES} or more")
    default, replace = Config(), msgspec.structs.replace
    config = replace(default, log=replace(default.log, partitions=1))
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine.open(config, Path(folder))
        taken, times, learned = 0, [], []
        try:
            for step in range(WARM_UP + steps):
                known = TEMPLATES if step < WARM_UP else users
                if step == WARM_UP:
                    fill(engine, users)
                records = batch(taken, random.integers(0, known, STEP), random)
                taken += STEP
                begin = time.perf_counter()
                engine.step([records])
                stepped = time.perf_counter()
                engine.learn(1)
                times.append(stepped - begin)
                learned.append(time.perf_counter() - stepped)
        finally:
            engine.close()
    return {
        "users": users,
        "step_ms": round(1000 * statistics.median(times[WARM_UP:]), 2),
        "learning_ms": round(1000 * statistics.median(learned[WARM_UP:]), 2),
    }


def learning_step(items: int, steps: int, seed: int = 0) -> dict[str, Any]:
    """Median milliseconds of a learning step of a learner that holds `items` items."""
    learner = Learner(LearnerConfig(capacity=max(items, 1_000_000)))
    for start in range(0, items, 50_000):
        stop = min(start + 50_000, items)
        learner.admit([str(item) for item in range(start, stop)], np.arange(start, stop))
    random = np.random.default_rng(seed)
    times = []
    for _ in range(steps):
        # the same traffic at every size: 10,000 items are in use, the others only exist
        handles = random.integers(1, min(items, 10_000) + 1, (STEP, 10))
        contexts = np.zeros((STEP, learner.config.max_len), dtype=np.int64)
        contexts[:, -9:] = handles[:, :9]
        users, ts = random.integers(0, 2**32, STEP).astype(np.uint64), np.arange(STEP)
        weights = np.ones(STEP, dtype=np.float32)
        learner.observe(StepBatch(users, Histories.of_items(contexts), handles[:, 9], weights, ts), evaluate=False)
        start_s = time.perf_counter()
        learner.learn(1)
        times.append(time.perf_counter() - start_s)
    return {"items": items, "learning_step_ms": round(1000 * statistics.median(times[steps // 4 :]), 2)}


def memory(events: int, seed: int = 0) -> list[dict[str, Any]]:
    """Resident megabytes of an engine along a stream whose users and items stay the same."""
    default, replace = Config(), msgspec.structs.replace
    config = replace(default, log=replace(default.log, partitions=1))
    random = np.random.default_rng(seed)
    rows, page = [], resource.getpagesize()
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine.open(config, Path(folder))
        try:
            for taken in range(0, events, STEP):
                engine.step([batch(taken, random.integers(0, CROWD, STEP), random)])
                engine.learn(1)
                if (taken + STEP) // LOOK > taken // LOOK:
                    rss = int(Path("/proc/self/statm").read_text().split()[1]) * page
                    database = engine.store._databases[0]  # noqa: SLF001 (nobody else asks what RocksDB holds)
                    buffers = sum(int(database.property_int_value(name) or 0) for name in BUFFERS)
                    sizes_mb = {"rss_mb": rss, "buffers_mb": buffers, "rest_mb": rss - buffers}
                    row = {name: round(size / 2**20, 1) for name, size in sizes_mb.items()}
                    rows.append({"events": (taken + STEP) // LOOK * LOOK, **row})
                    print(json.dumps(rows[-1]), flush=True)
        finally:
            engine.close()
    return rows


def ratio(rows: list[dict[str, Any]], key: str) -> float:
    """The last row against the first."""
    return round(float(rows[-1][key] / rows[0][key]), 3)


def sizes(text: str) -> list[int]:
    return sorted(int(size) for size in text.split(",") if size)


def main() -> None:
    """Measure every size, smallest first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", default="10000,1000000", help="users known, at least 2,000 each")
    parser.add_argument("--items", default="10000,100000,1000000", help="sizes of the catalogue")
    parser.add_argument("--steps", type=int, default=40, help="timed steps at every size")
    parser.add_argument("--events", type=int, default=1_000_000, help="length of the stream, 500,000 or more; 0 = none")
    given = parser.parse_args()
    if 0 < given.events < FULL + LOOK:
        parser.error(f"--events {given.events}: expected 0, or {FULL + LOOK} or more")
    set_threads(LearnerConfig().threads)
    found: dict[str, Any] = {}
    if given.events:  # first: what the others free would be in the figures
        looks = memory(given.events)
        late = [row for row in looks if row["events"] >= FULL]
        found |= {"memory": looks, "memory_ratio": ratio(late, "rss_mb"), "rest_ratio": ratio(late, "rest_mb")}
    measures = (("step", sizes(given.users), engine_step), ("learning_step", sizes(given.items), learning_step))
    for name, wanted, measure in measures:
        rows = []
        for size in wanted:
            rows.append(measure(size, given.steps))
            print(json.dumps(rows[-1]), flush=True)
        if rows:
            found |= {name: rows, f"{name}_ratio": ratio(rows, f"{name}_ms")}
    found["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(found))


if __name__ == "__main__":
    main()
