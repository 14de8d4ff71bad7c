"""kill -9 of the embedded log's writer and of its producers: nothing lost or twice, positions as they should be."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from stream.log import Message, TopicPartition, TopicSpec
from stream.log.embedded.log import EmbeddedLog
from tests.contracts.log_checks import starts, take, values

pytestmark = pytest.mark.integration

SPAWN = multiprocessing.get_context("spawn")
IN, OUT = TopicSpec("in", 1), TopicSpec("out", 3)
TP = TopicPartition("in", 0)
KILLS = 12


def _worker(pipe: Connection, path: str) -> None:
    """Take the input one by one and answer each record with two messages, in one commit."""
    with EmbeddedLog(Path(path)) as log:
        log.create_topics([IN, OUT])
        log.claim("w")
        at = log.committed("w").get(TP, 0)
        while True:
            for batch in log.poll({TP: at}, 1, 50):
                answers = [Message("out", batch.values[0], b"%d" % i, 0) for i in (1, 2)]
                at = batch.next_offset
                log.commit(answers, {TP: at})
                pipe.send(at)


def _producer(pipe: Connection, path: str, first: int) -> None:
    log = EmbeddedLog(Path(path), "producer")
    n = first
    while True:
        log.append([Message("in", b"k", b"%d" % (n + i), 0) for i in range(3)])
        n += 3
        pipe.send(n)


def _until_killed(process: multiprocessing.process.BaseProcess, pipe: Connection, rng: random.Random) -> int:
    """Let it do a little, kill it at a random moment, return the last number that it reported."""
    last = -1
    for _ in range(rng.randint(1, 8)):
        assert pipe.poll(60), "the process does nothing"
        last = pipe.recv()
    timer = threading.Event()
    timer.wait(rng.random() * 0.004)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    try:
        while pipe.poll(0):
            last = pipe.recv()
    except EOFError:
        pass
    return last


@pytest.mark.timeout(240)
def test_a_killed_writer_and_killed_producers(tmp_path: Path) -> None:
    path = tmp_path / "log"
    rng = random.Random(5)
    with EmbeddedLog(path) as log:
        log.create_topics([IN, OUT])
    acknowledged = 0
    for _ in range(KILLS):
        # A producer that runs beside the worker; its numbers go on after the last one that it may have written.
        theirs, ours = SPAWN.Pipe()
        with EmbeddedLog(path) as log:
            log.drain()
            first = log.end_offsets("in")[0]
        worker_ours, worker_theirs = SPAWN.Pipe()
        worker = SPAWN.Process(target=_worker, args=(worker_theirs, str(path)), daemon=True)
        producer = SPAWN.Process(target=_producer, args=(theirs, str(path), first), daemon=True)
        worker.start()
        producer.start()
        theirs.close()
        worker_theirs.close()
        # the worker first: without a producer it would have nothing left to report
        _until_killed(worker, worker_ours, rng)
        acknowledged = max(acknowledged, _until_killed(producer, ours, rng))
    with EmbeddedLog(path) as log:
        log.drain()
        end = log.end_offsets("in")[0]
        assert end >= acknowledged
        produced = values(take(log, starts(IN), end))
        assert produced == [b"%d" % i for i in range(end)]  # every append once, in order, none lost
        done = log.committed("w")[TP]
        assert done > 0
        answered: dict[bytes | None, list[bytes | None]] = {}
        for batch in take(log, starts(OUT), sum(log.end_offsets("out"))):
            for key, value in zip(batch.keys, batch.values, strict=True):
                answered.setdefault(key, []).append(value)
        assert answered == {b"%d" % i: [b"1", b"2"] for i in range(done)}
