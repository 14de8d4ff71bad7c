"""The very command lines of docker-compose.yml, run natively against a real broker with the file's own settings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stream.log import open_log
from stream.schema import topics
from tests.integration.conftest import Broker, free_port
from tests.unit.test_compose import COMPOSE, SERVICES, TOKEN, config_text

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]
ENTRYPOINT = [sys.executable, "-c", "from intentstream.cli.app import main; main()"]
OF_A_CLUSTER = (
    "LISTENER",
    "NODE",
    "PROCESS",
    "CONTROLLER",
    "LOG_DIRS",
    "ADVERTISED",
)  # the machine's, not the service's
EVENTS = 600


def broker_settings() -> list[str]:
    """The compose file's environment of the broker as the server properties that the image makes of it."""
    environment: dict[str, str] = SERVICES["kafka"]["environment"]
    return [
        f"{name.removeprefix('KAFKA_').lower().replace('_', '.')}={value}"
        for name, value in environment.items()
        if name.startswith("KAFKA_") and not any(part in name for part in OF_A_CLUSTER)
    ]


class Native:
    """The services' command lines with this machine's address, folders and port in the place of the containers'."""

    def __init__(self, folder: Path, url: str) -> None:
        self.port = free_port()
        self._replaced = {
            "kafka://kafka:9092": url,
            "/var/lib/intentstream": str(folder),
            "/etc/intentstream.toml": str(folder / "intentstream.toml"),
            "http://127.0.0.1:8050": f"http://127.0.0.1:{self.port}",
        }
        for volume in ("state", "view", "shop"):
            (folder / volume).mkdir()
        assert COMPOSE["volumes"].keys() >= {"state", "view", "shop"}
        text = config_text().replace("[monitor]\n", f"[monitor]\nport = {self.port}\n")
        (folder / "intentstream.toml").write_text(text)

    def words(self, words: list[str]) -> list[str]:
        found = []
        for word in words:
            for theirs, ours in self._replaced.items():
                word = word.replace(theirs, ours)
            found.append(word)
        return found

    def command(self, service: str, *more: str) -> list[str]:
        return [*ENTRYPOINT, *self.words(SERVICES[service]["command"]), *more]

    def health(self, service: str) -> subprocess.CompletedProcess[str]:
        kind, program, *rest = SERVICES[service]["healthcheck"]["test"]
        assert kind == "CMD"
        start = {"intentstream": ENTRYPOINT, "python": [sys.executable]}[program]
        return subprocess.run([*start, *self.words(rest)], capture_output=True, text=True, timeout=100, check=False)


def until(what: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 100
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it does not come"


def ended_by_sigterm(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    return out


@pytest.mark.timeout(400)
def test_the_services_of_the_compose_file(tmp_path: Path, make_broker: Callable[..., Broker]) -> None:
    assert len(broker_settings()) == 5  # those that decide about durability
    broker = make_broker(*broker_settings())
    native = Native(tmp_path, broker.url)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(service: str, *more: str) -> str:
        command = native.command(service, *more)
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(service: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(native.command(service), stdout=pipe, stderr=pipe, text=True, env=environment)

    listed = run("topics")
    assert all(spec.name in listed for spec in topics.topic_specs(1))
    assert f"{EVENTS} events appended" in run("simulator", "--limit", str(EVENTS))
    with open_log(broker.url, mode="reader") as log:
        assert sum(log.end_offsets(topics.EVENTS)) == EVENTS
        worker, monitor = start("worker"), start("monitor")
        try:
            until(lambda: sum(log.committed("worker-0").values()) == EVENTS, worker)
            until(lambda: native.health("monitor").returncode == 0, monitor)
            request = urllib.request.Request(f"http://127.0.0.1:{native.port}/metrics")
            request.add_header("Authorization", f"Bearer {TOKEN}")
            until(lambda: "intentstream_worker_up" in urllib.request.urlopen(request).read().decode(), monitor)
            said = native.health("worker")
            assert "last step" in said.stdout, said.stderr
            assert "checkpoint taken" in ended_by_sigterm(worker)
            ended_by_sigterm(monitor)
        finally:
            for process in (worker, monitor):
                process.kill()
                process.communicate()
        assert sum(log.end_offsets(topics.RECOMMENDATIONS)) > 0
    stopped = native.health("worker")
    assert stopped.returncode == 1
    assert [line for line in stopped.stdout.splitlines() if line.startswith("problem")] == [
        "problem               the worker was stopped in order; start it to go on"
    ]
    assert f"{EVENTS // 2} events appended" in run("simulator", "--limit", str(EVENTS // 2))  # goes on, not anew
    assert (tmp_path / "shop" / "shop.npz").is_file()
