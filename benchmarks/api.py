"""How many callers one process serves while it learns: lists asked for, events posted, page viewers.

Starts `intentstream run` in a process of its own, as a user would, and asks it over loopback from this one:

1. `POST /events` in batches of 100, the worker taking them as they come
2. `GET /recommendations/{user}` when all is taken: the learner is idle
3. the same while a simulated shop keeps the learner at full speed; once as fast as it answers, once at 300 a second
4. with `--viewers N`: the worker with N browsers on the page and with none, in turn, three times each.
   `viewers_thread_share` is what the viewers cost the worker: processor time of the thread that serves them, as a share
   of the process'. `viewers_cpu_share` (processor time per event) and `viewers_pace_share` (events a second) have the
   browsers in them too, where these share cores and caches with the server

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

from stream.sources.simulator.config import SimulatorConfig
from stream.sources.simulator.simulator import Simulator

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
        [sys.executable, "-c", "from intentstream.cli.app import main; main()", *command], stdout=subprocess.DEVNULL
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

    seconds: float
    events: float
    cpu_s: float  # of the server's process, all threads
    serving_s: float  # of its thread that serves page and API


def pace(port: int, seconds: float) -> Pace:
    """The worker's pace; its reports come every five seconds, so their own times are used."""

    def newest() -> tuple[float, float]:
        worker = json.loads(get(port, "/status"))["workers"][0]
        return worker["ts"] / 1000, worker["counters"]["events"]

    def next_report() -> Pace:
        known = newest()
        wait_for(lambda: newest() != known, 60)
        cpu_s = metric(port, "process_cpu_seconds_total")
        return Pace(*newest(), cpu_s, metric(port, "intentstream_http_cpu_seconds_total"))

    first, began = next_report(), time.monotonic()
    time.sleep(seconds)
    asked_s = metric(port, "intentstream_http_cpu_seconds_total")  # what follows is this script's own asking
    serving = (asked_s - first.serving_s) / (time.monotonic() - began)
    found = Pace(*(after - before for before, after in zip(first, next_report(), strict=True)))
    return found._replace(serving_s=serving * found.seconds)


def with_viewers(port: int, viewers: int, seconds: float, rounds: int = 3) -> tuple[Pace, Pace]:
    """The worker with nobody on the page, and with so many, in turn."""
    alone, watched = list[Pace](), list[Pace]()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for _ in range(rounds):
            alone.append(pace(port, seconds))
            contexts = [browser.new_context(viewport={"width": 1600, "height": 1000}) for _ in range(viewers)]
            for context in contexts:
                context.new_page().goto(f"http://127.0.0.1:{port}/")
            time.sleep(5)
            watched.append(pace(port, seconds))
            for context in contexts:
                context.close()
            time.sleep(5)
        browser.close()
    return Pace(*map(sum, zip(*alone, strict=True))), Pace(*map(sum, zip(*watched, strict=True)))


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
                serving_s = watched.serving_s / watched.seconds - alone.serving_s / alone.seconds
                events_a_second = [one.events / one.seconds for one in (alone, watched)]
                cpu_s_of_event = [one.cpu_s / one.events for one in (alone, watched)]
                found["viewers"] = float(given.viewers)
                found["viewers_thread_share"] = round(serving_s * watched.seconds / watched.cpu_s, 4)
                found["viewers_cpu_share"] = round(1 - cpu_s_of_event[0] / cpu_s_of_event[1], 4)
                found["viewers_pace_share"] = round(1 - events_a_second[1] / events_a_second[0], 4)
                for name, rate, cost_s in zip(
                    ("alone", f"with {given.viewers} viewers"), events_a_second, cpu_s_of_event, strict=True
                ):
                    print(f"worker {name}: {rate:,.0f} events/s, {cost_s * 1000:.2f} ms CPU each")
                print(f"serving them takes {serving_s * 1000:.1f} ms CPU a second")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
