"""What the state costs: a step's reads, appends and writes, a cut, a restart; with few users and with many.

    python benchmarks/user_state.py --users 1000000 --small-users 10000

The users' histories have a geometric length (mean 9, at most 50). A step is `--step-events` events of `--step-users`
distinct users drawn at random, the worst case for every cache. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from state import CutStore, UserStore, append

MAX_LEN, LIST_LEN, MEAN_LEN, ITEMS = 50, 20, 9, 100_000
START_TS = 1_700_000_000_000


@dataclass
class Shop:
    """A store with `users` users, and steps of random events on it."""

    store: UserStore
    users: int
    rng: np.random.Generator
    now: int = START_TS
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"read": [], "append": [], "write": [], "step": []})

    def fill(self) -> None:
        pool = self._records(min(self.users, 20_000))
        order = self.rng.permutation(self.users)
        for first in range(0, self.users, 2000):
            ids = order[first : first + 2000]
            for partition, users, _ in self._by_partition(ids):
                self.store.write(partition, users, pool[self.rng.integers(0, len(pool), len(users))])

    def step(self, events: int, distinct: int) -> None:
        chosen = self.rng.choice(self.users, distinct, replace=False)
        rows = np.concatenate([np.arange(distinct), self.rng.integers(0, distinct, events - distinct)])
        items = self.rng.integers(1, ITEMS, events)
        parts = self._by_partition(chosen)
        times = dict.fromkeys(("read", "append", "write"), 0.0)
        begin = time.perf_counter()
        for partition, users, places in parts:
            index = np.full(distinct, -1)
            index[places] = np.arange(len(places))
            mine = np.flatnonzero(index[rows] >= 0)
            t0 = time.perf_counter()
            records = self.store.read(partition, users)
            t1 = time.perf_counter()
            done = append(
                records, index[rows[mine]], items[mine], self.now + np.arange(len(mine)), np.zeros(len(mine), np.uint8)
            )
            t2 = time.perf_counter()
            self.store.write(partition, users, done.records)
            t3 = time.perf_counter()
            for name, spent in (("read", t1 - t0), ("append", t2 - t1), ("write", t3 - t2)):
                times[name] += spent
        self.now += events
        self.seconds["step"].append(time.perf_counter() - begin)
        for name, spent in times.items():
            self.seconds[name].append(spent)

    def _by_partition(self, ids: NDArray[np.int64]) -> list[tuple[int, list[bytes], NDArray[np.int64]]]:
        partitions = ids % self.store.partitions
        return [
            (partition, [b"user-%d" % user for user in ids[places].tolist()], places)
            for partition in range(self.store.partitions)
            if len(places := np.flatnonzero(partitions == partition))
        ]

    def _records(self, count: int) -> NDArray[np.void]:
        records = self.store.blank(count)
        length = np.minimum(self.rng.geometric(1 / MEAN_LEN, count), MAX_LEN)
        filled = np.arange(MAX_LEN) >= MAX_LEN - length[:, None]
        records["length"] = records["events"] = length
        records["items"] = self.rng.integers(1, ITEMS, filled.shape) * filled
        ages = np.sort(self.rng.integers(0, 30 * 86_400_000, filled.shape), axis=1)[:, ::-1]
        records["ts"] = (START_TS - ages) * filled
        records["last_ts"] = records["ts"][:, -1]
        records["list"] = self.rng.integers(1, ITEMS, (count, LIST_LEN))
        records["list_step"], records["list_ts"] = 1, records["last_ts"]
        return records


def percentiles(seconds: list[float]) -> dict[str, float]:
    p50, p99 = np.quantile(np.array(seconds) * 1e3, [0.5, 0.99])
    return {"p50": round(float(p50), 2), "p99": round(float(p99), 2), "max": round(max(seconds) * 1e3, 2)}


def measure(folder: Path, users: int, args: argparse.Namespace) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "partitions": args.partitions,
        "max_len": MAX_LEN,
        "list_len": LIST_LEN,
        "history_ttl_ms": 0,
        "cache_bytes": args.cache_mb << 20,
        "write_buffer_bytes": args.write_buffer_mb << 20,
    }
    store = UserStore(folder / "live", **shape)
    shop = Shop(store, users, np.random.default_rng(args.seed))
    begin = time.perf_counter()
    shop.fill()
    result: dict[str, Any] = {"users": users, "fill_seconds": round(time.perf_counter() - begin, 1)}
    print(f"{users} users written in {result['fill_seconds']} s", flush=True)

    for _ in range(args.steps):
        shop.step(args.step_events, args.step_users)
    for times in shop.seconds.values():
        del times[: len(times) // 4]  # caches fill
    result |= {f"{name}_ms": percentiles(times) for name, times in shop.seconds.items()}
    print(f"a step: {result['step_ms']} ms", flush=True)

    cuts = CutStore(folder / "cuts")
    holds, finishes, during = [], [], []
    for number in range(1, args.cuts + 1):
        for _ in range(args.steps // 4):
            shop.step(args.step_events, args.step_users)
        begin = time.perf_counter()
        pending = cuts.begin(number, {}, lambda path: store.begin_checkpoint(path / "users"))
        holds.append(time.perf_counter() - begin)
        thread = threading.Thread(target=pending.finish)
        begin = time.perf_counter()
        thread.start()
        first = len(shop.seconds["step"])
        while thread.is_alive():
            shop.step(args.step_events, args.step_users)
        thread.join()
        finishes.append(time.perf_counter() - begin)
        during += shop.seconds["step"][first:]
    result["cut_begin_ms"] = percentiles(holds)
    result["step_during_cut_ms"] = percentiles(during)
    result["cut_held_up_ms"] = round(max(holds) * 1e3 + max(max(during) * 1e3 - result["step_ms"]["p50"], 0.0), 1)
    result["cut_finish_seconds"] = round(max(finishes), 2)
    store.close()

    begin = time.perf_counter()
    cut = CutStore(folder / "cuts").latest()
    assert cut is not None
    UserStore.restore(cut.path / "users", folder / "live")
    with UserStore(folder / "live", **shape) as store:
        Shop(store, users, np.random.default_rng(args.seed)).step(args.step_events, args.step_users)
    result["restore_seconds"] = round(time.perf_counter() - begin, 2)
    stored = sum(path.stat().st_size for path in (cut.path / "users").rglob("*.sst"))
    result["bytes_per_user"] = round(stored / users, 1)
    print(f"cut held up {result['cut_held_up_ms']} ms, restored in {result['restore_seconds']} s", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--small-users", type=int, default=10_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--step-events", type=int, default=2000)
    parser.add_argument("--step-users", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--cuts", type=int, default=5)
    parser.add_argument("--cache-mb", type=int, default=64)
    parser.add_argument("--write-buffer-mb", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None, help="where to write; a temporary folder by default")
    args = parser.parse_args()
    report: dict[str, Any] = {}
    for name, users in (("small", args.small_users), ("large", args.users)):
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            report[name] = measure(Path(folder), users, args)
    report["step_cost_ratio"] = round(report["large"]["step_ms"]["p50"] / report["small"]["step_ms"]["p50"], 2)
    report["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(report))


if __name__ == "__main__":
    main()
