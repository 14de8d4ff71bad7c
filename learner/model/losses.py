"""The losses of ELCRec (arXiv 2401.05975), and the softmax losses that replace its next-item loss.

All are pure functions of tensors. Shapes: B users, T positions, P valid positions of a batch, d hidden size, K intents,
M rows of the item table that are scored. Each is tested against a slow loop in
`tests/unit/learner/model/test_losses.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from learner.model.ragged_batch import RaggedBatch

Fusion = Literal["shift", "concat"]


def masked_mean(h: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of h (B, T, d) over valid positions (B, T), (B, d); `valid` None: over all of them. No valid one: zeros."""
    if valid is None:
        return h.mean(dim=1)
    weight = valid.to(h.dtype)  # (B, T)
    return (h * weight[..., None]).sum(1) / weight.sum(1, keepdim=True).clamp(min=1)


def next_item_bce(h: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """`L_next`: binary cross-entropy with one sampled negative per position, ().

    Parameters
    ----------
    h, positive, negative
        (P, d) outputs at valid positions, vectors of the items taken there, vectors of items not taken

    Notes
    -----
    The authors' `-log(1 - sigmoid(x) + 1e-24)` has no gradient above x = 17; `logsigmoid` has, and is the same loss.
    """
    taken = (h * positive).sum(-1)  # (P,)
    other = (h * negative).sum(-1)  # (P,)
    return -(F.logsigmoid(taken) + F.logsigmoid(-other)).mean()


class _InfoNCE(torch.autograd.Function):
    """InfoNCE of pairs of vectors in stretches (2, n, m): the first of all pairs, each other of the first n pairs.

    Missing stretches count as zero, so two rows are multiplied only where both have a stretch. One product gives the
    gradient.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, *stretches: Tensor) -> Tensor:
        B = stretches[0].shape[1]
        scores, *others = [x @ x.T for x in (part.flatten(0, 1) for part in stretches)]  # (2n, 2n) each
        for n, more in zip([part.shape[1] for part in stretches[1:]], others, strict=True):
            scores.view(2, B, 2, B)[:, :n, :, :n] += more.view(2, n, 2, n)
        rows = torch.arange(2 * B, device=scores.device)
        partner = rows.roll(B)  # (2B,)
        scores.fill_diagonal_(float("-inf"))
        by_score = scores.softmax(1)
        loss = (scores.amax(1) - by_score.amax(1).log() - scores[rows, partner]).mean()
        by_score[rows, partner] -= 1
        ctx.save_for_backward(by_score.T.contiguous().add_(by_score).div_(2 * B), *stretches)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, ...]:
        by_score, *stretches = ctx.saved_tensors  # type: ignore[attr-defined]
        B = len(by_score) // 2
        by_pair = (by_score * grad).view(2, B, 2, B)
        return tuple(
            (by_pair[:, :n, :, :n].reshape(2 * n, 2 * n) @ part.flatten(0, 1)).view_as(part)
            for n, part in ((part.shape[1], part) for part in stretches)
        )


def _contrast(stretches: Sequence[Tensor], temperature: float | None) -> Tensor:
    """InfoNCE of stretches (2, n, m) by dot product, as in the paper, or by cosine over a temperature, ()."""
    if temperature is not None:
        B = stretches[0].shape[1]
        squares = [F.pad(part.square().sum(-1), (0, B - part.shape[1])) for part in stretches]  # (2, B) each
        length = torch.stack(squares).sum(0).clamp(min=1e-24).sqrt()  # (2, B)
        root = temperature**0.5
        stretches = [part / (root * length[:, : part.shape[1], None]) for part in stretches]
    loss: Tensor = _InfoNCE.apply(*stretches)  # type: ignore[no-untyped-call]
    return loss


def info_nce(one: Tensor, two: Tensor, temperature: float | None = None) -> Tensor:
    """InfoNCE between paired rows of one and two (B, D), ().

    Each of the 2B rows must find its partner among all 2B - 1 others. The loss of a single pair is 0.
    `temperature`: of cosines; None: dot products at temperature 1, as in the paper.
    """
    return _contrast([torch.stack([one, two])], temperature)


def fuse(h: Tensor, centers: Tensor, fusion: Fusion) -> Tensor:
    """Join each of h (P, d) with its nearest center: the sum (P, d), or both side by side (P, 2d)."""
    score = h @ centers.T - centers.square().sum(-1) / 2  # (P, K), highest where the distance is least
    nearest = centers[score.argmax(-1)]  # (P, d)
    return h + nearest if fusion == "shift" else torch.cat([h, nearest], dim=-1)


def sequence_contrast(
    views: Tensor, layout: RaggedBatch, centers: Tensor, fusion: Fusion, temperature: float | None = None
) -> Tensor:
    """`L_seq`: InfoNCE between two views of each sequence, fused with their intents and flattened, ().

    Parameters
    ----------
    views
        (P, d) outputs of the encoder
    layout
        their blocks (2n, T): n sequences in one view, then in the other. The first block has the newest positions of
        all sequences, each further block those before, of the first n, which are long enough. Missing positions count
        as zero; the authors' code counts padding too.
    centers
        (K, d) unit vectors
    fusion
        `shift` adds the nearest center, `concat` appends it
    temperature
        of cosines; None: dot products at temperature 1, as in the paper
    """
    blocks = layout.blocks(fuse(views, centers, fusion))
    return _contrast([block.view(2, len(block) // 2, -1) for block in blocks], temperature)


def intent_contrast(
    one: Tensor, two: Tensor, centers: Tensor, intent: Tensor, temperature: float | None = None
) -> Tensor:
    """`L_intent`: InfoNCE of each pooled view (B, d) against its user's center, averaged over the two views, ().

    `intent` (B,): index of the center nearest to the unaugmented sequence. `temperature`: as for `info_nce`.
    """
    own = centers[intent]  # (B, d)
    return (info_nce(one, own, temperature) + info_nce(two, own, temperature)) / 2


def cluster_loss(h: Tensor, centers: Tensor, *, include_self: bool = False) -> Tensor:
    """`L_cluster`: mean |h_i - c_j|^2 over all pairs minus mean |c_i - c_j|^2 over i != j, ().

    h (B, d) and centers (K, d) are unit vectors in the paper; the identity used here does not need that. It costs
    (B + K) d instead of B K d for the pairs, and shows that the loss depends on the centers' mean only.
    `include_self`: the second mean runs over i = j too, as in the authors' code, which scales it by (K - 1) / K.
    """
    K = len(centers)
    h_mean, c_mean = h.mean(0), centers.mean(0)  # (d,)
    h_square, c_square = h.square().sum(-1).mean(), centers.square().sum(-1).mean()  # ()
    pull = h_square + c_square - 2 * h_mean @ c_mean
    push = 2 * c_square - 2 * c_mean @ c_mean
    if not include_self:
        push = push * (K / (K - 1)) if K > 1 else push * 0
    return pull - push


class _FullSoftmax(torch.autograd.Function):
    """Cross-entropy over the whole table in chunks: scores (P, M) never exist at once, gradients come with the loss.

    A chunk of scores stays in the cache between its two products, and its exponentials overwrite it.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, h: Tensor, table: Tensor, target: Tensor, weight: Tensor, chunk: int, bfloat16: bool
    ) -> Tensor:
        P, M = len(h), len(table)
        grad_h, grad_table = torch.empty_like(h), torch.zeros_like(table)
        rows = table.bfloat16() if bfloat16 else table  # (M, d)
        scores = h.new_empty(min(chunk, P), M)
        loss = h.new_zeros(())
        for start in range(0, P, chunk):
            part = h[start : start + chunk]  # (n, d)
            p = scores[: len(part)]  # (n, M)
            if bfloat16:
                low = part.bfloat16() @ rows.T
                p.copy_(low)
            else:
                torch.mm(part, rows.T, out=p)
            top = p.amax(1, keepdim=True)
            total = p.sub_(top).exp_().sum(1, keepdim=True)  # (n, 1)
            loss += (total.log() + top).sum()
            if bfloat16:
                low.copy_(p)
                grad_h[start : start + chunk] = (low @ rows).to(h.dtype) / total
                grad_table += (low.T @ (part / total).bfloat16()).to(h.dtype)
            else:
                torch.mm(p, rows, out=grad_h[start : start + chunk])
                grad_h[start : start + chunk] /= total
                grad_table.addmm_(p.T, part / total)
        own = (table[target] * weight[..., None]).sum(1)  # (P, d)
        loss -= (h * own).sum()
        grad_h -= own
        grad_table.index_add_(0, target.flatten(), (h[:, None] * weight[..., None]).flatten(0, 1), alpha=-1)
        ctx.save_for_backward(grad_h / P, grad_table / P)
        return loss / P

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        grad_h, grad_table = ctx.saved_tensors  # type: ignore[attr-defined]
        return grad_h * grad, grad_table * grad, None, None, None, None


def future_targets(targets: Tensor, fade: float, horizon: int) -> tuple[Tensor, Tensor]:
    """Each position's next `horizon` items and how much each counts.

    The order within a day is arbitrary in these data, so the items soon after say nearly as much as the next one.

    Parameters
    ----------
    targets
        (B, T) the item after each position, right-aligned, 0 = none
    fade
        weight of an item relative to the one before it; 0: the next item alone
    horizon
        J, most items ahead

    Returns
    -------
    (P, J) item rows, 0 = none, and (P, J) weights that sum to 1, for the P positions that have a target
    """
    T = targets.shape[1]
    J = min(horizon, T) if fade > 0 else 1
    wanted = targets > 0
    ahead = torch.stack([F.pad(targets[:, j:], (0, j)) for j in range(J)], dim=-1)[wanted]  # (P, J)
    weight = (ahead > 0) * fade ** torch.arange(J, device=targets.device)  # (P, J)
    return ahead, weight / weight.sum(1, keepdim=True)


def full_softmax(
    h: Tensor, table: Tensor, target: Tensor, weight: Tensor, *, bfloat16: bool = False, chunk: int | None = None
) -> Tensor:
    """Mean cross-entropy of the items taken among all M rows, ().

    Parameters
    ----------
    h
        (P, d) outputs, already divided by the temperature
    table
        (M, d) vectors of all items
    target, weight
        (P, J) rows in `table` of the items taken and how much each counts; weights of a position sum to 1
    bfloat16
        compute the three products in bfloat16: over twice as fast where the processor has it, scores within 0.4%
    chunk
        positions per piece; None: 256 on a processor, where 256 x 12,101 scores fit a cache of 16 MB, 4096 elsewhere
    """
    piece = chunk or (256 if h.device.type == "cpu" else 4096)
    loss: Tensor = _FullSoftmax.apply(h, table, target, weight.to(h.dtype), piece, bfloat16)  # type: ignore[no-untyped-call]
    return loss


def sampled_softmax(
    h: Tensor, table: Tensor, target: Tensor, weight: Tensor, negatives: Tensor, log_q: Tensor
) -> Tensor:
    """Cross-entropy among the items taken and shared negatives, corrected for how often each is drawn, ().

    Parameters
    ----------
    h
        (P, d) outputs, already divided by the temperature
    table
        (M, d) vectors of all items
    target, weight
        (P, J) rows of the items taken and how much each counts; weights of a position sum to 1
    negatives
        (S,) rows drawn with replacement from the proposal q
    log_q
        (M,) log of the expected count of each row in a draw of S, log(S q), subtracted from its score (logQ
        correction; Bengio and Senecal, 2008), so that the expected gradient is close to the full softmax's

    Notes
    -----
    A negative that is a target of a row is left out of that row. The targets' own scores are not corrected. An item
    that appears twice within the horizon competes once.
    """
    weight = weight.to(h.dtype)
    own = (table[target] @ h[:, :, None])[..., 0]  # (P, J)
    scores = h @ table[negatives].T - log_q[negatives]  # (P, S)
    counted = weight > 0
    for j in range(target.shape[1]):
        scores = scores.masked_fill(counted[:, j : j + 1] & (negatives == target[:, j : j + 1]), float("-inf"))
    same = (target[:, :, None] == target[:, None, :]) & counted[:, None, :]  # (P, J, J)
    first = counted & ~same.tril(-1).any(-1)  # (P, J)
    every = torch.cat([own.masked_fill(~first, float("-inf")), scores], dim=1)  # (P, J + S)
    return (torch.logsumexp(every, dim=1) - (own * weight).sum(1)).mean()
