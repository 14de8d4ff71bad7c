"""What repartitioning by user costs: the same stream placed by murmur2 of the user, and as librdkafka places it.

    python -m benchmarks.keys [--events 20000] [--pairs 5] [--partitions 4]

Both go through the engine, learning included, in interleaved pairs; the pace is events a second of processor time.
`key_by_user` is also timed alone, beside the whole step. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import stream.engine.engine as engine_module
from intentstream.config import Config, load_config
from learner.runtime import set_threads
from stream.engine.engine import Engine
from stream.engine.keying import key_by_user
from stream.log.base import RecordBatch
from stream.log.partitioner import partition_of
from stream.schema import topics
from stream.sources.simulator.config import SimulatorConfig
from stream.sources.simulator.simulator import Simulator

Record = tuple[bytes, bytes]
Place = Callable[[bytes, int], int]


def records(count: int) -> list[Record]:
    """Keys and values of the simulated shop."""
    simulator, made = Simulator(SimulatorConfig(), seed=1), list[Record]()
    while len(made) < count:
        chunk = simulator.next_chunk(min(2_000, count - len(made)))
        made += [(key or b"", value) for key, value in zip(chunk.keys, chunk.values, strict=True)]
    return made


def batches(shop: Sequence[Record], place: Place, partitions: int, step: int) -> list[list[RecordBatch]]:
    """The records as the batches of successive steps."""
    steps, ends = [], [0] * partitions
    for start in range(0, len(shop), step):
        parts: list[list[Record]] = [[] for _ in range(partitions)]
        for key, value in shop[start : start + step]:
            parts[place(key, partitions)].append((key, value))
        made = []
        for partition, part in enumerate(parts):
            n, begin = len(part), ends[partition]
            ends[partition] += n
            keys: list[bytes | None] = [key for key, _ in part]
            values: list[bytes | None] = [value for _, value in part]
            offsets = list(range(begin, begin + n))
            made.append(RecordBatch(topics.EVENTS, partition, offsets, keys, values, [0] * n, [()] * n, begin + n))
        steps.append(made)
    return steps


def run(config: Config, steps: list[list[RecordBatch]]) -> dict[str, Any]:
    """Processor seconds of a whole run, and of `key_by_user` in it."""
    keying = 0.0
    whole = key_by_user

    def timed(*args: Any) -> Any:
        nonlocal keying
        began = time.process_time()
        found = whole(*args)
        keying += time.process_time() - began
        return found

    setattr(engine_module, "key_by_user", timed)  # noqa: B010 (mypy: it is imported there, not exported)
    try:
        with tempfile.TemporaryDirectory() as folder:
            engine = Engine.open(config, Path(folder))
            began = time.process_time()
            for made in steps:
                engine.learn(engine.plan_learning(engine.step(made).records, 0))
            seconds = time.process_time() - began
            counters = dict(engine.counters)
            engine.close()
    finally:
        setattr(engine_module, "key_by_user", whole)  # noqa: B010
    return {"seconds": seconds, "keying": keying, "counters": counters}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--step-events", type=int, default=256)
    args = parser.parse_args()
    set_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        path.write_text(f"[log]\npartitions = {args.partitions}\n")
        config = load_config(path)
    shop = records(args.events)
    by_user = batches(shop, partition_of, args.partitions, args.step_events)
    elsewhere = batches(shop, lambda key, n: zlib.crc32(key) % n, args.partitions, args.step_events)
    ratios, shares, runs = [], [], []
    for number in range(args.pairs):
        order = [("placed", by_user), ("misplaced", elsewhere)][:: 1 if number % 2 == 0 else -1]
        found = {name: run(config, steps) for name, steps in order}
        ratios.append(found["placed"]["seconds"] / found["misplaced"]["seconds"])
        shares.append({name: one["keying"] / one["seconds"] for name, one in found.items()})
        runs.append(found)
        print(f"pair {number + 1}: {ratios[-1]:.3f}, share of keying {shares[-1]}")
    last = runs[-1]
    figures = {
        "events": args.events,
        "pairs": args.pairs,
        "pace_misplaced_to_placed": round(median(ratios), 3),
        "keying_share_placed": round(median(one["placed"] for one in shares), 5),
        "keying_share_misplaced": round(median(one["misplaced"] for one in shares), 5),
        "keying_us_per_event_placed": round(1e6 * median(one["placed"]["keying"] for one in runs) / args.events, 2),
        "keying_us_per_event_misplaced": round(
            1e6 * median(one["misplaced"]["keying"] for one in runs) / args.events, 2
        ),
        "misplaced": last["misplaced"]["counters"]["misplaced"],
        "users_equal": last["placed"]["counters"]["users"] == last["misplaced"]["counters"]["users"],
        "events_equal": last["placed"]["counters"]["events"] == last["misplaced"]["counters"]["events"],
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
