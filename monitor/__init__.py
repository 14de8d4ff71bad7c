"""A reader of the topics: the page, the HTTP API and Prometheus metrics."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from monitor.config import MonitorConfig
from monitor.errors import MonitorConfigError, MonitorError, ViewError, ViewInUse

if TYPE_CHECKING:
    from monitor.app import create_app
    from monitor.server import run, serve

# Loaded on first use: a worker starts half a second faster without the web server.
_SERVER: Final = {"create_app": "monitor.app", "run": "monitor.server", "serve": "monitor.server"}


def __getattr__(name: str) -> Any:
    if name not in _SERVER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_SERVER[name]), name)


__all__ = [
    "MonitorConfig",
    "MonitorConfigError",
    "MonitorError",
    "ViewError",
    "ViewInUse",
    "create_app",
    "run",
    "serve",
]
