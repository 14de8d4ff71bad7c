"""Each loss beside a slow, obvious loop: values and gradients, float64, shapes drawn by hypothesis."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learner.model import losses
from learner.model.centers import IntentCenters
from learner.model.config import IntentConfig
from learner.model.ragged_batch import RaggedBatch
from tests.unit.learner.model.test_centers import slow_sinkhorn

shapes = st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**31))
few = settings(max_examples=25, deadline=None)


def make(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


def padding(B: int, T: int, seed: int) -> Tensor:
    """Right-aligned validity with at least one event per user."""
    length = torch.randint(1, T + 1, (B, 1), generator=torch.Generator().manual_seed(seed))
    return torch.arange(T)[None, :] >= T - length


def agree(fast: Callable[..., Tensor], slow: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Same value, same gradient for every input."""
    value, expected = fast(*inputs), slow(*inputs)
    assert value.item() == pytest.approx(expected.item(), rel=1e-9, abs=1e-9)
    gradients = torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)
    wanted = torch.autograd.grad(expected + 0 * sum(x.sum() for x in inputs), inputs)
    for gradient, want in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, want, rtol=1e-8, atol=1e-8)


def slow_bce(h: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    total = h.new_zeros(())
    for i in range(len(h)):
        taken = (h[i] * positive[i]).sum()
        other = (h[i] * negative[i]).sum()
        total = total - torch.log(1 / (1 + torch.exp(-taken))) - torch.log(1 - 1 / (1 + torch.exp(-other)))
    return total / len(h)


@few
@given(shapes)
def test_next_item_is_the_loop(shape: tuple[int, ...]) -> None:
    P, _, d, _, seed = shape
    agree(losses.next_item_bce, slow_bce, *(make(P, d, seed=seed + i) for i in range(3)))


def test_next_item_keeps_its_gradient_where_the_authors_lose_it() -> None:
    h = torch.tensor([[18.0]], requires_grad=True)
    loss = losses.next_item_bce(h, torch.zeros(1, 1), torch.ones(1, 1))
    (gradient,) = torch.autograd.grad(loss, h)
    assert loss.item() == pytest.approx(18 + math.log(2), abs=1e-4)
    assert gradient.item() == pytest.approx(1.0, abs=1e-6)


def slow_info_nce(one: Tensor, two: Tensor) -> Tensor:
    rows = [*one, *two]
    B = len(one)
    total = one.new_zeros(())
    for i, row in enumerate(rows):
        partner = rows[(i + B) % (2 * B)]
        others = torch.stack([torch.exp(row @ rows[j]) for j in range(2 * B) if j != i]).sum()
        total = total - torch.log(torch.exp(row @ partner) / others)
    return total / (2 * B)


def slow_scaled(rows: Tensor, temperature: float | None) -> Tensor:
    """Unit rows, so divided that their products are cosines over the temperature; None: as they are."""
    if temperature is None:
        return rows
    return torch.stack([row / row.square().sum().sqrt() for row in rows]) / math.sqrt(temperature)


temperatures = pytest.mark.parametrize("temperature", [None, 0.2])


@temperatures
@few
@given(shape=shapes)
def test_info_nce_is_the_loop(shape: tuple[int, ...], temperature: float | None) -> None:
    B, _, d, _, seed = shape

    def slow(one: Tensor, two: Tensor) -> Tensor:
        return slow_info_nce(slow_scaled(one, temperature), slow_scaled(two, temperature))

    agree(
        lambda one, two: losses.info_nce(one, two, temperature), slow, make(B, d, seed=seed), make(B, d, seed=seed + 1)
    )


def slow_fused(h: Tensor, valid: Tensor | None, centers: Tensor, fusion: losses.Fusion) -> Tensor:
    """(B, T * d) or (B, T * 2d), one position at a time."""
    rows = []
    for b in range(h.shape[0]):
        row = []
        for t in range(h.shape[1]):
            distance = [float((h[b, t] - c).square().sum().detach()) for c in centers]
            nearest = centers[distance.index(min(distance))]
            position = h[b, t] + nearest if fusion == "shift" else torch.cat([h[b, t], nearest])
            row.append(position if valid is None or valid[b, t] else torch.zeros_like(position))
        rows.append(torch.cat(row))
    return torch.stack(rows)


@temperatures
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("fusion", ["shift", "concat"])
@settings(max_examples=12, deadline=None)
@given(shape=shapes, lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5))
def test_sequence_contrast_is_the_loop(
    shape: tuple[int, ...], lengths: list[int], fusion: losses.Fusion, padded: bool, temperature: float | None
) -> None:
    """Users in blocks of `lengths`, beside one array with zeros for missing positions."""
    B, T, d, K, seed = shape
    parts = [min(length, T) for length in sorted(lengths, reverse=True)]  # each of B users
    parts[0] = T
    reach = torch.cat([torch.arange(T).expand(B, T) >= T - length for length in parts])  # (parts * B, T)
    total = len(reach)
    one, two = (padding(total, T, seed + i) if padded else torch.ones(total, T, dtype=torch.bool) for i in range(2))
    centers = torch.nn.functional.normalize(make(K, d, seed=seed + 2).detach(), dim=-1).requires_grad_()

    def checkpoint(*views: Tensor) -> list[Tensor]:
        """From the newest to the oldest positions, each time of those users who reach so far back."""
        ends = [0, *sorted(set(parts))]
        users = [sum(length >= far for length in parts) * B for far in ends[1:]]
        stacked = torch.stack(views)
        return [
            stacked[:, :n, T - far : T - near].flatten(0, 1)
            for n, far, near in zip(users, ends[1:], ends[:-1], strict=True)
        ]

    def fast(h_one: Tensor, h_two: Tensor, c: Tensor) -> Tensor:
        layout = RaggedBatch(checkpoint(one, two))
        return losses.sequence_contrast(layout.flat(checkpoint(h_one, h_two)), layout, c, fusion, temperature)

    def slow(h_one: Tensor, h_two: Tensor, c: Tensor) -> Tensor:
        views = (slow_fused(h_one, one & reach, c, fusion), slow_fused(h_two, two & reach, c, fusion))
        return slow_info_nce(*(slow_scaled(view, temperature) for view in views))

    agree(fast, slow, 0.3 * make(total, T, d, seed=seed + 3), 0.3 * make(total, T, d, seed=seed + 4), centers)


@temperatures
@few
@given(shape=shapes)
def test_intent_contrast_is_the_loop(shape: tuple[int, ...], temperature: float | None) -> None:
    B, _, d, K, seed = shape
    intent = torch.randint(K, (B,), generator=torch.Generator().manual_seed(seed))

    def slow(one: Tensor, two: Tensor, c: Tensor) -> Tensor:
        own = slow_scaled(torch.stack([c[i] for i in intent]), temperature)
        views = [slow_scaled(view, temperature) for view in (one, two)]
        return sum((slow_info_nce(view, own) for view in views), start=c.new_zeros(())) / 2

    inputs = (make(B, d, seed=seed), make(B, d, seed=seed + 1), make(K, d, seed=seed + 2))
    agree(lambda one, two, c: losses.intent_contrast(one, two, c, intent, temperature), slow, *inputs)


@pytest.mark.parametrize("include_self", [True, False])
@few
@given(shape=shapes)
def test_cluster_loss_is_the_loop_over_all_pairs(shape: tuple[int, ...], include_self: bool) -> None:
    B, _, d, K, seed = shape

    def slow(h: Tensor, c: Tensor) -> Tensor:
        pull = sum((h[i] - c[j]).square().sum() for i in range(B) for j in range(K)) / (B * K)
        pairs = [(c[i] - c[j]).square().sum() for i in range(K) for j in range(K) if include_self or i != j]
        return pull - sum(pairs, start=c.new_zeros(())) / max(len(pairs), 1)

    agree(
        lambda h, c: losses.cluster_loss(h, c, include_self=include_self),
        slow,
        *(make(n, d, seed=seed + n) for n in (B, K)),
    )


def test_cluster_loss_sees_centers_only_through_their_mean() -> None:
    """Finding 1: two very different sets of unit centers with the same mean are the same to it."""
    h = torch.nn.functional.normalize(make(7, 2, seed=0), dim=-1)
    cross = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64)
    pair = torch.tensor([[1.0, 0], [-1, 0], [1, 0], [-1, 0]], dtype=torch.float64)
    assert losses.cluster_loss(h, cross).item() == pytest.approx(losses.cluster_loss(h, pair).item())


@few
@given(shapes)
def test_mean_pool_is_the_loop(shape: tuple[int, ...]) -> None:
    B, T, d, _, seed = shape
    h, valid = make(B, T, d, seed=seed), padding(B, T, seed)

    def slow(h: Tensor) -> Tensor:
        means = [sum(h[b, t] for t in range(T) if valid[b, t]) / sum(valid[b].tolist()) for b in range(B)]
        return torch.stack([mean**3 for mean in means]).sum()

    agree(lambda h: (losses.masked_mean(h, valid) ** 3).sum(), slow, h)
    agree(lambda h: (losses.masked_mean(h, None) ** 3).sum(), lambda h: (h.sum(1) / T).pow(3).sum(), h)


def soft_targets(P: int, M: int, J: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.stack([torch.randperm(M, generator=generator)[:J] for _ in range(P)])
    weight = torch.rand(P, target.shape[1], generator=generator, dtype=torch.float64) + 0.1
    return target, weight / weight.sum(1, keepdim=True)


@few
@given(shapes)
def test_full_softmax_is_the_loop_for_any_chunk(shape: tuple[int, ...]) -> None:
    P, M, d, chunk, seed = shape
    target, weight = soft_targets(P, M, 2, seed)

    def slow(h: Tensor, table: Tensor) -> Tensor:
        total = h.new_zeros(())
        for i in range(P):
            p = torch.exp(h[i] @ table.T) / torch.exp(h[i] @ table.T).sum()
            total = total - sum(w * torch.log(p[y]) for y, w in zip(target[i], weight[i], strict=True))
        return total / P

    agree(
        lambda h, table: losses.full_softmax(h, table, target, weight, chunk=chunk),
        slow,
        make(P, d, seed=seed),
        make(M, d, seed=seed + 1),
    )


def test_full_softmax_survives_huge_scores() -> None:
    h = torch.tensor([[1000.0]], requires_grad=True)
    table = torch.tensor([[1.0], [2.0]])
    loss = losses.full_softmax(h, table, torch.tensor([[0]]), torch.ones(1, 1))
    assert loss.item() == pytest.approx(1000.0)


def test_half_precision_is_near() -> None:
    h, table = make(40, 16, seed=0).float(), make(90, 16, seed=1).float()
    target, weight = soft_targets(40, 90, 3, 0)
    exact = losses.full_softmax(h, table, target, weight)
    short = losses.full_softmax(h, table, target, weight, bfloat16=True)
    assert short.item() == pytest.approx(exact.item(), rel=5e-3)
    for one, two in zip(torch.autograd.grad(exact, (h, table)), torch.autograd.grad(short, (h, table)), strict=True):
        assert (one - two).norm() / one.norm() < 0.02


@pytest.mark.parametrize("again", [False, True])
@few
@given(shape=shapes)
def test_sampled_softmax_is_the_loop(shape: tuple[int, ...], again: bool) -> None:
    P, M, d, S, seed = shape
    target, weight = soft_targets(P, M, 2, seed)
    if again:  # the same item twice within the horizon
        target = target[:, [0, -1, 0]]
        weight = weight[:, [0, -1, 0]] / weight[:, [0, -1, 0]].sum(1, keepdim=True)
    generator = torch.Generator().manual_seed(seed + 5)
    negatives = torch.randint(M, (S,), generator=generator)
    log_q = torch.rand(M, generator=generator, dtype=torch.float64)

    def slow(h: Tensor, table: Tensor) -> Tensor:
        total = h.new_zeros(())
        for i in range(P):
            rivals = sum((torch.exp(h[i] @ table[y]) for y in sorted(set(target[i].tolist()))), start=h.new_zeros(()))
            for n in negatives:
                if n not in target[i]:
                    rivals = rivals + torch.exp(h[i] @ table[n] - log_q[n])
            total = total + sum(
                w * (torch.log(rivals) - h[i] @ table[y]) for y, w in zip(target[i], weight[i], strict=True)
            )
        return total / P

    agree(
        lambda h, table: losses.sampled_softmax(h, table, target, weight, negatives, log_q),
        slow,
        make(P, d, seed=seed),
        make(M, d, seed=seed + 1),
    )


def test_sampled_softmax_tends_to_the_full_one() -> None:
    """With logQ, many draws from an uneven proposal give the full softmax's loss."""
    h, table = make(3, 4, seed=0), make(20, 4, seed=1)
    target, weight = soft_targets(3, 20, 1, 0)
    chance = torch.arange(1.0, 21, dtype=torch.float64) / 210
    draws = 200_000
    negatives = torch.multinomial(chance, draws, replacement=True, generator=torch.Generator().manual_seed(0))
    sampled = losses.sampled_softmax(h, table, target, weight, negatives, (chance * draws).log())
    assert sampled.item() == pytest.approx(losses.full_softmax(h, table, target, weight).item(), rel=0.01)


@few
@given(shapes, st.floats(0, 0.9), st.integers(1, 4))
def test_future_targets_are_the_loop(shape: tuple[int, ...], fade: float, horizon: int) -> None:
    B, T, _, _, seed = shape
    targets = torch.randint(1, 9, (B, T), generator=torch.Generator().manual_seed(seed)) * padding(B, T, seed)
    ahead, weight = losses.future_targets(targets, fade, horizon)
    row = 0
    for b in range(B):
        for t in range(T):
            if targets[b, t] == 0:
                continue
            wanted = [int(y) for y in targets[b, t : t + horizon]] if fade > 0 else [int(targets[b, t])]
            share = [fade**j for j in range(len(wanted))]
            assert ahead[row][: len(wanted)].tolist() == wanted
            torch.testing.assert_close(weight[row][: len(wanted)], torch.tensor(share) / sum(share))
            assert weight[row][len(wanted) :].sum() == 0
            row += 1
    assert row == len(ahead)


@few
@given(shapes, st.booleans())
def test_balanced_loss_is_the_loop(shape: tuple[int, ...], held: bool) -> None:
    """Targets of the sequence, over batch and queue, held still; cross-entropy of it and of each view."""
    B, Q, d, K, seed = shape
    made = IntentCenters(IntentConfig(count=K, queue=Q, stop_gradient=held), d).double()
    made.remember(make(Q, d, seed=seed + 4).detach())

    def unit(rows: Tensor) -> list[Tensor]:
        return [row / row.square().sum().sqrt() for row in rows]

    def slow(h: Tensor, view: Tensor, c: Tensor) -> Tensor:
        centers = unit(c)
        everyone = [*unit(h.detach()), *made.queue]
        cosines = torch.stack([torch.stack([u @ k for k in centers]) for u in everyone]).detach()
        plan = slow_sinkhorn(cosines, made.config.epsilon, made.config.rounds)
        total = h.new_zeros(())
        for seen in (h, view):
            for b, u in enumerate(unit(seen.detach() if held else seen)):
                e = [torch.exp(u @ k / made.config.temperature) for k in centers]
                total = total - sum(plan[b, k] * torch.log(e[k] / sum(e)) for k in range(K))
        return total / (2 * B)

    made.weight.data.copy_(make(K, d, seed=seed))
    inputs = make(B, d, seed=seed + 1), make(B, d, seed=seed + 2), made.weight
    agree(lambda h, view, _: made.balanced_loss(h, view), slow, *inputs)
