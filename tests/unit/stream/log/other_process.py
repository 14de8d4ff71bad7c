"""What the tests of the embedded log share: a clock, a second process on the same folder, records."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from stream.log import (
    LogError,
    TopicPartition,
    TopicSpec,
)
from stream.log.embedded.log import EmbeddedLog
from tests.contracts.log_checks import messages_of, starts, take, values

EVENTS = TopicSpec("events", 2)
SPAWN = multiprocessing.get_context("spawn")
ANSWER_S = 60


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now


Do = Callable[[EmbeddedLog], Any]


def _serve(pipe: Connection, path: str, mode: Any) -> None:
    """Another process with the log open: runs what it is sent."""
    try:
        log = EmbeddedLog(Path(path), mode)
    except LogError as exc:
        pipe.send(exc)
        return
    pipe.send(None)
    while (do := pipe.recv()) is not None:
        try:
            pipe.send(do(log))
        except LogError as exc:
            pipe.send(exc)
    log.close()
    pipe.send(None)


class Other:
    """A process that has the log open."""

    def __init__(self, path: Path, mode: str) -> None:
        self._pipe, theirs = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_serve, args=(theirs, str(path), mode), daemon=True)
        self.process.start()
        theirs.close()
        self.opened = self._answer()

    def _answer(self) -> Any:
        assert self._pipe.poll(ANSWER_S), "the other process does not answer"
        return self._pipe.recv()

    def ask(self, do: Do) -> Any:
        self._pipe.send(do)
        return self._answer()

    def kill(self) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join(ANSWER_S)

    def close(self) -> None:
        if self.process.is_alive() and self.opened is None:
            self._pipe.send(None)
            self._answer()
        self.process.join(ANSWER_S)


# What other processes are sent: functions of this module, by name.


def append_some(log: EmbeddedLog) -> None:
    log.append(messages_of("events", 10))


def append_more(log: EmbeddedLog) -> None:
    log.append(messages_of("events", 10, start=10))


def create_events(log: EmbeddedLog) -> None:
    log.create_topics([EVENTS])


def take_ten(log: EmbeddedLog) -> list[bytes | None]:
    return sorted(values(take(log, starts(EVENTS), 10)), key=str)


def take_twenty(log: EmbeddedLog) -> list[bytes | None]:
    return sorted(values(take(log, starts(EVENTS), 20)), key=str)


def wanted(count: int) -> list[bytes]:
    return sorted((b"value-%d" % i for i in range(count)), key=str)


# Retention


def poll_all(log: EmbeddedLog, topic: str = "t") -> list[bytes | None]:
    tp = TopicPartition(topic, 0)
    return values(log.poll({tp: log.begin_offsets(topic)[0]}, 100_000, 0))


def fill(log: EmbeddedLog, calls: int, each: int = 10) -> None:
    for i in range(calls):
        log.append(messages_of("t", each, start=each * i))
