"""Process-wide settings of torch, numpy and memory; the entry point calls them once."""

from __future__ import annotations

import ctypes
import sys

import threadpoolctl
import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_LARGEST_MMAP_THRESHOLD = 32 << 20  # glibc's maximum on 64 bits
_KEPT = 256 << 20  # bytes free at the top of the heap before they go back to the system


def set_threads(count: int = 0) -> None:
    """Use `count` torch threads (0: torch's own choice, which follows OMP_NUM_THREADS) and deterministic algorithms.

    Two runs are equal to the bit only with the same number of threads, because sums are split by thread. numpy's matrix
    products always use one thread: the matrices are small here, and two thread pools wait for each other. Memory that a
    step frees is kept for the next step: fetching its pages from the system again costs a tenth of the loop.
    """
    threadpoolctl.threadpool_limits(1, user_api="blas")
    if count:
        torch.set_num_threads(count)
    use_deterministic_algorithms()
    _keep_freed_memory()


def release_freed_memory() -> None:
    """Return freed memory to the system. Call it now and then: a step keeps what it frees, and over hours holes add up.

    With glibc threads wait for some milliseconds; with another C library nothing happens.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)


def use_deterministic_algorithms() -> None:
    """Restrict torch to algorithms that give equal bits in equal runs."""
    torch.set_deterministic_debug_mode("error")  # torch.use_deterministic_algorithms(True), without its compiler
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
