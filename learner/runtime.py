"""Process-wide settings of torch, made once by the entry point."""

from __future__ import annotations

import torch


def set_threads(count: int = 0) -> None:
    """Use `count` torch threads (0: torch's own choice, which follows OMP_NUM_THREADS) and deterministic algorithms.

    The number of threads is part of what makes two runs equal to the bit: sums are cut by thread.
    """
    if count:
        torch.set_num_threads(count)
    torch.use_deterministic_algorithms(True)
