"""What the state costs: a step's reads, appends and writes, a checkpoint, a restart; with few users and with many.

    python -m benchmarks.user_state --users 1000000 --items 100000 --small-users 10000

The users' histories have a geometric length (mean 9, at most 50). A step is `--step-events` events of `--step-users`
distinct users drawn at random, the worst case for every cache.

Then a whole worker, default configuration, one thread, on a log of its own: `checkpoint_hold_ms` is how long the loop
stood for a checkpoint, `worker_step_ms` its steps with and without a checkpoint being written beside them. It dies of
kill -9 half way between two checkpoints; `first_recommendation_seconds` is from the start of the next process, imports
included, to its first new recommendation, with its parts. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intentstream.config import Config, load_config
from learner.online.histories import Histories
from learner.online.learner import Learner
from learner.online.step import StepBatch
from learner.runtime import set_threads
from state.checkpoints import CheckpointStore
from state.histories import append
from state.store import UserStore
from stream.engine.engine import Engine
from stream.log import open_log
from stream.log.base import EventLog, Message
from stream.log.partitioner import partitions_of
from stream.schema import topics
from stream.worker.worker import Worker

MAX_LEN, LIST_LEN, MEAN_LEN = 50, 20, 9
START_TS = 1_700_000_000_000


@dataclass
class Shop:
    """A store with `users` users, and steps of random events on it."""

    store: UserStore
    users: int
    items: int
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
        items = self.rng.integers(1, self.items + 1, events)
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
        users = [b"user-%d" % user for user in ids.tolist()]
        partitions = partitions_of(users, self.store.partitions)
        return [
            (partition, [users[place] for place in places.tolist()], places)
            for partition in range(self.store.partitions)
            if len(places := np.flatnonzero(partitions == partition))
        ]

    def _records(self, count: int) -> NDArray[np.void]:
        records = self.store.blank(count)
        length = np.minimum(self.rng.geometric(1 / MEAN_LEN, count), MAX_LEN)
        filled = np.arange(MAX_LEN) >= MAX_LEN - length[:, None]
        records["length"] = records["events"] = length
        records["items"] = self.rng.integers(1, self.items + 1, filled.shape) * filled
        ages = np.sort(self.rng.integers(0, 30 * 86_400_000, filled.shape), axis=1)[:, ::-1]
        records["ts"] = (START_TS - ages) * filled
        records["seen_ts"] = records["ts"][:, -1]
        records["list"] = self.rng.integers(1, self.items + 1, (count, LIST_LEN))
        records["list_step"], records["list_ts"] = 1, records["seen_ts"]
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
    shop = Shop(store, users, args.items, np.random.default_rng(args.seed))
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

    checkpoints = CheckpointStore(folder / "checkpoints")
    holds, finishes, during = [], [], []
    for number in range(1, args.checkpoints + 1):
        for _ in range(args.steps // 4):
            shop.step(args.step_events, args.step_users)
        begin = time.perf_counter()
        pending = checkpoints.begin(number, {}, lambda path: store.begin_checkpoint(path / "users"))
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
    result["checkpoint_begin_ms"] = percentiles(holds)
    result["step_during_checkpoint_ms"] = percentiles(during)
    result["checkpoint_held_up_ms"] = round(
        max(holds) * 1e3 + max(max(during) * 1e3 - result["step_ms"]["p50"], 0.0), 1
    )
    result["checkpoint_finish_seconds"] = round(max(finishes), 2)
    store.close()

    begin = time.perf_counter()
    checkpoint = CheckpointStore(folder / "checkpoints").latest()
    assert checkpoint is not None
    UserStore.restore(checkpoint.path / "users", folder / "live")
    with UserStore(folder / "live", **shape) as store:
        Shop(store, users, args.items, np.random.default_rng(args.seed)).step(args.step_events, args.step_users)
    result["restore_seconds"] = round(time.perf_counter() - begin, 2)
    stored = sum(path.stat().st_size for path in (checkpoint.path / "users").rglob("*.sst"))
    result["bytes_per_user"] = round(stored / users, 1)
    print(
        f"checkpoint held up {result['checkpoint_held_up_ms']} ms, restored in {result['restore_seconds']} s",
        flush=True,
    )
    return result


def settings(folder: Path) -> Config:
    return load_config(None, log_url=f"file://{(folder / 'log').resolve()}")


def build(folder: Path, users: int, args: argparse.Namespace) -> None:
    """A state folder with a checkpoint of so many users and items, and a log to go on with."""
    config = settings(folder)
    with open_log(config.log.url, config=config.log) as log:
        log.create_topics(topics.topic_specs(config.log.partitions))
    rng = np.random.default_rng(args.seed)
    engine = Engine.open(config, folder / "state")
    engine.checkpoint()
    engine.close()
    checkpoints = CheckpointStore(folder / "state" / "checkpoints")
    empty = checkpoints.latest()
    assert empty is not None
    learner = Learner(config.learner, config.actions.weights())
    learner.admit([f"i{item}" for item in range(1, args.items + 1)], np.arange(args.items))
    for first in range(0, args.learned_events, 1000):
        learner.observe(events_of(args.items, min(1000, args.learned_events - first), rng), evaluate=False)
    shape: dict[str, Any] = {
        "partitions": config.log.partitions,
        "max_len": config.learner.max_len,
        "list_len": config.engine.list_len,
        "history_ttl_ms": config.state.history_ttl_ms,
        "cache_bytes": config.state.cache_bytes,
        "write_buffer_bytes": config.state.write_buffer_bytes,
    }
    with UserStore(folder / "filled", **shape) as store:
        Shop(store, users, args.items, rng).fill()

        def save(path: Path) -> None:
            store.checkpoint(path / "histories")
            learner.save(path / "learner")

        checkpoints.write(0, empty.manifest, save)


def events_of(items: int, count: int, rng: np.random.Generator) -> StepBatch:
    """Events whose items, and those before them, are as popular as items are: by a power law."""
    contexts = np.zeros((count, MAX_LEN), dtype=np.int64)
    contexts[:, -MEAN_LEN:] = rng.zipf(1.2, (count, MEAN_LEN)) % items + 1
    return StepBatch(
        users=rng.integers(0, 1 << 62, count).astype(np.uint64),
        histories=Histories(contexts, np.zeros(contexts.shape, dtype=np.uint8), (contexts > 0) * START_TS),
        items=rng.zipf(1.2, count) % items + 1,
        weights=np.ones(count, dtype=np.float32),
        ts=np.full(count, START_TS),
    )


def traffic(log: EventLog, users: int, items: int, count: int, rng: np.random.Generator) -> None:
    pairs = zip(rng.integers(users, size=count).tolist(), (rng.zipf(1.2, count) % items + 1).tolist(), strict=True)
    body = [(b"user-%d" % u, b'{"user":"user-%d","item":"i%d","ts":%d}' % (u, i, START_TS)) for u, i in pairs]
    log.append([Message(topics.EVENTS, key, value, START_TS) for key, value in body])


def loop(folder: Path, users: int, args: argparse.Namespace) -> None:
    """Child process: work through some checkpoints, print the figures, die half way to the next one."""
    set_threads(1)
    config = settings(folder)
    every, rng = config.engine.checkpoint_every_steps, np.random.default_rng(args.seed + 1)
    with open_log(config.log.url, config=config.log) as log:
        worker = Worker(config, log, folder / "state")
        worker.recover()
        holds: list[float] = []
        steps: dict[bool, list[float]] = {True: [], False: []}
        since, worked = 0, 0.0  # steps and seconds since the last checkpoint
        beside = False
        while (
            beside
            or len(holds) < args.checkpoints
            or not (since >= every / 2 or worked >= config.engine.checkpoint_redo_s / 2)
        ):
            traffic(log, users, args.items, args.worker_step_events, rng)
            beside = any(thread.name == "checkpoint" for thread in threading.enumerate())
            held, began = worker.checkpoints.hold_ms, time.perf_counter()
            worker.turn()
            spent = time.perf_counter() - began
            since, worked = since + 1, worked + spent
            if worker.checkpoints.hold_ms != held:
                holds.append(worker.checkpoints.hold_ms)
                print(f"checkpoint {len(holds)} after {since} steps held up for {holds[-1]:.1f} ms", file=sys.stderr)
                since, worked = 0, 0.0
            else:
                steps[beside].append(spent)
        figures = {
            "checkpoint_hold_ms": round(max(holds), 1),
            "worker_step_ms": {"beside_a_checkpoint": percentiles(steps[True]), "else": percentiles(steps[False])},
        }
        print(json.dumps(figures), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


def restart(folder: Path, began: float) -> None:
    """Child process: recover and recommend; `began` is when it was started, in seconds since the epoch."""
    imported = time.time()
    set_threads(1)
    config = settings(folder)
    with open_log(config.log.url, config=config.log) as log:
        worker = Worker(config, log, folder / "state")
        opened = time.time()
        redone = worker.recover()
        recovered = time.time()
        before = worker.engine.counters["recommendations"]
        while worker.engine.counters["recommendations"] == before:
            worker.turn()
        first = time.time()
        worker.close()
    marks = {
        "start_and_imports": imported - began,
        "checkpoint_loaded": opened - imported,
        "redone": recovered - opened,
    }
    parts = {name: round(seconds, 2) for name, seconds in marks.items()}
    print(json.dumps({"first_recommendation_seconds": round(first - began, 2), "steps_redone": redone, **parts}))


def whole(folder: Path, users: int, args: argparse.Namespace) -> dict[str, Any]:
    build(folder, users, args)
    print(f"{users} users and {args.items} items in a checkpoint", flush=True)
    words = [sys.executable, "-m", "benchmarks.user_state", *sys.argv[1:], "--folder", str(folder), "--child"]
    done = subprocess.run([*words, "loop"], stdout=subprocess.PIPE, text=True)
    if done.returncode != -signal.SIGKILL:
        raise SystemExit(f"the worker ended with status {done.returncode}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    config = settings(folder)
    with open_log(config.log.url, mode="producer", config=config.log) as log:
        traffic(log, users, args.items, 100, np.random.default_rng(args.seed + 2))
    began = time.time()
    again = subprocess.run([*words, "restart", "--began", repr(began)], stdout=subprocess.PIPE, text=True, check=True)
    figures |= json.loads(again.stdout.splitlines()[-1])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--learned-events", type=int, default=50_000, help="taken by the learner before the worker")
    parser.add_argument("--worker-step-events", type=int, default=64)
    parser.add_argument("--small-users", type=int, default=10_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--step-events", type=int, default=2000)
    parser.add_argument("--step-users", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--checkpoints", type=int, default=5)
    parser.add_argument("--cache-mb", type=int, default=64)
    parser.add_argument("--write-buffer-mb", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None, help="where to write; a temporary folder by default")
    parser.add_argument("--child", choices=["loop", "restart"], help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child == "loop":
        loop(args.folder, args.users, args)
        return
    if args.child == "restart":
        restart(args.folder, args.began)
        return
    report: dict[str, Any] = {}
    for name, users in (("small", args.small_users), ("large", args.users)):
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            report[name] = measure(Path(folder), users, args)
    report["step_cost_ratio"] = round(report["large"]["step_ms"]["p50"] / report["small"]["step_ms"]["p50"], 2)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        report["worker"] = whole(Path(folder), args.users, args)
    report["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(report))


if __name__ == "__main__":
    main()
