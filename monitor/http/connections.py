"""Connections without a request: each is closed after ten seconds, earlier when there are too many."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_S: Final = 10.0  # time for the head of a request to arrive


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


def protocol_of(connections: Connections) -> type[HttpToolsProtocol]:
    """The HTTP protocol of uvicorn, with a limit on the wait for a request, which uvicorn does not have."""

    class Connection(HttpToolsProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
            super().connection_made(transport)
            connections.wait_for(self)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            # The first byte of a further request ends uvicorn's keep-alive timer, whatever follows it.
            between = self.cycle is None or self.cycle.response_complete
            if between and self in self.connections:  # a web socket is no longer among them
                connections.wait_for(self)

        def on_headers_complete(self) -> None:
            connections.heard(self)
            super().on_headers_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            connections.heard(self)
            super().connection_lost(exc)

    return Connection
