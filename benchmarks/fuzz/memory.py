"""Memory of this process."""

from __future__ import annotations

import ctypes
import resource
from pathlib import Path


class _HeapFigures(ctypes.Structure):
    """glibc's `struct mallinfo2`, bytes."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def heap_mb() -> float:
    """Megabytes of the heap that are in use: allocated and not freed, without the holes between; 0 without glibc."""
    figures = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if figures is None:
        return 0.0
    figures.restype = _HeapFigures
    found = figures()
    return float(round((found.uordblks + found.hblkhd) / 2**20, 1))


def resident_mb() -> float:
    """Megabytes of memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 2**20, 1)
