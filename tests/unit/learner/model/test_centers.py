from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from learner.model.centers import IntentCenters, effective_number, kmeans, sinkhorn
from learner.model.config import IntentConfig


def normalized_mutual_information(a: torch.Tensor, b: torch.Tensor) -> float:
    """2 I(a; b) / (H(a) + H(b))."""
    joint = torch.zeros(int(a.max()) + 1, int(b.max()) + 1, dtype=torch.float64)
    joint.index_put_((a, b), torch.ones(len(a), dtype=torch.float64), accumulate=True)
    joint /= len(a)
    rows, columns = joint.sum(1), joint.sum(0)
    entropy = [-torch.xlogy(p, p).sum() for p in (rows, columns, joint)]
    return float(2 * (entropy[0] + entropy[1] - entropy[2]) / (entropy[0] + entropy[1]))


def mixture(groups: int, per_group: int, spread: float, d: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors around `groups` random directions, and the group of each, shuffled."""
    generator = torch.Generator().manual_seed(4)
    means = F.normalize(torch.randn(groups, d, generator=generator), dim=-1)
    truth = torch.arange(groups).repeat_interleave(per_group)[torch.randperm(groups * per_group, generator=generator)]
    points = means[truth] + spread * torch.randn(len(truth), d, generator=generator) / d**0.5
    return F.normalize(points, dim=-1), truth


def slow_sinkhorn(similarity: torch.Tensor, epsilon: float, rounds: int) -> torch.Tensor:
    """Rows peak at 1; divide columns, then rows, again and again, on the matrix itself."""
    n, K = similarity.shape
    plan = torch.exp((similarity - similarity.amax(1, keepdim=True)) / epsilon)
    for _ in range(rounds):
        for k in range(K):
            plan[:, k] *= (n / K) / plan[:, k].sum()
        for i in range(n):
            plan[i] /= plan[i].sum()
    return plan


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 7), st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**31))
def test_sinkhorn_is_the_loop(n: int, K: int, rounds: int, seed: int) -> None:
    similarity = torch.rand(n, K, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    fast = sinkhorn(similarity, 0.1, rounds)
    torch.testing.assert_close(fast, slow_sinkhorn(similarity, 0.1, rounds))
    torch.testing.assert_close(fast.sum(1), torch.ones(n, dtype=torch.float64))


def test_sinkhorn_balances_what_argmax_would_not() -> None:
    similarity = torch.rand(200, 4, generator=torch.Generator().manual_seed(0)) * 0.2
    similarity[:, 0] += 0.3  # everyone is nearest to center 0
    plan = sinkhorn(similarity, 0.05, 50)
    torch.testing.assert_close(plan.sum(0), torch.full((4,), 50.0), rtol=0.05, atol=0.1)


def test_nearest_agrees_with_distances() -> None:
    centers = IntentCenters(IntentConfig(count=5, queue=0), 3, torch.Generator().manual_seed(0))
    h = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
    distance = torch.cdist(F.normalize(h, dim=-1), centers.unit().detach()).square()
    near = centers.nearest(h)
    assert torch.equal(near.intent, distance.argmin(dim=1))
    torch.testing.assert_close(near.distance, distance.amin(1), atol=1e-5, rtol=1e-4)


def test_the_queue_keeps_the_newest() -> None:
    centers = IntentCenters(IntentConfig(count=2, queue=4), 2, torch.Generator().manual_seed(0))
    users = F.normalize(torch.randn(7, 2, generator=torch.Generator().manual_seed(1)), dim=-1)
    for part in users.split(3):  # type: ignore[no-untyped-call]
        centers.remember(part)
    kept = sorted(centers.queue.tolist())
    torch.testing.assert_close(torch.tensor(kept), torch.tensor(sorted(users[3:].tolist())))
    assert int(centers.queue_state[0]) == 4


def test_balanced_loss_is_pure_and_can_stop_the_encoders_gradient() -> None:
    h = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for stop in (False, True):
        centers = IntentCenters(IntentConfig(count=3, queue=8, stop_gradient=stop), 4, torch.Generator().manual_seed(0))
        state = {name: value.clone() for name, value in centers.state_dict().items()}
        loss = centers.balanced_loss(h, 2 * h)
        to_h, to_centers = torch.autograd.grad(loss, (h, centers.weight), allow_unused=True, materialize_grads=True)
        assert (to_h.abs().sum() == 0) == stop
        assert to_centers.abs().sum() > 0
        assert all(torch.equal(state[name], value) for name, value in centers.state_dict().items())


def test_balanced_loss_finds_a_known_mixture() -> None:
    """From random centers, never seeing the groups: normalized mutual information at least .8, no center unused."""
    points, truth = mixture(groups=12, per_group=150, spread=0.6)
    generator = torch.Generator().manual_seed(0)
    centers = IntentCenters(IntentConfig(count=12, queue=512, temperature=0.1), points.shape[1], generator)
    optimizer = torch.optim.Adam(centers.parameters(), lr=0.02)
    for _ in range(12):
        for part in torch.split(points[torch.randperm(len(points), generator=generator)], 128):
            optimizer.zero_grad()
            centers.balanced_loss(part).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            centers.remember(part)
    found = centers.nearest(points).intent
    assert normalized_mutual_information(truth, found) >= 0.8
    assert effective_number(torch.bincount(found, minlength=12)) >= 0.5 * 12


def test_kmeans_finds_a_known_mixture_and_leaves_no_center_empty() -> None:
    points, truth = mixture(groups=8, per_group=100, spread=0.4)
    centers = kmeans(points, 16, torch.Generator().manual_seed(0))
    found = (points @ centers.T).argmax(1)
    assert normalized_mutual_information(truth, found) >= 0.8
    torch.testing.assert_close(centers.norm(dim=1), torch.ones(16))


def test_kmeans_with_fewer_points_than_centers() -> None:
    centers = kmeans(torch.eye(3), 5, torch.Generator().manual_seed(0))
    assert centers.shape == (5, 3)
    assert torch.isfinite(centers).all()


@pytest.mark.parametrize(("counts", "number"), [([7], 1.0), ([1, 1, 1], 3.0), ([0, 0], 0.0), ([4, 0], 1.0)])
def test_effective_number(counts: list[int], number: float) -> None:
    assert effective_number(torch.tensor(counts)) == pytest.approx(number)
