"""Against one real broker: bare kafka-python, our exactly-once ingest, Quix Streams; then latency with learning on.

    KAFKA_HOME=DIR python -m benchmarks.kafka [--events 300000] [--seconds 60] [--quix-folder DIR]

Ours is poll, decode, validate, histories of the last 50 items, one output per user and step, all in one transaction.
Quix Streams 3.28.1 keeps the last 50 events of a user in a list in its state, exactly-once, committing every 10,000
messages; it has no output per user and commit interval, so `quix_per_second` is with no output at all, which can only
be faster, and `quix_per_event_output_per_second` with one per event. It is installed into a folder of its own.
All of them are measured after the first tenth of the events, when connections, coordinators and caches are there.

Latency is event made -> recommendation seen by a read_committed reader, over a whole worker that learns; events come
when the worker says that it is running, and those of the first seconds are left out. Its parts: `engine_ms`,
`commit_ms`, and `waiting_ms`, the rest: for the step before and its learning, for the poll, for the reader. `learn_ms`
comes after the answer. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import kafka
import msgspec
import numpy as np

from benchmarks.loop import Ingest
from intentstream.config import Config, load_config
from stream.log import open_log
from stream.log.base import EventLog, Message, OffsetRange, RecordBatch, TopicPartition
from stream.schema import topics
from stream.schema.messages import Recommendations, StreamMetrics
from stream.sources.simulator.config import SimulatorConfig
from stream.sources.simulator.simulator import Simulator
from tests.integration.conftest import Broker

QUIX = "3.28.1"
INTERVAL = 10_000  # events from one commit to the next, on both sides
QUIX_SCRIPT = """
import sys, time
from quixstreams import Application
broker, events, state, output = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4] == "output"
app = Application(broker, consumer_group="quix-" + sys.argv[5], auto_offset_reset="earliest", state_dir=state,
                  processing_guarantee="exactly-once", commit_every=int(sys.argv[6]), commit_interval=5.0,
                  loglevel="WARNING")
source = app.topic("behavior-events", value_deserializer="bytes", key_deserializer="bytes")
target = app.topic("quix-" + sys.argv[5], value_serializer="json", key_serializer="bytes")
import json
seen, began, ended = 0, 0.0, 0.0
def newest(value, state):
    global seen, began, ended
    seen, ended = seen + 1, time.perf_counter()
    if seen == events // 10:
        began = ended
    kept = state.get("newest", [])
    try:
        kept.append(json.loads(value)["item"])
    except (ValueError, KeyError, TypeError):
        return kept
    kept = kept[-50:]
    state.set("newest", kept)
    return kept
frame = app.dataframe(source).apply(newest, stateful=True)
if output:
    frame = frame.apply(lambda kept: {"newest": kept[-1] if kept else None}).to_topic(target)
app.run(count=events, timeout=120)
print((seen - events // 10) / (ended - began))
"""


def fill(log: EventLog, config: Config, events: int) -> None:
    log.create_topics(topics.topic_specs(config.log.partitions))
    simulator = Simulator(SimulatorConfig(), seed=1)
    made = 0
    while made < events:
        chunk = simulator.next_chunk(min(10_000, events - made))
        log.append([Message(topics.EVENTS, k, v, 0) for k, v in zip(chunk.keys, chunk.values, strict=True)])
        made += len(chunk.values)


def bare(broker: Broker, config: Config, events: int) -> float:
    consumer = kafka.KafkaConsumer(
        bootstrap_servers=broker.bootstrap, enable_auto_commit=False, isolation_level="read_committed"
    )
    parts = [kafka.TopicPartition(topics.EVENTS, p) for p in range(config.log.partitions)]
    consumer.assign(parts)
    consumer.seek_to_beginning()
    seen = 0
    while seen < events // 10:
        seen += sum(map(len, consumer.poll(timeout_ms=1_000, max_records=10_000).values()))
    before, began = seen, time.perf_counter()
    while seen < events:
        seen += sum(map(len, consumer.poll(timeout_ms=1_000, max_records=10_000).values()))
    rate = (seen - before) / (time.perf_counter() - began)
    consumer.close()
    return rate


class PerEvent:
    """The log with one output per record of the step instead of one per user."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._batches: list[RecordBatch] = []

    def poll(self, positions: Mapping[TopicPartition, int], most: int, wait_ms: int) -> list[RecordBatch]:
        self._batches = self._log.poll(positions, most, wait_ms)
        return self._batches

    def prepare(self, positions: Mapping[TopicPartition, int], partitions: Sequence[TopicPartition]) -> None:
        lists = [TopicPartition(topics.RECOMMENDATIONS, batch.partition) for batch in self._batches]
        self._log.prepare(positions, [*lists, *partitions])

    def commit(self, messages: Sequence[Message], positions: Mapping[TopicPartition, int]) -> None:
        outputs = [
            Message(topics.RECOMMENDATIONS, key, b'{"user":"%b"}' % (key or b""), 0)
            for batch in self._batches
            for key in batch.keys
            if key is not None
        ]
        self._log.commit([*outputs, *messages], positions)


def ours(config: Config, folder: Path, events: int, *, per_event: bool) -> float:
    with open_log(config.log.url) as log:
        log.claim(f"bench-{per_event}")
        proxy: Any = PerEvent(log) if per_event else log
        loop = Ingest(config, proxy, folder / f"users-{per_event}", output=not per_event)
        taken = 0
        while taken < events // 10:
            taken += loop.turn(INTERVAL)
        before, began = taken, time.perf_counter()
        while taken < events:
            taken += loop.turn(INTERVAL)
        seconds = time.perf_counter() - began
        loop.close()
    return (taken - before) / seconds


def quix(broker: Broker, folder: Path, home: Path, events: int, output: str) -> float:
    python = home / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", f"quixstreams=={QUIX}"], check=True)
    run = uuid.uuid4().hex[:8]
    words = [broker.bootstrap, str(events), str(folder / f"quix-{run}"), output, run, str(INTERVAL)]
    done = subprocess.run([str(python), "-c", QUIX_SCRIPT, *words], check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.split()[-1])


def latency(config: Config, folder: Path, rate: float, seconds: float) -> dict[str, float]:
    """A worker in its own process, a producer in a thread, a reader here."""
    words = ["worker", "--log", config.log.url, "--state", str(folder / f"state-{rate:g}")]
    command = [sys.executable, "-c", "from intentstream.cli.app import main; main()", *words]
    stop = threading.Event()
    found: list[float] = []

    def produce() -> None:
        rng, owed, last = np.random.default_rng(3), 0.0, time.monotonic()
        with open_log(config.log.url, mode="producer") as log:
            while not stop.wait(0.01):
                now = time.monotonic()
                owed, last = owed + (now - last) * rate, now
                at = time.time_ns() // 1_000_000
                users, items = rng.integers(5_000, size=int(owed)), rng.zipf(1.3, int(owed)) % 2_000
                owed -= int(owed)
                pairs = zip(users.tolist(), items.tolist(), strict=True)
                body = [(b"u%d" % u, b'{"user":"u%d","item":"i%d","ts":%d}' % (u, i, at)) for u, i in pairs]
                log.append([Message(topics.EVENTS, key, value, at) for key, value in body])

    decode = msgspec.json.Decoder(Recommendations).decode
    with open_log(config.log.url, mode="reader") as reader, subprocess.Popen(command) as worker:
        while not any(report.state == "running" for report in reports(reader)):
            if worker.poll() is not None:
                raise SystemExit("the worker ended")
            time.sleep(0.2)
        positions = {
            TopicPartition(topics.RECOMMENDATIONS, p): end
            for p, end in enumerate(reader.end_offsets(topics.RECOMMENDATIONS))
        }
        producer = threading.Thread(target=produce)
        producer.start()
        warm = time.monotonic() + min(10.0, seconds / 3)
        until = warm + seconds
        while (now := time.monotonic()) < until:
            for batch in reader.poll(positions, 5_000, 200):
                seen = time.time_ns() / 1e6
                positions[TopicPartition(batch.topic, batch.partition)] = batch.next_offset
                fresh = [seen - decode(value).as_of.ts for value in batch.values if value]
                found += fresh if now > warm else []
            if worker.poll() is not None:
                raise SystemExit("the worker ended")
        stop.set()
        producer.join()
        worker.terminate()
        worker.wait()
        gauges = [report for report in reports(reader) if report.state == "running"][-1].gauges
    if not found:
        raise SystemExit("no answer came")
    p50, p99 = np.percentile(found, [50, 99])
    parts = {
        **{name: gauges[name] for name in ("engine_ms", "commit_ms", "learn_ms")},
        "waiting_ms": p50 - gauges["engine_ms"] - gauges["commit_ms"],
    }
    rounded = {name: round(float(value), 1) for name, value in parts.items()}
    return {"p50": round(float(p50), 1), "p99": round(float(p99), 1), "answers": len(found), **rounded}


def reports(reader: EventLog) -> list[StreamMetrics]:
    """The worker's newest reports, oldest first."""
    end = reader.end_offsets(topics.METRICS)[0]
    values = reader.read(OffsetRange(topics.METRICS, 0, max(0, end - 50), end)).values
    return [msgspec.json.decode(value, type=StreamMetrics) for value in values if value]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--quix-folder", type=Path, help="where Quix Streams is installed, kept for the next run")
    args = parser.parse_args()
    home = os.environ.get("KAFKA_HOME")
    if not home:
        raise SystemExit("set KAFKA_HOME to an unpacked Apache Kafka release")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        broker = Broker(Path(home), folder / "kafka")
        broker.start()
        try:
            config = load_config(None, log_url=broker.url)
            with open_log(config.log.url) as log:
                fill(log, config, args.events)
            quix_home = args.quix_folder or folder / "quix"
            figures: dict[str, Any] = {
                "bare_per_second": round(bare(broker, config, args.events)),
                "ours_per_second": round(ours(config, folder, args.events, per_event=False)),
                "ours_per_event_output_per_second": round(ours(config, folder, args.events, per_event=True)),
                "quix_per_second": round(quix(broker, folder, quix_home, args.events, "none")),
                "quix_per_event_output_per_second": round(quix(broker, folder, quix_home, args.events, "output")),
            }
            print(figures, flush=True)
        finally:
            broker.kill()
        for rate in (300.0, 1.0):
            # A broker of its own each time: the worker would first have to read what the others left.
            broker = Broker(Path(home), folder / f"kafka-{rate:g}")
            broker.start()
            try:
                config = load_config(None, log_url=broker.url)
                with open_log(config.log.url) as log:
                    log.create_topics(topics.topic_specs(config.log.partitions))
                found = latency(config, folder, rate, args.seconds)
            finally:
                broker.kill()
            prefix = "" if rate > 1 else "one_per_second_"
            figures |= {
                f"{prefix}latency_{name}" + ("_ms" if name in ("p50", "p99") else ""): v for name, v in found.items()
            }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
