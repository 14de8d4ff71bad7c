"""Histories of many lengths at once: one after another for what asks a position by itself, in blocks for the rest.

P positions hold no padding, or as little as is asked for; a block of n histories is right-aligned, (n, T).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


class _Spread(torch.autograd.Function):
    """Rows (P, c) to different places of (size, c), zeros elsewhere. torch's own gradient of the way back adds rows up
    one by one, as if places could be the same.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, places: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(places)
        return x.new_zeros(size, *x.shape[1:]).index_copy_(0, places, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return grad.index_select(0, places), None, None


class _Pick(torch.autograd.Function):
    """Rows of (size, c) at different places, (P, c): `_Spread` the other way."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.size = len(x)  # type: ignore[attr-defined]
        return x.index_select(0, places)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors  # type: ignore[attr-defined]
        size: int = ctx.size  # type: ignore[attr-defined]
        return grad.new_zeros(size, *grad.shape[1:]).index_copy_(0, places, grad), None


def pick(x: Tensor, places: Tensor) -> Tensor:
    """Rows of x (N, ...) at `places` (P,), all different."""
    picked: Tensor = _Pick.apply(x, places)  # type: ignore[no-untyped-call]
    return picked


def _spread(x: Tensor, places: Tensor, size: int) -> Tensor:
    spread: Tensor = _Spread.apply(x, places, size)  # type: ignore[no-untyped-call]
    return spread


class Layout:
    """Where the positions of histories in blocks are among P, block after block and history after history.

    Parameters
    ----------
    blocks
        (n, T) bool each: what is there; False = padding
    padded
        padding is among the P positions too

    Examples
    --------
    >>> layout = Layout([torch.tensor([[False, True], [True, True]])])
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

    def blocks(self, x: Tensor) -> list[Tensor]:
        """Positions x (P, c) as blocks (n, T, c), zeros where none is."""
        parts = zip(torch.split(x, self._sizes), self._places, self.there, strict=True)
        return [
            (part if places is None else _spread(part, places, block.numel())).view(*block.shape, -1)
            for part, places, block in parts
        ]

    def numbers(self) -> list[Tensor]:
        """Which of the P positions is where, (n, T) each, -1 where none is."""
        places = torch.arange(1, sum(self._sizes) + 1, device=self.there[0].device)
        return [block[..., 0] - 1 for block in self.blocks(places[:, None])]

    def flat(self, blocks: Sequence[Tensor]) -> Tensor:
        """The positions (P, ...) of blocks (n, T, ...)."""
        rows = [
            block.flatten(0, 1) if places is None else pick(block.flatten(0, 1), places)
            for block, places in zip(blocks, self._places, strict=True)
        ]
        return rows[0] if len(rows) == 1 else torch.cat(rows)


__all__ = ["Layout", "pick"]
