"""What growth costs: a learning step beside the size of the catalogue.

    python benchmarks/growth.py

A learner is filled with N items, then the same mini-batches are learned at every size; the median time of a learning
step is reported. The last line is JSON: one row per size, and the ratio of the largest to the smallest.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from typing import Any

import numpy as np

from learner import Learner, LearnerConfig, StepBatch

STEP = 256


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
        blank, weights = np.zeros(contexts.shape, dtype=np.uint8), np.ones(STEP, dtype=np.float32)
        learner.take(StepBatch(users, contexts, blank, contexts * 0, handles[:, 9], weights, ts), evaluate=False)
        start_s = time.perf_counter()
        learner.learn(1)
        times.append(time.perf_counter() - start_s)
    return {"items": items, "learning_step_ms": round(1000 * statistics.median(times[steps // 4 :]), 2)}


def main() -> None:
    """Measure every size, smallest first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", default="10000,100000,1000000", help="sizes of the catalogue, rising")
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    rows = []
    for items in map(int, arguments.items.split(",")):
        rows.append(learning_step(items, arguments.steps))
        print(json.dumps(rows[-1]), flush=True)
    ratio = rows[-1]["learning_step_ms"] / rows[0]["learning_step_ms"]
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"learning_step": rows, "ratio": round(ratio, 3), "peak_rss_mb": peak_mb}))


if __name__ == "__main__":
    main()
