"""`dead-letters replay` killed with SIGKILL around its commits, on both logs: every letter is sent once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from stream.log import Message, TopicPartition, open_log
from stream.schema import topics
from stream.worker import dead_letters
from stream.worker.dead_letters import replay_dead_letters
from tests.integration.conftest import Broker
from tests.unit.stream.worker.test_dead_letters import fill, sent

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]
SPAWN = multiprocessing.get_context("spawn")
CHUNK, LETTERS = 3, 10


class Deadly:
    """A log on which this process dies in its n-th commit, before it or after it."""

    def __init__(self, log: Any, count: int, after: bool) -> None:
        self._log, self._left, self._after = log, count, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def commit(self, messages: Sequence[Message], positions: Mapping[TopicPartition, int]) -> None:
        self._left -= 1
        if self._left == 0 and not self._after:
            os.kill(os.getpid(), signal.SIGKILL)
        self._log.commit(messages, positions)
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _replay(url: str, count: int, after: bool) -> None:
    dead_letters._CHUNK = CHUNK  # type: ignore[misc]  # small chunks, to die between them
    with open_log(url) as log:
        replay_dead_letters(Deadly(log, count, after), now_ms=0)


def killed_again_and_again(url: str) -> None:
    with open_log(url) as log:
        log.create_topics(topics.topic_specs(2))
        values = fill(log, LETTERS)
    for count, after in ((1, False), (1, True), (2, True)):
        process = SPAWN.Process(target=_replay, args=(url, count, after))
        process.start()
        process.join(100)
        assert process.exitcode == -signal.SIGKILL
    with open_log(url) as log:
        assert replay_dead_letters(log, now_ms=0).sent == 1  # three chunks of three had been committed
        assert replay_dead_letters(log, now_ms=0).sent == 0
        assert sorted(sent(log), key=repr) == values


def test_a_killed_replay_on_a_file_log(tmp_path: Path) -> None:
    killed_again_and_again(f"file://{tmp_path / 'log'}")


def test_a_killed_replay_on_kafka(make_broker: Callable[..., Broker]) -> None:
    killed_again_and_again(make_broker().url)


def test_a_file_log_with_a_worker_on_it_is_refused_in_one_line(tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'log'}"
    with open_log(url) as log:
        log.create_topics(topics.topic_specs(2))
        fill(log, 2)
        words = [sys.executable, "-c", "from intentstream.cli.app import main; main()", "dead-letters"]
        refused = subprocess.run([*words, "replay", "--log", url], capture_output=True, text=True, check=False)
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1
        assert "stop that one first" in refused.stderr
        listed = subprocess.run([*words, "list", "--log", url], capture_output=True, text=True, check=True)
        assert len(listed.stdout.splitlines()) == 2  # reading is possible beside it
