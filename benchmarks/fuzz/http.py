"""Hostile requests against a running API: no error of the server, every accepted event once in the log."""

from __future__ import annotations

import json
import random
import re
import socket
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from benchmarks.fuzz.memory import resident_mb
from benchmarks.fuzz.records import Generator
from monitor import MonitorConfig, serve
from stream.log import EventLog, open_log
from stream.schema import topics

LOOKS: Final = 12
PARTITIONS: Final = 2
MAX_BODY: Final = 256 * 1024
_METHODS: Final = ["GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "PATCH", "TRACE", "M\x7f", "get", "BREW", ""]
_PATHS: Final = [
    *("/events", "/recommendations/u1", "/users/u1", "/erasures/u1", "/intents", "/intents/7", "/drift", "/docs"),
    *("/dead-letters?reason=bad_ts", "/status", "/healthz", "/readyz", "/metrics", "/openapi.json", "/login"),
    *("/users/%ff", "/users/" + "x" * 300, "/users/%00%0a", "/intents/-1", "/intents/" + "9" * 400, "/../etc", "//"),
    *("/recommendations/u1?k=0", "/intents?limit=1e9", "/dead-letters?limit=", "/stream/nothing", "*", "", "/\x80"),
]
_HEADERS: Final = [
    *("host: localhost", "host: evil.example", "host: [", "origin: http://evil.example", "origin: null"),
    *("content-type: application/json", "content-type: application/x-ndjson", "content-type: text/plain; x=\xff"),
    *("content-length: 5", "content-length: -1", "content-length: 99999999999", "transfer-encoding: chunked"),
    *("accept: text/html", "authorization: Bearer \xe9", "cookie: intentstream=;;=;", "expect: 100-continue"),
    *("idempotency-key: k", "idempotency-key: ", "upgrade: websocket\r\nconnection: upgrade", "connection: close"),
    *("broken", ": nameless", "x: " + "y" * 70_000, "a: b\r\n" * 3000, "range: bytes=0-1", "x-forwarded-proto: https"),
]
_PATIENCE_S: Final = {"damaged": 0.5, "anything": 0.5}  # the server waits for the rest of what is no whole request


class Requests:
    """Requests as bytes: some whole and good, most of them not."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._records = Generator(seed)
        self._number = 0
        self._sent: list[bytes] = []

    def next(self) -> tuple[str, bytes]:
        """The next request with its kind."""
        self._number += 1
        kind = self._random.choices(
            ["events", "lines", "repeated", "route", "anything", "damaged"], [30, 20, 10, 25, 10, 20]
        )[0]
        return kind, getattr(self, f"_{kind}")()

    def _values(self) -> list[bytes]:
        taken = self._records.take(self._random.choice([1, 1, 5, 100]))
        return [value or b"" for _, (_, value) in taken]

    def _post(self, kind: str, body: bytes) -> bytes:
        key = f"idempotency-key: k{self._number}\r\n" if self._random.random() < 0.5 else ""
        head = f"POST /events HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\n{key}content-length: {len(body)}"
        made = head.encode() + b"\r\nconnection: close\r\n\r\n" + body
        if key:
            self._sent = [*self._sent[-50:], made]
        return made

    def _events(self) -> bytes:
        return self._post("application/json", b"[" + b",".join(self._values()) + b"]")

    def _lines(self) -> bytes:
        return self._post("application/x-ndjson", b"\n".join(self._values()))

    def _repeated(self) -> bytes:
        return self._random.choice(self._sent) if self._sent else self._lines()

    def _route(self) -> bytes:
        method = self._random.choice(["GET", "HEAD", "DELETE"])
        user = self._random.choice(["u1", "%E2%82%AC", "a%2Fb", "%00", "x" * 256])
        return f"{method} /users/{user} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode()

    def _random_head(self) -> bytes:
        lines = [f"{self._random.choice(_METHODS)} {self._random.choice(_PATHS)} HTTP/1.1"]
        lines += self._random.choices(_HEADERS, k=self._random.randrange(6))
        return "\r\n".join([*lines, "connection: close", "", ""]).encode("latin-1")

    def _anything(self) -> bytes:
        return self._random_head() + self._random.randbytes(self._random.choice([0, 0, 10, 5000]))

    def _damaged(self) -> bytes:
        data = bytearray(self._events() if self._random.random() < 0.5 else self._random_head())
        for _ in range(self._random.randrange(1, 5)):
            place = self._random.randrange(len(data))
            data[place : place + self._random.randrange(3)] = self._random.randbytes(self._random.randrange(4))
        return bytes(data)


def fuzz_http(count: int, seed: int) -> dict[str, Any]:
    """Send `count` hostile requests to an API over an embedded log, one after the other, and look at every answer."""
    requests, outcomes, kinds = Requests(seed), Counter[str](), Counter[str]()
    memory, slowest, appended = [resident_mb()], (0.0, ""), 0
    errors: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        url = f"file://{folder}/log"
        with open_log(url) as log, open_log(url, mode="reader") as reader, open_log(url, mode="producer") as producer:
            log.create_topics(topics.topic_specs(PARTITIONS))
            config = MonitorConfig(port=0, requests_per_second=1e6, max_body_bytes=MAX_BODY)
            with serve(reader, config, Path(folder) / "view", producer, page=False) as address:
                for number in range(count):
                    kind, request = requests.next()
                    kinds[kind] += 1
                    began = time.perf_counter()
                    status, head, body = exchange(address, request, _PATIENCE_S.get(kind, 20.0))
                    seconds = time.perf_counter() - began
                    if status != "no answer":
                        slowest = max(slowest, (seconds, kind))
                    outcomes[status] += 1
                    if status.startswith("5") and status != "503":
                        errors.append(f"{kind}: {status} for {request[:200]!r}")
                    if status in ("200", "202") and b"idempotent-replayed" not in head:
                        appended += accepted(body)
                    if (number + 1) * LOOKS // count > number * LOOKS // count:
                        memory.append(resident_mb())
            stored = wait_for_records(log, appended)
    return {
        "requests": count,
        "outcomes": dict(sorted(outcomes.items())),
        "kinds": dict(kinds),
        "events_accepted": appended,
        "events_in_log": stored,
        "errors": errors[:5],
        "reconciles": sum(outcomes.values()) == count and stored == appended and not errors,
        "slowest_ms": round(slowest[0] * 1000, 3),
        "slowest_kind": slowest[1],
        "resident_mb": memory,
    }


def exchange(address: str, request: bytes, patience_s: float) -> tuple[str, bytes, bytes]:
    """Send bytes and read the answer: its status, or "closed" or "no answer"; its head; its body."""
    place = urlsplit(address)
    answer = b""
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=patience_s) as sock:
        try:
            sock.sendall(request)
        except OSError:  # refused while it was being sent
            pass
        try:
            while part := sock.recv(1 << 16):
                answer += part
        except TimeoutError:
            if not answer:
                return "no answer", b"", b""
        except OSError:
            pass
    found = re.match(rb"HTTP/1\.1 (\d{3})", answer)
    head, _, body = answer.partition(b"\r\n\r\n")
    return (found[1].decode() if found else "closed"), head, body


def accepted(body: bytes) -> int:
    """Events that an answer says are in the log: those of a POST, or the one request of an erasure."""
    try:
        answer = json.loads(body)
    except ValueError:
        return 0
    return answer.get("appended", 1 if set(answer) == {"user", "receipt"} else 0) if isinstance(answer, dict) else 0


def wait_for_records(log: EventLog, count: int) -> int:
    """Records of the event topic, once the log has taken in what its producers wrote."""
    end = time.monotonic() + 10
    while sum(log.end_offsets(topics.EVENTS)) < count and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    return sum(log.end_offsets(topics.EVENTS))
