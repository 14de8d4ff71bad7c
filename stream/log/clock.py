"""The wall clock, for callers that may give another one."""

from __future__ import annotations

import time


def wall_clock_ms() -> int:
    """Now, epoch milliseconds."""
    return time.time_ns() // 1_000_000
