"""Resident memory of this process."""

from __future__ import annotations

import resource
from pathlib import Path


def resident_mb() -> float:
    """Megabytes of memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 2**20, 1)
