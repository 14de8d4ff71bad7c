"""A batch of histories of many lengths: flat for position-wise layers, in padded blocks for attention.

A block holds n right-aligned histories of similar length, (n, T), with padding; the P flat positions have no padding
unless the batch is built with `padded`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class RaggedBatch:
    """Maps the positions of histories in blocks to P flat positions, block by block and history by history.

    Parameters
    ----------
    blocks
        (n, T) bool each: False = padding
    padded
        whether padding has flat positions too

    Examples
    --------
    >>> layout = RaggedBatch([torch.tensor([[False, True], [True, True]])])
    >>> layout.flat([torch.tensor([[0, 5], [6, 7]])]).tolist()
    [5, 6, 7]
    >>> layout.blocks(torch.tensor([[5.0], [6.0], [7.0]]))[0][..., 0].tolist()
    [[0.0, 5.0], [6.0, 7.0]]
    >>> layout.numbers()[0].tolist()
    [[-1, 0], [1, 2]]
    """

    def __init__(self, blocks: Sequence[Tensor], *, padded: bool = False) -> None:
        self.there = blocks
        whole = [bool(block.all()) for block in blocks]
        self.valid = [None if full else block for full, block in zip(whole, blocks, strict=True)]
        """`there`, None for a block without padding"""
        self._places = [
            None if padded or full else block.flatten().nonzero()[:, 0]
            for full, block in zip(whole, blocks, strict=True)
        ]
        self._sizes = [
            block.numel() if places is None else len(places) for places, block in zip(self._places, blocks, strict=True)
        ]

    @property
    def is_one_block(self) -> bool:
        """Whether the P positions are all those of a single block."""
        return len(self.there) == 1 and self._places[0] is None

    def blocks(self, x: Tensor) -> list[Tensor]:
        """Positions x (P, c) as blocks (n, T, c), zeros where none is."""
        found = []
        for part, places, block in zip(torch.split(x, self._sizes), self._places, self.there, strict=True):
            if places is not None:
                part = part.new_zeros(block.numel(), x.shape[1]).index_copy_(0, places, part)
            found.append(part.view(*block.shape, -1))
        return found

    def numbers(self) -> list[Tensor]:
        """Which of the P positions is where, (n, T) each, -1 where none is."""
        places = torch.arange(1, sum(self._sizes) + 1, device=self.there[0].device)
        return [block[..., 0] - 1 for block in self.blocks(places[:, None])]

    def flat(self, blocks: Sequence[Tensor]) -> Tensor:
        """The positions (P, ...) of blocks (n, T, ...)."""
        rows = [
            block.flatten(0, 1) if places is None else block.flatten(0, 1).index_select(0, places)
            for block, places in zip(blocks, self._places, strict=True)
        ]
        return rows[0] if len(rows) == 1 else torch.cat(rows)


__all__ = ["RaggedBatch"]
