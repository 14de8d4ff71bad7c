"""A reader of the topics: the page, the HTTP API and Prometheus metrics."""

from __future__ import annotations

from monitor.api import create_app
from monitor.config import MonitorConfig
from monitor.errors import MonitorConfigError, MonitorError, ViewError, ViewInUse
from monitor.server import run, serve

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
