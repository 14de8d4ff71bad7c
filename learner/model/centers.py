"""K learnable intent centers on the unit sphere, and a loss that keeps all of them in use.

The paper's clustering loss (`losses.cluster_loss`) depends on the centers only through their mean, so it cannot
separate them. The balanced form here assigns users to centers so that every center gets its share, and pulls both
together.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from learner.model.config import IntentConfig

SEEN_ITEMS: Final = 8  # newest items of a history from which centers learn on a stream


class Nearest(NamedTuple):
    """The nearest center of each user, every field (B,)."""

    intent: Tensor
    """int64, the nearest center"""
    distance: Tensor
    """squared distance of unit vectors to it, 0 to 4"""


@torch.no_grad()
def sinkhorn(similarity: Tensor, epsilon: float, rounds: int) -> Tensor:
    """Soft assignments that share the users evenly over the centers (Sinkhorn-Knopp; Cuturi, arXiv 1306.0895).

    Parameters
    ----------
    similarity
        (n, K) cosines
    epsilon
        lower: harder assignments
    rounds
        alternations; the last one normalizes users, so each row sums to 1 and columns are near n / K

    Returns
    -------
    (n, K)
    """
    n, K = similarity.shape
    kernel = torch.exp((similarity - similarity.amax(dim=1, keepdim=True)) / epsilon)  # (n, K), rows peak at 1
    user = torch.ones(n, dtype=kernel.dtype, device=kernel.device)  # (n,)
    for _ in range(rounds):
        center = (n / K) / (kernel.T @ user).clamp(min=1e-30)  # (K,)
        user = 1 / (kernel @ center).clamp(min=1e-30)  # (n,)
    return kernel * center * user[:, None]


def interests(table: Tensor, rows: Tensor, half_life: float) -> Tensor:
    """Unit mean of the unit vectors of a user's newest items, older ones with less weight.

    Parameters
    ----------
    table
        (N, d) item vectors, row 0 padding
    rows
        (B, L) rows of the histories, newest last, 0 = none
    half_life
        items after which one weighs half

    Returns
    -------
    (B, d), zeros without an item among the newest `SEEN_ITEMS`
    """
    newest = rows[:, -SEEN_ITEMS:]
    age = torch.arange(newest.shape[1] - 1, -1, -1, dtype=table.dtype)
    weight = torch.where(newest > 0, 0.5 ** (age / half_life), 0.0)  # (B, <=8)
    return F.normalize((F.normalize(table[newest], dim=-1) * weight[..., None]).sum(1), dim=-1)


def effective_number(counts: Tensor) -> float:
    """exp(entropy) of users over intents: K when all are used evenly, 1 when one has all users.

    >>> round(effective_number(torch.tensor([5, 5, 0, 0])), 6)
    2.0
    """
    total = counts.sum()
    if total == 0:
        return 0.0
    share = counts.double() / total
    return float(torch.exp(-torch.xlogy(share, share).sum()))


class IntentCenters(nn.Module):
    """K intent centers: a parameter read through `unit()`, so that it always lies on the unit sphere.

    The authors overwrite the parameter with its normalized value before every step, hidden from autograd and Adam;
    normalizing on reading gives the same place and the right gradient.

    Examples
    --------
    >>> centers = IntentCenters(IntentConfig(count=2, queue=0), hidden=2)
    >>> _ = centers.weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    >>> centers.nearest(torch.tensor([[0.1, 0.9]])).intent.tolist()
    [1]
    """

    queue: Tensor
    queue_state: Tensor

    def __init__(self, config: IntentConfig, hidden: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        start = torch.empty(config.count, hidden).normal_(generator=generator)
        self.weight = nn.Parameter(F.normalize(start, dim=-1))  # (K, d)
        self.register_buffer("queue", torch.zeros(config.queue, hidden))  # latest unit user vectors
        self.register_buffer("queue_state", torch.zeros(2, dtype=torch.int64))  # filled, next place to write

    def unit(self) -> Tensor:
        """The centers as unit vectors, (K, d)."""
        return F.normalize(self.weight, dim=-1)

    @torch.no_grad()
    def start_from(self, centers: Tensor) -> None:
        """Place the centers, (K, d), for example at the result of `kmeans`."""
        self.weight.copy_(F.normalize(centers, dim=-1))

    @torch.no_grad()
    def nearest(self, h: Tensor) -> Nearest:
        """The nearest center of h (B, d), any length."""
        best, index = (F.normalize(h, dim=-1) @ self.unit().T).max(dim=-1)  # (B,)
        return Nearest(index, (2 - 2 * best).clamp(min=0))

    @torch.no_grad()
    def targets(self, h: Tensor) -> Tensor:
        """Balanced soft assignments of h (B, d) over the batch and the queue, (B, K). Changes nothing."""
        unit = F.normalize(h, dim=-1)
        others = self.queue[: int(self.queue_state[0])].to(unit.dtype)  # (<=Q, d)
        similarity = torch.cat([unit, others]) @ self.unit().T  # (B + <=Q, K)
        return sinkhorn(similarity, self.config.epsilon, self.config.rounds)[: len(h)]

    @torch.no_grad()
    def remember(self, h: Tensor) -> None:
        """Put h (B, d) into the queue, over the oldest."""
        size = len(self.queue)
        if size == 0:
            return
        unit = F.normalize(h[-size:], dim=-1)
        filled, start = self.queue_state.tolist()
        place = (start + torch.arange(len(unit), device=unit.device)) % size
        self.queue[place] = unit.to(self.queue.dtype)
        self.queue_state.copy_(torch.tensor([min(filled + len(unit), size), (start + len(unit)) % size]))

    def balanced_loss(self, h: Tensor, *views: Tensor) -> Tensor:
        """Cross-entropy of balanced targets from h (B, d) and, where given, from its views (B, d), ().

        After Caron et al., arXiv 2006.09882 (swapped prediction). Targets come from h alone and carry no gradient.
        The caller calls `remember(h)` after the optimizer step, so that this stays pure.
        """
        targets = self.targets(h)  # (B, K)
        centers = self.unit()
        losses = []
        for view in (h, *views):
            unit = F.normalize(view.detach() if self.config.stop_gradient else view, dim=-1)
            losses.append(-(targets * F.log_softmax(unit @ centers.T / self.config.temperature, dim=-1)).sum(-1).mean())
        return torch.stack(losses).mean()


@torch.no_grad()
def kmeans(points: Tensor, count: int, generator: torch.Generator, rounds: int = 20) -> Tensor:
    """Spherical k-means of unit vectors.

    Parameters
    ----------
    points
        (n, d)
    count
        K; with fewer points than centers some points serve twice
    generator
        draws the first centers among the points; and a new place for an empty center
    rounds
        Lloyd iterations

    Returns
    -------
    (K, d) unit vectors
    """
    points = F.normalize(points, dim=-1)
    n = len(points)
    pick = torch.randperm(n, generator=generator)[:count]
    if len(pick) < count:
        pick = torch.cat([pick, torch.randint(n, (count - len(pick),), generator=generator)])
    centers = points[pick]  # (K, d)
    for _ in range(rounds):
        nearest = torch.cat([(part @ centers.T).argmax(-1) for part in torch.split(points, 8192)])  # (n,)
        total = torch.zeros_like(centers).index_add_(0, nearest, points)
        empty = torch.bincount(nearest, minlength=count) == 0
        if empty.any():
            total[empty] = points[torch.randint(n, (int(empty.sum()),), generator=generator)]
        centers = F.normalize(total, dim=-1)
    return centers
