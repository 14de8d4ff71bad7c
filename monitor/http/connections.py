"""Connections without a request: each is closed after ten seconds, earlier when there are too many."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from monitor.http.problems import Problem

HEAD_S: Final = 10.0  # time for the head of a request to arrive
MAX_HEAD_BYTES: Final = 64 * 1024


class Connections:
    """The open connections of a server; belongs to its event loop.

    Parameters
    ----------
    most
        Most connections without a request; one more closes the one that has waited longest.
    """

    def __init__(self, most: int, head_s: float = HEAD_S) -> None:
        self._most = most
        self._head_s = head_s
        self._silent: dict[HttpToolsProtocol, asyncio.TimerHandle] = {}  # oldest first
        self.open: Collection[Any] = ()  # the server's own set of all of them, once there is a server

    @property
    def busy(self) -> int:
        """Connections that have sent a request: answers under way, streams, open pages, and those kept alive."""
        return len(self.open) - len(self._silent)

    def wait_for(self, connection: HttpToolsProtocol) -> None:
        """Start to wait for a request on this connection."""
        if connection in self._silent:
            return
        loop = asyncio.get_running_loop()
        self._silent[connection] = loop.call_later(self._head_s, self._close, connection)
        if len(self._silent) > self._most:
            self._close(next(iter(self._silent)))

    def heard(self, connection: HttpToolsProtocol) -> None:
        """The head of a request has arrived, or the connection is closed."""
        timer = self._silent.pop(connection, None)
        if timer is not None:
            timer.cancel()

    def _close(self, connection: HttpToolsProtocol) -> None:
        self.heard(connection)
        connection.transport.abort()


class _HeadTooLarge(Exception):
    """The head of a request has more bytes than are accepted."""


class BoundedConnection(HttpToolsProtocol):
    """The HTTP protocol of uvicorn, with limits on the wait for a request and on its head, which uvicorn lacks.

    The head is bounded before anybody knows who sends it: `MAX_HEAD_BYTES` of URL and headers (trailers included),
    and as many bytes, beside two reads of the socket, of a line that does not end.
    """

    silent: Connections  # set by `protocol_of`
    _head_bytes = 0  # URL and headers of the request
    _pending_bytes = 0  # received since the parser last completed a part of a request
    _too_large = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Wait for the first request."""
        super().connection_made(transport)
        self.silent.wait_for(self)

    def data_received(self, data: bytes) -> None:
        """Parse bytes; refuse a line of the head that does not end."""
        self._pending_bytes += len(data)
        before = self._pending_bytes
        super().data_received(data)
        if self._pending_bytes == before > MAX_HEAD_BYTES and not self._too_large:
            self._too_large = True
            self.send_400_response("")
        # The first byte of a further request ends uvicorn's keep-alive timer, whatever follows it.
        between = self.cycle is None or self.cycle.response_complete
        if between and self in self.connections:  # a web socket is no longer among them
            self.silent.wait_for(self)

    def on_message_begin(self) -> None:
        """Begin to count the head."""
        self._head_bytes = self._pending_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count a part of the URL."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header."""
        self._pending_bytes = 0
        self._count_head(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop waiting: a request is there."""
        self._pending_bytes = 0
        self.silent.heard(self)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Note a part of the body."""
        self._pending_bytes = 0
        super().on_body(body)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting: the connection is closed."""
        self.silent.heard(self)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer that the bytes are no request, or that the head is too large."""
        if not self._too_large:
            super().send_400_response(msg)
            return
        self.transport.write(_head_refusal())
        self.transport.close()

    def _count_head(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > MAX_HEAD_BYTES:
            self._too_large = True
            raise _HeadTooLarge  # ends the parser, and with it this connection


def protocol_of(connections: Connections) -> type[BoundedConnection]:
    """The protocol of a server whose connections these are."""
    return type("Connection", (BoundedConnection,), {"silent": connections})


def _head_refusal() -> bytes:
    problem = Problem(431, f"URL and headers have more than {MAX_HEAD_BYTES} bytes", {"connection": "close"})
    response = problem.response()
    headers = b"".join(b"%s: %s\r\n" % header for header in response.raw_headers)
    return b"HTTP/1.1 431 Request Header Fields Too Large\r\n" + headers + b"\r\n" + bytes(response.body)
