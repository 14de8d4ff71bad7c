from __future__ import annotations

import functools
import socket
import time
from contextlib import ExitStack

import httpx
import pytest

import monitor.app
import monitor.service
from monitor.http.connections import MAX_HEAD_BYTES, Connections
from monitor.http.middleware import Guard
from tests.unit.monitor.conftest import MakeClient

MOST = 20


def connect(stack: ExitStack, client: httpx.Client) -> socket.socket:
    """A connection that has said nothing."""
    return stack.enter_context(socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=10))


def closed(sock: socket.socket, within_s: float) -> bool:
    """Whether the server closes a connection in time, without an answer."""
    sock.settimeout(within_s)
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def test_silent_connections_take_no_place_from_requests(make_client: MakeClient) -> None:
    client = make_client(max_connections=MOST)
    with ExitStack() as stack:
        silent = [connect(stack, client) for _ in range(MOST + 5)]
        assert closed(silent[0], 5) and not closed(silent[-1], 0.1)
        for path in ("/healthz", "/metrics", "/intents"):
            assert client.get(path).status_code == 200


@pytest.mark.parametrize("sent", [b"", b"GET /intents HTTP/1.1\r\nhost: ", b"first", b"\r\n"])
def test_a_connection_without_a_whole_request_is_closed(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(monitor.service, "Connections", functools.partial(Connections, head_s=0.3))
    client = make_client()
    with ExitStack() as stack:
        slow = connect(stack, client)
        if sent == b"first":  # a whole one, and then the beginning of a second one
            slow.sendall(b"GET /intents HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert slow.recv(65536).startswith(b"HTTP/1.1 200")
            sent = b"GET /int"
        began = time.monotonic()
        slow.sendall(sent)
        assert closed(slow, 5)
        assert time.monotonic() - began < 4
    with client.stream("GET", "/stream/recommendations") as answer:  # a long answer is no silence
        time.sleep(0.6)
        assert next(answer.iter_lines()) == ": connected"


def test_a_body_that_does_not_come_is_not_waited_for(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor.app, "Guard", functools.partial(Guard, body_s=0.3))
    client = make_client()
    with ExitStack() as stack:
        slow = connect(stack, client)
        head = (
            b"POST /events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n"
        )
        slow.sendall(head + b"[")
        answer = b""
        while part := slow.recv(65536):
            answer += part
        assert answer.startswith(b"HTTP/1.1 408") and b"application/problem+json" in answer
        listener = stack.enter_context(client.stream("GET", "/stream/recommendations"))
        time.sleep(0.6)
        assert next(listener.iter_lines()) == ": connected" and len(client.get("/status").content) > 0


def test_too_many_connections_are_told_so_and_operators_still_see(make_client: MakeClient) -> None:
    client = make_client(max_connections=3)
    with ExitStack() as stack:
        for _ in range(3):
            viewer = httpx.Client(base_url=client.base_url, timeout=20)
            stack.enter_context(viewer)
            stack.enter_context(viewer.stream("GET", "/stream/recommendations"))
        answer = client.get("/intents")
        assert answer.status_code == 503 and answer.headers["connection"] == "close"
        assert answer.headers["content-type"] == "application/problem+json" and answer.headers["retry-after"] == "1"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.json()["detail"] == "more than 3 connections are open"
        assert client.get("/healthz").status_code == 200
        assert 'route="other",status="5xx"} 1.0' in client.get("/metrics").text
    end = time.monotonic() + 10
    while client.get("/intents").status_code != 200:
        assert time.monotonic() < end, "there is no place although the others have gone"
        time.sleep(0.05)


CHUNKED = b"POST /events HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n1\r\n[\r\n0\r\n"
HEADS = {
    "one long header": (b"GET / HTTP/1.1\r\nhost: localhost\r\na: ", b"x" * 65_536),
    "many headers": (b"GET / HTTP/1.1\r\nhost: localhost\r\n", b"a: b\r\n" * 10_000),
    "a long URL": (b"GET /", b"x" * 65_536),
    "a long name": (b"GET / HTTP/1.1\r\n", b"x" * 65_536),
    "trailers": (CHUNKED, b"a: b\r\n" * 10_000),
    "one long trailer": (CHUNKED + b"a: ", b"x" * 65_536),
}


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_without_end_is_refused_before_anybody_knows_who_sends_it(make_client: MakeClient, kind: str) -> None:
    client = make_client(token="a-token-of-some-length")
    begin, more = HEADS[kind]
    sent, answer = len(begin), b""
    with ExitStack() as stack:
        sock = connect(stack, client)
        sock.sendall(begin)
        try:
            while sent < 32 * MAX_HEAD_BYTES:
                sock.sendall(more)
                sent += len(more)
                time.sleep(0.01)  # the server's turn
        except OSError:  # the server has closed the connection
            pass
        try:
            answer = sock.recv(65_536)
        except ConnectionResetError:
            answer = b"HTTP/1.1 431 "  # what was sent after the answer has removed it
        assert sent < 16 * MAX_HEAD_BYTES, "the server reads on"
        assert answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 401 ")) or not answer
    assert client.get("/healthz").status_code == 200


def test_a_head_of_many_bytes_is_a_problem_document(make_client: MakeClient) -> None:
    client = make_client()
    assert client.get("/intents", headers={"a": "x" * 60_000}).status_code == 200
    answer = client.get("/intents", headers={"a": "x" * 70_000})
    assert answer.status_code == 431 and answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "URL and headers have more than 65536 bytes"
