"""Process-wide settings of torch, numpy and memory, made once by the entry point."""

from __future__ import annotations

import ctypes
import sys

import threadpoolctl
import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_LARGEST_MMAP_THRESHOLD = 32 << 20  # what glibc takes on 64 bits
_KEPT = 256 << 20  # bytes freed at the top of the heap before they go back to the system


def set_threads(count: int = 0) -> None:
    """Use `count` torch threads (0: torch's own choice, which follows OMP_NUM_THREADS) and deterministic algorithms.

    The number of threads is part of what makes two runs equal to the bit: sums are cut by thread. numpy's matrix
    products always take one: its matrices are small here, and threads of its own beside torch's wait for each other.
    Memory that a step frees is kept for the next one: fetched from the system anew, its pages cost a tenth of the loop.
    """
    threadpoolctl.threadpool_limits(1, user_api="blas")
    if count:
        torch.set_num_threads(count)
    use_deterministic_algorithms()
    _keep_freed_memory()


def release_freed_memory() -> None:
    """Give what lies freed between memory in use back to the system, once in a while: for a step it is kept, over hours
    the holes add up. Threads wait for some milliseconds, where the C library is glibc; elsewhere nothing happens.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)


def use_deterministic_algorithms() -> None:
    """Restrict torch to algorithms that give equal bits in equal runs."""
    torch.use_deterministic_algorithms(True)
    # by default that also writes into all memory that torch takes, in case somebody reads it before it is set
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # no stub for it


def _keep_freed_memory() -> None:
    """Do so where the C library is glibc; elsewhere it is only slower."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_TRIM_THRESHOLD, _KEPT)
