"""Brokers for the integration tests: one that runs (KAFKA_BOOTSTRAP), or started from KAFKA_HOME; else skipped.

REQUIRE_KAFKA=1 turns the skip into a failure, so that a green run cannot hide an empty one.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient

from stream.log.kafka.client_path import OVERRIDE

HOW = "no broker: set KAFKA_BOOTSTRAP=host:port, or KAFKA_HOME to an unpacked Apache Kafka release"


class Broker:
    """An Apache Kafka in a folder, through KAFKA_HOME's one-script form or a release's own scripts."""

    def __init__(self, home: Path, folder: Path, port: int = 0) -> None:
        self._script = home / "kafka"
        self._home = home
        self._folder = folder
        self._port = port
        self._settings: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self.bootstrap = ""

    @property
    def url(self) -> str:
        return f"kafka://{self.bootstrap}"

    def start(self, *settings: str) -> None:
        """Start, or start again with the same data on the same port."""
        self._settings = list(settings) or self._settings
        if self._script.is_file():
            done = self._run("start", str(self._port), *self._settings)
            self.bootstrap = done.strip().splitlines()[-1]
        else:
            self._start_release()

    def stop(self) -> None:
        self._signal("stop", "TERM")

    def kill(self) -> None:
        self._signal("kill", "KILL")

    def pause(self) -> None:
        self._signal("pause", "STOP")

    def resume(self) -> None:
        self._signal("resume", "CONT")

    def wait_for_marks(self, transactional_id: str, state: str = "CompleteCommit") -> None:
        """Wait until the last transaction is marked in every partition: killed before, a lone broker loses a commit
        (KAFKA-20734), though it was answered.
        """
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        while admin.describe_transactions([transactional_id])[transactional_id].state != state:
            time.sleep(0.01)
        admin.close()

    def _signal(self, word: str, signal: str) -> None:
        if self._script.is_file():
            self._run(word)
        elif self._process is not None:
            subprocess.run(["kill", f"-{signal}", str(self._process.pid)], check=True)
            if word in ("stop", "kill"):
                self._process.wait(60)

    def _run(self, word: str, *arguments: str) -> str:
        command = [str(self._script.resolve()), word, str(self._folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _start_release(self) -> None:
        """An unpacked release with bin/kafka-server-start.sh: a single KRaft node."""
        self._folder.mkdir(parents=True, exist_ok=True)
        properties = self._folder / "server.properties"
        if not properties.exists():
            port, controller = self._port or free_port(), free_port()
            self.bootstrap = f"127.0.0.1:{port}"
            lines = [
                "process.roles=broker,controller",
                "node.id=1",
                f"listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
                f"controller.quorum.bootstrap.servers=127.0.0.1:{controller}",
                "controller.listener.names=CONTROLLER",
                "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
                f"log.dirs={self._folder / 'data'}",
                "auto.create.topics.enable=false",
                "offsets.topic.replication.factor=1",
                "transaction.state.log.replication.factor=1",
                "transaction.state.log.min.isr=1",
                "group.initial.rebalance.delay.ms=0",
                *self._settings,
            ]
            properties.write_text("\n".join(lines) + "\n")
            tool = str(self._home / "bin/kafka-storage.sh")
            command = [tool, "format", "--standalone", "-t", "4L6g3nShT-eMCtK--X86sw", "-c", str(properties)]
            subprocess.run(command, check=True, capture_output=True)
        with open(self._folder / "broker.log", "ab") as log:
            command = [str(self._home / "bin/kafka-server-start.sh"), str(properties)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 60
        host, port_text = self.bootstrap.split(":")
        while time.monotonic() < deadline:
            try:
                socket.create_connection((host, int(port_text)), 1).close()
                return
            except OSError:
                time.sleep(0.2)
        raise AssertionError((self._folder / "broker.log").read_text()[-2000:])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _home() -> Path:
    home = os.environ.get("KAFKA_HOME", "")
    if home and ((Path(home) / "kafka").is_file() or (Path(home) / "bin/kafka-server-start.sh").is_file()):
        return Path(home)
    if os.environ.get("REQUIRE_KAFKA") == "1":
        pytest.fail(f"{HOW} (REQUIRE_KAFKA=1)")
    pytest.skip(HOW)


@pytest.fixture(scope="session")
def kafka_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker that all tests share: names of topics and workers must be their own."""
    running = os.environ.get("KAFKA_BOOTSTRAP")
    if running:
        yield f"kafka://{running}"
        return
    broker = Broker(_home(), tmp_path_factory.mktemp("kafka"))
    broker.start("transaction.abort.timed.out.transaction.cleanup.interval.ms=100")  # not 10 s
    try:
        yield broker.url
    finally:
        broker.kill()


@pytest.fixture
def make_broker(tmp_path: Path) -> Iterator[Callable[..., Broker]]:
    """A broker of the test's own, to be paused and killed; needs KAFKA_HOME."""
    brokers: list[Broker] = []

    def make(*settings: str, port: int = 0) -> Broker:
        broker = Broker(_home(), tmp_path / f"kafka-{len(brokers)}", port)
        brokers.append(broker)
        broker.start(*settings)
        return broker

    yield make
    for broker in brokers:
        broker.kill()


@pytest.fixture(params=["fast", "public"])
def each_client_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test on both ways through kafka-python; processes that the test starts take the same way."""
    path: str = request.param
    monkeypatch.setenv(OVERRIDE, path)
    return path
