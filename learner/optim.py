"""Optimizers whose state is plain tensors: Adam for the network, a row-wise Adam for the item table.

An ordinary Adam touches every row at every step, so a step gets dearer as the catalogue grows. Here a step costs what
the rows it was given cost; the others are not even read.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BETAS = (0.9, 0.99)  # .99, not .999: on a stream gradients of last week say little about today's
EPSILON = 1e-8


class DenseAdam:
    """Adam over a fixed list of parameters (Kingma and Ba, arXiv 1412.6980).

    Parameters
    ----------
    parameters
        Updated in place; their order is the order of the saved moments.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = list(parameters)
        self.steps = 0
        self.first = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]
        self.second = [torch.zeros_like(p, requires_grad=False) for p in self.parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], learning_rate: float) -> None:
        """Move every parameter along its gradient, in the order of `parameters`."""
        self.steps += 1
        slow, fast = 1 - BETAS[0] ** self.steps, 1 - BETAS[1] ** self.steps
        grads = list(gradients)
        torch._foreach_lerp_(self.first, grads, 1 - BETAS[0])
        torch._foreach_mul_(self.second, BETAS[1])
        torch._foreach_addcmul_(self.second, grads, grads, 1 - BETAS[1])
        scale = torch._foreach_div(self.second, fast)  # noqa: SLF001 - as torch.optim itself does it
        torch._foreach_sqrt_(scale)
        torch._foreach_add_(scale, EPSILON)
        torch._foreach_addcdiv_(self.parameters, self.first, scale, -learning_rate / slow)


class RowAdam:
    """Adam over the rows of a table, one second moment and one step count per row.

    A row that is not touched does not decay. One second moment per row (its mean squared gradient) instead of one per
    number: rows are seen too rarely for a reliable scale of each coordinate, and it saves a third of the memory.

    Parameters
    ----------
    rows, hidden
        Shape (N, d) of the table.
    """

    def __init__(self, rows: int, hidden: int) -> None:
        self.first = torch.zeros(rows, hidden)
        self.second = torch.zeros(rows)
        self.steps = torch.zeros(rows)

    def grow(self, rows: int) -> None:
        """Make room for `rows` rows."""
        more = rows - len(self.second)
        self.first = torch.cat([self.first, torch.zeros(more, self.first.shape[1])])
        self.second = torch.cat([self.second, torch.zeros(more)])
        self.steps = torch.cat([self.steps, torch.zeros(more)])

    @torch.no_grad()
    def clear(self, rows: Tensor) -> None:
        """Forget the moments of rows (m,) that now belong to another item."""
        self.first[rows] = 0
        self.second[rows] = 0
        self.steps[rows] = 0

    @torch.no_grad()
    def step(self, table: Tensor, rows: Tensor | slice, gradient: Tensor, learning_rate: float) -> None:
        """Move `rows` of the table (distinct ones, or a slice) along their gradient (m, d)."""
        steps = self.steps[rows] + 1  # (m,)
        first = torch.lerp(self.first[rows], gradient, 1 - BETAS[0])  # (m, d)
        second = torch.lerp(self.second[rows], gradient.square().mean(-1), 1 - BETAS[1])  # (m,)
        scale = (second / (1 - BETAS[1] ** steps)).sqrt_().add_(EPSILON).mul_(1 - BETAS[0] ** steps)
        self.steps[rows] = steps
        self.first[rows] = first
        self.second[rows] = second
        table[rows] = table[rows].addcdiv_(first, scale[:, None], value=-learning_rate)


__all__ = ["DenseAdam", "RowAdam"]
