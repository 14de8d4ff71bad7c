"""How fast the loop turns, from the embedded log: ingest alone, and everything with learning and publishing.

    python -m benchmarks.loop EVENTS.csv.gz [--limit 200000] [--step-records 256]

Ingest is poll, decode, validate, histories, commit with exactly-once positions, no model. The whole loop is the worker
itself: it makes one learning step of at least 256 examples for every 256 events and publishes every list. Where the
time goes is sampled: a thread looks a thousand times a second at which file the worker is in. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import numpy as np

from intentstream.config import Config
from learner.online.vocabulary import Vocabulary
from learner.runtime import set_threads
from state.histories import append
from state.store import UserStore
from stream.log import open_log
from stream.log.base import EventLog, Message, TopicPartition
from stream.schema import topics
from stream.schema.decoder import Decoder
from stream.sources.files.event_file import EventFile
from stream.worker.worker import Worker

# the file that the worker is in says what it is doing; the first that fits, from the innermost frame outwards
PARTS = (
    ("torch", ("/torch/", "learner/online/network", "learner/model/")),
    ("counts", ("learner/",)),
    ("rocksdb", ("/rocksdict/", "state/", "stream/log/")),
    ("json", ("stream/schema/", "stream/engine/message_builders", "stream/worker/journal", "/msgspec/")),
    ("rest", ("stream/", "benchmarks/")),
)


class Ingest:
    """The loop without a model: poll, decode, histories, commit. Nobody learns, so nobody is given the contexts.

    Parameters
    ----------
    log
        Claimed by this worker; both Kafka and the embedded one will do.
    output
        Publish one message per user of a step, as a stand-in for a list.
    """

    def __init__(self, config: Config, log: EventLog, folder: Path, *, output: bool = False) -> None:
        self._log = log
        self._output = output
        self._decoder = Decoder(config.actions)
        self._vocabulary = Vocabulary(config.learner.capacity)
        self._store = UserStore(
            folder,
            partitions=config.log.partitions,
            max_len=config.learner.max_len,
            list_len=1,
            history_ttl_ms=0,
            cache_bytes=config.state.cache_bytes,
            write_buffer_bytes=config.state.write_buffer_bytes,
        )
        self.positions = {TopicPartition(topics.EVENTS, p): 0 for p in range(config.log.partitions)}
        self.events = 0

    def turn(self, max_events: int) -> int:
        """One step; returns the records taken."""
        batches = self._log.poll(self.positions, max_events, 50)
        self.positions |= {TopicPartition(batch.topic, batch.partition): batch.next_offset for batch in batches}
        taken = sum(map(len, batches))
        if taken:
            lists = [TopicPartition(topics.RECOMMENDATIONS, batch.partition) for batch in batches if self._output]
            self._log.prepare(self.positions, [*lists, TopicPartition(topics.JOURNAL, 0)])
        messages: list[Message] = []
        for batch in batches:
            decoded = self._decoder.decode(batch.values, batch.keys)
            if not len(decoded.events):
                continue
            rows = {user: row for row, user in enumerate(dict.fromkeys(decoded.events.users))}
            users = list(rows)
            index = np.array([rows[user] for user in decoded.events.users], dtype=np.int64)
            numbers = np.arange(self.events, self.events + len(index))
            items = self._vocabulary.admit(decoded.events.items, numbers).handles
            records = self._store.read(batch.partition, users)
            done = append(records, index, items, decoded.events.ts, decoded.events.actions, want_contexts=False)
            self._store.write(batch.partition, users, done.records)
            self.events += len(index)
            if self._output:
                newest = done.records["items"][:, -1].tolist()
                messages += [
                    Message(topics.RECOMMENDATIONS, user, b'{"user":"%b","newest":%d}' % (user, item), 0)
                    for user, item in zip(users, newest, strict=True)
                ]
        if taken:
            messages.append(Message(topics.JOURNAL, b"bench", b"{}", 0))
            self._log.commit(messages, self.positions)
        return taken

    def close(self) -> None:
        self._store.close()


def fill(log: EventLog, config: Config, file: EventFile) -> int:
    """Append the file's records; returns how many."""
    log.create_topics(topics.topic_specs(config.log.partitions))
    count = 0
    for chunk in file:
        log.append([Message(topics.EVENTS, key, value, 0) for key, value in zip(chunk.keys, chunk.values, strict=True)])
        count += len(chunk.values)
    return count


def ingest(config: Config, folder: Path, file: EventFile, steps: int) -> dict[str, Any]:
    with open_log(config.log.url, config=config.log) as log:
        events = fill(log, config, file)
        log.claim("bench")
        loop = Ingest(config, log, folder / "users")
        began = time.perf_counter()
        while loop.turn(steps):
            pass
        seconds = time.perf_counter() - began
        loop.close()
    return {"ingest_events": events, "ingest_per_second": round(events / seconds)}


class Sampler(threading.Thread):
    """Looks at what the main thread is doing."""

    def __init__(self) -> None:
        super().__init__(name="sampler", daemon=True)
        self.found: Counter[str] = Counter()
        self._main = threading.main_thread().ident
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.01):
            frame = sys._current_frames().get(self._main or 0)  # noqa: SLF001  # CPython has no public one
            self.found[part_of(frame)] += 1

    def finish(self) -> dict[str, float]:
        self._done.set()
        self.join()
        whole = sum(self.found.values())
        return {name: round(self.found[name] / whole, 3) for name, _ in PARTS}


def part_of(frame: FrameType | None) -> str:
    """The part that the innermost known file belongs to."""
    while frame is not None:
        file = frame.f_code.co_filename
        for name, places in PARTS:
            if any(place in file for place in places):
                return name
        frame = frame.f_back
    return "rest"


def whole(config: Config, folder: Path, file: EventFile) -> dict[str, Any]:
    with open_log(config.log.url, config=config.log) as log:
        events = fill(log, config, file)
        worker = Worker(config, log, folder / "state")
        worker.recover()
        sampler = Sampler()
        sampler.start()
        began = time.perf_counter()
        while worker.turn():
            pass
        seconds = time.perf_counter() - began
        shares = sampler.finish()
        engine = worker.engine
        figures = {
            "loop_events": events,
            "loop_per_second": round(events / seconds),
            "examples_per_event": round(engine.counters["examples"] / max(events, 1), 2),
            "lists_per_event": round(engine.counters["recommendations"] / max(events, 1), 2),
            "prequential_ndcg@20": engine.accuracy.prequential.result()["ndcg@20"],
            "shares": shares,
        }
        worker.close()
    return figures


def settings(folder: Path, step_records: int) -> Config:
    config = Config()
    engine = msgspec.structs.replace(
        config.engine, max_step_records=step_records, step_records=step_records, backlog_records=10**9
    )
    return msgspec.structs.replace(
        config, engine=engine, log=msgspec.structs.replace(config.log, url=f"file://{folder.resolve()}/log")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--limit", type=int, default=200_000)
    parser.add_argument("--step-records", type=int, default=256)
    parser.add_argument("--threads", type=int, default=Config().learner.threads, help="torch threads; 0 one per core")
    args = parser.parse_args()
    set_threads(args.threads)
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        report |= ingest(settings(folder, 2000), folder, EventFile(args.file, args.limit), 2000)
        print(f"ingest alone: {report['ingest_per_second']:,} events/s", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        report |= whole(settings(folder, args.step_records), folder, EventFile(args.file, args.limit))
        shares = ", ".join(f"{name} {share:.0%}" for name, share in report["shares"].items())
        print(f"the whole loop: {report['loop_per_second']:,} events/s; {shares}", flush=True)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
