"""Errors of monitor/, one root.

MonitorError
├── MonitorConfigError  an address or a token that is not allowed
├── ViewInUse           the view folder belongs to another running monitor
└── ViewError           the view folder cannot be opened, read or written
"""

from __future__ import annotations

from typing import ClassVar


class MonitorError(Exception):
    """Root of every error that monitor/ raises on purpose; the message says what to do."""

    retriable: ClassVar[bool] = False


class MonitorConfigError(MonitorError):
    """With these settings the server would be unsafe, or cannot start."""


class ViewInUse(MonitorError):
    """Another monitor has the view folder open: give this one its own."""


class ViewError(MonitorError):
    """The view folder cannot be opened, read or written. Delete it, and the monitor fills it again from the topics."""
