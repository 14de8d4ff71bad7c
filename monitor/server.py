"""The HTTP server: in a thread of the worker's process, or alone."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from monitor.app import create_app
from monitor.config import MonitorConfig
from monitor.errors import MonitorConfigError, MonitorError
from monitor.http.connections import Connections, protocol_of
from stream.log.base import EventLog
from stream.mapping.config import EventsConfig
from stream.schema.events import ActionsConfig
from stream.schema.ranked_items import Ranker

_START_S = 60.0


def _bound(config: MonitorConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((config.host, config.port))
    except OSError as exc:
        sock.close()
        raise MonitorConfigError(
            f"address {config.host}:{config.port}: cannot be bound ({exc.strerror}): "
            "set `monitor.port` to another one, or stop what listens there"
        ) from exc
    return sock


def _server(app: FastAPI) -> uvicorn.Server:
    connections: Connections = app.state.service.connections
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=protocol_of(connections),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=2,
            ws_max_size=1 << 20,
            lifespan="on",
        )
    )
    connections.open = server.server_state.connections
    return server


def _url(sock: socket.socket, config: MonitorConfig) -> str:
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"http://{host}:{sock.getsockname()[1]}"


@contextlib.contextmanager
def serve(
    log: EventLog,
    config: MonitorConfig,
    view_path: Path,
    producer: EventLog | None,
    *,
    actions: ActionsConfig | None = None,
    events: EventsConfig | None = None,
    ranker: Ranker | None = None,
    page: bool = True,
) -> Iterator[str]:
    """Serve in a thread while the context is open; gives the URL.

    `log` and `producer` are two handles for the monitor alone; the caller closes them.

    Raises
    ------
    MonitorConfigError
        The address is taken or cannot be bound, or the token cannot be read.
    ViewInUse
        Another monitor uses the view folder.
    """
    config = config.with_secret()
    sock = _bound(config)
    try:
        server = _server(
            create_app(log, config, view_path, producer, actions=actions, events=events, ranker=ranker, page=page)
        )
    except BaseException:
        sock.close()
        raise
    thread = threading.Thread(target=server.run, args=([sock],), name="monitor-http", daemon=True)
    thread.start()
    waited = threading.Event()
    try:
        for _ in range(int(_START_S / 0.02)):
            if server.started or not thread.is_alive():
                break
            waited.wait(0.02)
        if not server.started:
            raise MonitorError(f"the monitor did not start within {_START_S:.0f} s; its log has the reason")
        yield _url(sock, config)
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        sock.close()


def run(
    log: EventLog,
    config: MonitorConfig,
    view_path: Path,
    producer: EventLog | None,
    *,
    actions: ActionsConfig | None = None,
    events: EventsConfig | None = None,
    ranker: Ranker | None = None,
    page: bool = True,
) -> None:
    """Serve in this thread until SIGINT or SIGTERM."""
    config = config.with_secret()
    with contextlib.closing(_bound(config)) as sock:
        _server(
            create_app(log, config, view_path, producer, actions=actions, events=events, ranker=ranker, page=page)
        ).run([sock])
