"""Kill -9, again and again: is anything lost, is anything there twice, is the state the same to the bit?

A child process runs the worker on a log that already holds the events; the parent kills it at random moments and
starts it again until everything is read. Then `stream.verify` rebuilds the state from the journal in one
uninterrupted run and
compares digests and every published message. Some kills are aimed: inside `checkpoint`, between commit and learn,
inside `learn`.

    python -m benchmarks.crash --log embedded --kills 100 --events 200000 --seed 1 [--folder DIR]
    KAFKA_HOME=DIR python -m benchmarks.crash --log kafka --kills 100 --events 200000 --seed 1 [--folder DIR]

The last line is JSON. With --folder the run goes on where it was stopped, with a Kafka of its own also the broker.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

import state.files
from intentstream.config import Config, load_config
from learner.online.learner import Learner
from learner.runtime import set_threads
from state.checkpoints import PendingCheckpoint
from stream.log import open_log
from stream.log.base import EventLog, Message
from stream.schema import topics
from stream.sources.simulator.config import SimulatorConfig
from stream.sources.simulator.simulator import Simulator
from stream.worker.verify import verify
from stream.worker.worker import Worker
from tests.integration.conftest import Broker

AIMED = (
    "before-commit",
    "after-commit",
    "in-learn",
    "after-learn",
    "in-checkpoint",
    "beside-checkpoint",
    "checkpoint-unpublished",
    "after-checkpoint",
)
CONFIG = """
[log]
partitions = 2
[engine]
max_step_records = 200
checkpoint_every_steps = 7
metrics_every_s = 0.2
"""

DEFAULT_SHOP = SimulatorConfig()


def settings(folder: Path, log_url: str, text: str = CONFIG) -> Config:
    path = folder / "config.toml"
    if not path.exists():
        path.write_text(text)
    return load_config(path, log_url=log_url)


def fill(config: Config, shop: SimulatorConfig, log: EventLog, events: int, seed: int) -> None:
    """Append the simulated events, bad and duplicate ones included, unless they are there already."""
    log.create_topics(topics.topic_specs(config.log.partitions))
    there = sum(log.end_offsets(topics.EVENTS))
    simulator = Simulator(shop, seed=seed)
    made = 0
    while made < events:
        chunk = simulator.next_chunk(min(2_000, events - made))
        if made >= there:
            log.append(
                [
                    Message(topics.EVENTS, key, value, ts)
                    for key, value, ts in zip(chunk.keys, chunk.values, chunk.ts.tolist(), strict=True)
                ]
            )
        made += len(chunk.values)


def child(folder: Path, log_url: str, aim: str, count: int) -> None:
    """Run the worker until all input is read; with an aim, die of SIGKILL at the `count`-th such moment."""
    set_threads(1)
    config = settings(folder, log_url)
    left = count

    def deadly(call: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0 and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*args, **kwargs)
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    with open_log(log_url) as log:
        worker = Worker(config, log, folder / "state")
        worker.recover()
        engine = worker.engine
        if aim in ("before-commit", "after-commit"):
            log.commit = deadly(log.commit, after=aim == "after-commit")  # type: ignore[method-assign]
        elif aim in ("in-learn", "after-learn"):
            engine.learn = deadly(engine.learn, after=aim == "after-learn")  # type: ignore[method-assign]
        elif aim == "in-checkpoint":
            Learner.begin_save = deadly(Learner.begin_save, after=False)  # type: ignore[method-assign]
        elif aim == "beside-checkpoint":
            begin = Learner.begin_save
            Learner.begin_save = lambda self: deadly(begin(self), after=True)  # type: ignore[method-assign]
        elif aim == "checkpoint-unpublished":
            state.files.os.rename = deadly(os.rename, after=False)  # type: ignore[attr-defined]
        elif aim == "after-checkpoint":
            PendingCheckpoint.finish = deadly(PendingCheckpoint.finish, after=True)  # type: ignore[method-assign]
        sys.stdout.write("recovered\n")
        sys.stdout.flush()
        ends = log.end_offsets(config.events.topic)
        first = True
        while any(engine.positions.get(p, 0) < end for p, end in enumerate(ends)):
            if worker.turn() and first:
                first = False
                sys.stdout.write("first\n")
                sys.stdout.flush()
        worker.checkpoint()
        worker.close()


def spawn(folder: Path, log_url: str, aim: str = "", count: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.crash", "--child", str(folder), log_url, aim, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def torture(
    folder: Path,
    log_url: str,
    *,
    kills: int,
    events: int,
    seed: int,
    aimed_share: float = 0.5,
    config_text: str = CONFIG,
    shop: SimulatorConfig = DEFAULT_SHOP,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Kill the worker `kills` times while it reads `events` events; returns the figures."""
    set_threads(1)  # as the child does: the same bits need the same number of threads
    folder.mkdir(parents=True, exist_ok=True)
    config = settings(folder, log_url, config_text)
    with open_log(log_url) as log:
        fill(config, shop, log, events, seed)
    progress = folder / "kills.json"
    done: dict[str, Any] = (
        json.loads(progress.read_text()) if progress.exists() else {"kills": 0, "aimed": 0, "recoveries": []}
    )
    rng = random.Random(seed * 1_000_003 + done["kills"])
    while True:
        more = done["kills"] < kills
        aim = AIMED[done["aimed"] % len(AIMED)] if more and rng.random() < aimed_share else ""
        started = time.monotonic()
        with spawn(folder, log_url, aim, 1 if "checkpoint" in aim else rng.randint(1, 6)) as process:
            assert process.stdout is not None
            for line in process.stdout:
                said = line.strip()
                if said == "first":
                    done["recoveries"].append(time.monotonic() - started)
                if more and not aim and said == "recovered":
                    time.sleep(rng.uniform(0.0, 1.0))
                    process.kill()
            code = process.wait()
        if code == 0:
            break
        if code != -signal.SIGKILL:
            raise SystemExit(f"the worker ended with status {code} (aim {aim!r})")
        done["kills"] += 1
        done["aimed"] += bool(aim)
        progress.write_text(json.dumps(done))
        say(f"kill {done['kills']} {aim or 'random'}")
    with open_log(log_url) as log, tempfile.TemporaryDirectory(dir=folder) as scratch:
        found = verify(config, log, folder / "state", Path(scratch))
        read = sum(log.committed(config.engine.worker).values())
        begins = sum(log.begin_offsets(topics.EVENTS))
        total = sum(log.end_offsets(topics.EVENTS)) - begins
    recoveries = np.array(done["recoveries"] or [float("nan")])
    return {
        "kills": done["kills"],
        "events": total,
        "lost": total - (read - begins),
        "duplicated": int("twice" in found.difference),
        "digest_equal": not found.difference,
        "difference": found.difference,
        "steps": found.steps,
        "messages": found.messages,
        "recovery_seconds_p50": round(float(np.percentile(recoveries, 50)), 3),
        "recovery_seconds_max": round(float(recoveries.max()), 3),
    }


@contextmanager
def broker_url(bootstrap: str | None, folder: Path) -> Iterator[str]:
    """A broker that runs, or one of our own in `folder`, with the data of the run that was stopped."""
    if bootstrap:
        yield f"kafka://{bootstrap}"
        return
    home = os.environ.get("KAFKA_HOME")
    if not home:
        raise SystemExit("give --bootstrap host:port, or set KAFKA_HOME to an unpacked Apache Kafka release")
    broker = Broker(Path(home), folder / "kafka")
    broker.start()
    try:
        yield broker.url
    finally:
        broker.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", choices=["embedded", "kafka"], default="embedded")
    parser.add_argument("--bootstrap", help="host:port of a running Kafka; else one is started from KAFKA_HOME")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--child", nargs=4, metavar=("FOLDER", "LOG", "AIM", "COUNT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(Path(args.child[0]), args.child[1], args.child[2], int(args.child[3]))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        with broker_url(args.bootstrap, folder) if args.log == "kafka" else nullcontext() as kafka:
            url = kafka or f"file://{(folder / 'log').resolve()}"
            figures = torture(folder, url, kills=args.kills, events=args.events, seed=args.seed, say=print)
    print(json.dumps({"log": args.log, **figures}))


if __name__ == "__main__":
    main()
