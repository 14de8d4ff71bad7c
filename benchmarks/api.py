"""How many callers one process serves while it learns: lists asked for, events posted, page viewers.

Starts `intentstream run` in a process of its own, as a user would, and asks it over loopback from this one:

1. `POST /events` in batches of 100, the worker taking them as they come
2. `GET /recommendations/{user}` when all is taken: the learner is idle
3. the same while a simulated shop keeps the learner at full speed; once as fast as it answers, once at 300 a second
4. with `--viewers N`: the worker's pace with N browsers on the page and with none. `viewers_pace_share` is what the
   pace loses, on few cores to the browsers themselves; `viewers_cpu_share` is what the server spends on them

    python -m benchmarks.api [--seconds 10] [--connections 8] [--viewers 0] [--config FILE]

The last line is JSON. The client is one Python process and takes a core of its own: on a machine with fewer than three
free cores the figures are lower bounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from playwright.sync_api import sync_playwright

from stream.sources.simulate import Simulator, SimulatorConfig

BATCH = 100
POSTED = 30_000
CONFIG = """
[monitor]
port = {port}
requests_per_second = 1e6
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def get(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        return bytes(answer.read())


@contextlib.contextmanager
def running(folder: Path, rate: float, more: str) -> Iterator[int]:
    """`intentstream run` on the folder; gives the port once it answers."""
    port = free_port()
    config = folder / "config.toml"
    config.write_text(CONFIG.format(port=port) + more)
    command = ["run", "--dir", str(folder), "--rate", str(rate), "--config", str(config)]
    process = subprocess.Popen(
        [sys.executable, "-c", "from stream.cli import main; main()", *command], stdout=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: process.poll() is not None or answers(port), 120)
        if process.poll() is not None:
            raise SystemExit("intentstream run ended before it answered")
        yield port
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        return b"running" in get(port, "/status")
    return False


def wait_for(check: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            raise SystemExit(f"nothing came of waiting {seconds:.0f} s")
        time.sleep(0.1)


def metric(port: int, name: str) -> float:
    found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", get(port, "/metrics").decode(), re.M)
    return sum(map(float, found))


class Client(asyncio.Protocol):
    """One keep-alive connection: a request, its whole answer, the next request."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._answer.done():
            self._answer.set_exception(ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        length = int(self._buffer[:head].lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        if len(self._buffer) >= head + 4 + length:
            status, self._buffer = int(self._buffer[9:12]), b""
            self._answer.set_result(status)

    async def ask(self, request: bytes) -> int:
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        self._transport.close()


async def load(
    port: int, requests: list[bytes], seconds: float, connections: int, pace: float = 0
) -> tuple[list[float], float]:
    """Ask for so long; returns the latencies and the time taken, in seconds. `pace`: requests a second, 0: no limit.

    At a pace a latency counts from when the request was due, so a server that stalls is not spared.
    """
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    began = time.perf_counter()

    async def one(number: int) -> None:
        _, client = await loop.create_connection(Client, "127.0.0.1", port)
        place = number
        while (now := time.perf_counter()) - began < seconds:
            if pace:
                due = began + place / pace
                if due > now:
                    await asyncio.sleep(due - now)
                now = due
            status = await client.ask(requests[place % len(requests)])
            if status != 200:
                raise SystemExit(f"answered with {status}")
            latencies.append(time.perf_counter() - now)
            place += connections
        client.close()

    await asyncio.gather(*(one(number) for number in range(connections)))
    return latencies, time.perf_counter() - began


async def send_once(port: int, requests: list[bytes], connections: int) -> float:
    """Send each request once over so many connections; returns the seconds that took."""
    loop = asyncio.get_running_loop()
    waiting = iter(requests)

    async def one() -> None:
        _, client = await loop.create_connection(Client, "127.0.0.1", port)
        for request in waiting:
            status = await client.ask(request)
            if status != 200:
                raise SystemExit(f"POST /events answered with {status}")
        client.close()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(connections)))
    return time.perf_counter() - began


def p99_ms(latencies: list[float]) -> float:
    return round(sorted(latencies)[len(latencies) * 99 // 100] * 1000, 2)


def posts(events: int, seed: int) -> tuple[list[bytes], list[str]]:
    """Requests with a batch of the simulator's good events each, and the users in them."""
    simulator = Simulator(SimulatorConfig(bad_share=0.0, duplicate_share=0.0), seed=seed)
    chunk = simulator.next_chunk(events)
    requests = []
    for start in range(0, len(chunk.values), BATCH):
        body = b"\n".join(chunk.values[start : start + BATCH])
        head = "POST /events HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/x-ndjson\r\ncontent-length: "
        requests.append(f"{head}{len(body)}\r\n\r\n".encode() + body)
    return requests, sorted({key.decode() for key in chunk.keys if key})


def asks(port: int, users: list[str]) -> list[bytes]:
    """A request for every user who has a list."""
    known = []
    for user in users:
        with contextlib.suppress(urllib.error.HTTPError):
            get(port, f"/recommendations/{quote(user, safe='')}")
            known.append(user)
        if len(known) == 1000:
            break
    return [f"GET /recommendations/{quote(u, safe='')} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode() for u in known]


class Pace(NamedTuple):
    """What the server did over some seconds."""

    events_per_second: float
    cpu_ms_per_event: float  # of the server's process, all threads


def pace(port: int, seconds: float) -> Pace:
    """The worker's pace; its reports come every five seconds, so their own times are used."""

    def newest() -> tuple[float, float]:
        worker = json.loads(get(port, "/status"))["workers"][0]
        return worker["ts"] / 1000, worker["counters"]["events"]

    def next_report() -> tuple[float, float, float]:
        known = newest()
        wait_for(lambda: newest() != known, 60)
        return (*newest(), metric(port, "process_cpu_seconds_total"))

    first = next_report()
    time.sleep(seconds)
    last = next_report()
    events = last[1] - first[1]
    return Pace(events / (last[0] - first[0]), (last[2] - first[2]) * 1000 / events)


def with_viewers(port: int, viewers: int, seconds: float) -> tuple[Pace, Pace]:
    """The worker's pace with nobody on the page, and with so many."""
    executable = shutil.which("chromium")
    alone = pace(port, seconds)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        for _ in range(viewers):
            browser.new_context(viewport={"width": 1600, "height": 1000}).new_page().goto(f"http://127.0.0.1:{port}/")
        time.sleep(5)
        watched = pace(port, seconds)
        browser.close()
    return alone, watched


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--viewers", type=int, default=0)
    parser.add_argument("--posted", type=int, default=POSTED, help="events posted before anything is asked for")
    parser.add_argument("--config", type=Path, help="more configuration, in TOML, without [monitor]")
    given = parser.parse_args()
    more = given.config.read_text() if given.config else ""
    found: dict[str, float] = {"cores": float(len(os.sched_getaffinity(0)))}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        requests, users = posts(given.posted, seed=1)
        with running(folder, 1, more) as port:
            took = asyncio.run(send_once(port, requests, given.connections))
            found["post_events_per_second"] = round(given.posted / took, 1)
            print(f"posted {given.posted:,} events: {found['post_events_per_second']:,.0f}/s")
            wait_for(lambda: metric(port, "intentstream_events_total") > 0, 60)
            wait_for(lambda: metric(port, "intentstream_input_lag_records") == 0, 300)
            wanted = asks(port, users)
            latencies, took = asyncio.run(load(port, wanted, given.seconds, given.connections))
            found["get_per_second_idle"] = round(len(latencies) / took, 1)
            found["get_p99_ms_idle"] = p99_ms(latencies)
            print(f"idle: {found['get_per_second_idle']:,.0f} lists/s, p99 {found['get_p99_ms_idle']} ms")
        with running(folder, 100_000, more) as port:
            wait_for(lambda: metric(port, "intentstream_events_per_second") > 0, 60)
            latencies, took = asyncio.run(load(port, wanted, given.seconds, given.connections))
            found["get_per_second_learning"] = round(len(latencies) / took, 1)
            found["get_p99_ms_learning"] = p99_ms(latencies)
            latencies, _ = asyncio.run(load(port, wanted, given.seconds, given.connections, pace=300))
            found["get_p99_ms_learning_at_300"] = p99_ms(latencies)
            print(
                f"learning: {found['get_per_second_learning']:,.0f} lists/s, p99 {found['get_p99_ms_learning']} ms; "
                f"at 300/s p99 {found['get_p99_ms_learning_at_300']} ms"
            )
            found["worker_events_per_second"] = round(metric(port, "intentstream_events_per_second"), 1)
            if given.viewers:
                alone, watched = with_viewers(port, given.viewers, max(12.0, given.seconds))
                found["viewers"] = float(given.viewers)
                found["viewers_pace_share"] = round(1 - watched.events_per_second / alone.events_per_second, 4)
                found["viewers_cpu_share"] = round(1 - alone.cpu_ms_per_event / watched.cpu_ms_per_event, 4)
                for name, one in (("alone", alone), (f"with {given.viewers} viewers", watched)):
                    print(
                        f"worker {name}: {one.events_per_second:,.0f} events/s, {one.cpu_ms_per_event:.2f} ms CPU each"
                    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
