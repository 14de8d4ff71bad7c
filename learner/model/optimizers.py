"""Optimizers whose state is plain tensors: Adam for the network, a row-wise Adam for the item table.

An ordinary Adam updates every row at every step, so its cost grows with the catalog. RowAdam reads and updates only the
rows of a step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam

BETAS = (0.9, 0.99)  # .99, not .999: on a stream gradients of last week say little about today's
EPSILON = 1e-8


class DenseAdam:
    """torch's fused Adam over a fixed list of parameters (Kingma and Ba, arXiv 1412.6980).

    Parameters
    ----------
    parameters
        Updated in place; their order is the order of the saved moments. They become views of one stretch of memory, so
        that a step is a handful of operations instead of a handful per parameter.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = list(parameters)
        self._steps = torch.zeros(())
        self._flat = torch.cat([p.detach().reshape(-1) for p in self.parameters])
        self._first, self._second = torch.zeros_like(self._flat), torch.zeros_like(self._flat)
        for parameter, piece in zip(self.parameters, self._pieces(self._flat), strict=True):
            parameter.data = piece
        self.first, self.second = self._pieces(self._first), self._pieces(self._second)

    def _pieces(self, flat: Tensor) -> list[Tensor]:
        sizes = [p.numel() for p in self.parameters]
        return [piece.view(p.shape) for piece, p in zip(torch.split(flat, sizes), self.parameters, strict=True)]

    def gradient(self, gradients: Sequence[Tensor | None]) -> Tensor:
        """The gradients as one vector, in the order of `parameters`; None is zero."""
        return torch.cat(
            [
                torch.zeros(p.numel()) if gradient is None else gradient.reshape(-1)
                for p, gradient in zip(self.parameters, gradients, strict=True)
            ]
        )

    @property
    def steps(self) -> int:
        """Steps since the moments were zero; they correct the moments' bias."""
        return int(self._steps)

    @steps.setter
    def steps(self, steps: int) -> None:
        self._steps.fill_(steps)

    @torch.no_grad()
    def step(self, gradient: Tensor, learning_rate: float) -> None:
        """Move every parameter along its part of `gradient`, a vector from `gradient()`."""
        adam(
            [self._flat],
            [gradient.contiguous()],  # the fused kernel reads a strided vector wrongly, without an error
            [self._first],
            [self._second],
            [],
            [self._steps],
            fused=True,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=learning_rate,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
        )


class RowAdam:
    """Adam over the rows of a table, one second moment and one step count per row.

    A row outside the step does not decay. One second moment per row (its mean squared gradient) instead of one per
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
