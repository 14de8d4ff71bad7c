"""The model of the offline protocol: its terms add up, padding is nothing, scores are the products."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from msgspec import convert
from torch import Tensor
from torch.nn import functional as F

from learner.model.augmentations import random_view
from learner.model.config import ModelConfig
from learner.model.elcrec import Batch, ELCRec
from learner.model.losses import Fusion
from tests.unit.learner.model.test_losses import slow_fused, slow_info_nce


def model(**given: Any) -> ELCRec:
    settings = {"max_len": 6, "encoder": {"hidden": 8}, "intents": {"count": 3, "queue": 8}, **given}
    return ELCRec(convert(settings, ModelConfig), 9, torch.Generator().manual_seed(1))


def paper(**given: Any) -> ELCRec:
    """With all of the paper's losses, in float64 and without dropout."""
    settings = {
        "encoder": {"hidden": 8, "dropout": 0.0, "attention_dropout": 0.0},
        "intents": {"count": 3, "queue": 0, "clustering": "paper", "weight": 0.7},
        "next_item": "bce",
        "sequence_contrast": 0.2,
        "intent_contrast": 0.3,
        "pool": "mean",
        **given,
    }
    return model(**settings).double()


def batch() -> Batch:
    inputs = torch.tensor([[0, 0, 1, 2], [3, 4, 5, 6], [0, 7, 8, 9]])
    targets = torch.tensor([[0, 0, 2, 3], [4, 5, 6, 7], [0, 8, 9, 1]])
    return Batch(inputs, targets)


@pytest.mark.parametrize("clustering", ["none", "paper", "balanced"])
@pytest.mark.parametrize("contrast", [0.0, 0.2])
def test_the_total_is_the_weighted_sum_of_its_terms(clustering: str, contrast: float) -> None:
    made = model(
        intents={"count": 3, "queue": 8, "clustering": clustering, "weight": 0.7},
        sequence_contrast=contrast,
        intent_contrast=2 * contrast,
    )
    found = made.losses(batch(), torch.Generator().manual_seed(2))
    expected = found.next_item
    for weight, term in ((contrast, found.sequence), (2 * contrast, found.intent), (0.7, found.cluster)):
        assert (term is None) == (weight == 0 or (weight == 0.7 and clustering == "none"))
        if term is not None:
            expected = expected + weight * term
    torch.testing.assert_close(found.total, expected)
    found.total.backward()  # type: ignore[no-untyped-call]
    assert made.items.grad is not None and not made.items.grad[0].any()  # padding never learns


@pytest.mark.parametrize("parted", [False, True])
@pytest.mark.parametrize("fusion", ["shift", "concat"])
def test_each_term_is_the_loop_over_users_encoded_alone(fusion: Fusion, parted: bool) -> None:
    """Views, pools, nearest centers and negatives as the paper has them, user by user, without any padding."""
    made = paper(fusion=fusion)
    order = [1, 2, 0]  # longest first, in the two parts that follow
    given = Batch(
        batch().inputs[order],
        batch().targets[order],
        negatives=torch.tensor([[8, 9, 1, 2], [0, 2, 3, 4], [0, 0, 8, 7]]),
        blocks=((2, 4), (1, 2)) if parted else (),
    )
    found = made.losses(given, torch.Generator().manual_seed(7))
    again = torch.Generator().manual_seed(7)
    views = random_view(given.inputs.repeat(2, 1), again, made.mask_row).view(2, *given.inputs.shape)

    def alone(rows: Tensor) -> list[Tensor]:
        """Each user's outputs, (T_u, d)."""
        return [made.encode(row[row > 0][None])[0] for row in rows]

    centers = torch.stack([c / c.square().sum().sqrt() for c in made.intents.weight])
    h, (one, two) = alone(given.inputs), map(alone, views)
    terms = [
        -torch.log(torch.sigmoid(h_t @ made.items[y])) - torch.log(1 - torch.sigmoid(h_t @ made.items[n]))
        for outputs, targets, negatives in zip(h, given.targets, given.negatives, strict=True)  # type: ignore[arg-type]
        for h_t, y, n in zip(outputs, targets[targets > 0], negatives[targets > 0], strict=True)
    ]
    torch.testing.assert_close(found.next_item, sum(terms) / torch.tensor(float(len(terms)), dtype=torch.float64))
    users = [outputs.mean(0) / outputs.mean(0).square().sum().sqrt() for outputs in h]
    own = [min(range(3), key=lambda k, u=u: float((u - centers[k]).square().sum().detach())) for u in users]  # type: ignore[misc]

    def flat(view: list[Tensor]) -> Tensor:
        padded = torch.stack([F.pad(outputs, (0, 0, 4 - len(outputs), 0)) for outputs in view])
        valid = torch.stack([torch.arange(4) >= 4 - len(outputs) for outputs in view])
        return slow_fused(padded, valid, centers, fusion)

    torch.testing.assert_close(found.sequence, slow_info_nce(flat(one), flat(two)))
    pooled = [torch.stack([outputs.mean(0) for outputs in view]) for view in (one, two)]
    torch.testing.assert_close(found.intent, sum(slow_info_nce(view, centers[own]) for view in pooled) / 2)
    pull = torch.stack([(u - c).square().sum() for u in users for c in centers]).mean()
    push = torch.stack([(a - b).square().sum() for a in centers for b in centers if a is not b]).sum() / 6
    torch.testing.assert_close(found.cluster, pull - push)


@pytest.mark.parametrize("fusion", ["shift", "concat"])
def test_to_the_authors_padding_is_a_position_like_others(fusion: Fusion) -> None:
    """Means and contrasts of `compat = "authors"` run over whole rows, padding included."""
    made = paper(fusion=fusion, compat="authors")
    given = batch()._replace(negatives=torch.tensor([[0, 0, 8, 7], [8, 9, 1, 2], [0, 2, 3, 4]]))
    found = made.losses(given, torch.Generator().manual_seed(7))
    again = torch.Generator().manual_seed(7)
    one, two = random_view(given.inputs.repeat(2, 1), again, made.mask_row, "authors").view(2, *given.inputs.shape)
    h, h_one, h_two = (made.encode(rows) for rows in (given.inputs, one, two))
    centers = made.intents.unit()
    flat = [slow_fused(view, None, centers, fusion) for view in (h_one, h_two)]
    torch.testing.assert_close(found.sequence, slow_info_nce(*flat))
    torch.testing.assert_close(found.users, h.mean(1))
    own = centers[made.intents.nearest(h.mean(1)).intent]
    intent = (slow_info_nce(h_one.mean(1), own) + slow_info_nce(h_two.mean(1), own)) / 2
    torch.testing.assert_close(found.intent, intent)


def test_the_encoder_in_bfloat16_gives_the_same_losses_within_its_precision() -> None:
    made = model(next_item="bce", sequence_contrast=0.2, intent_contrast=0.3, pool="mean")
    given = batch()._replace(negatives=torch.tensor([[9, 9, 8, 7], [8, 9, 1, 2], [9, 2, 3, 4]]))
    full, short = (made.losses(given, torch.Generator().manual_seed(7), bfloat16_encoder=low) for low in (False, True))
    assert short.users.dtype == torch.float32
    assert short.total.item() != full.total.item()
    torch.testing.assert_close(short.total, full.total, rtol=0.02, atol=0)


def test_padding_on_the_left_changes_nothing() -> None:
    made = model(pool="mean").eval()
    short, long = torch.tensor([[3, 4]]), torch.tensor([[0, 0, 3, 4]])
    torch.testing.assert_close(made.user(short), made.user(long))
    torch.testing.assert_close(made.pool(made.encode(short), short), made.pool(made.encode(long), long))


def test_the_authors_mean_runs_over_the_padding() -> None:
    made = model(pool="mean", compat="authors").eval()
    h, rows = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(3)), torch.tensor([[0, 0, 3, 4]])
    torch.testing.assert_close(made.pool(h, rows), h.mean(1))


@pytest.mark.parametrize("score", ["dot", "cosine"])
def test_scores_are_the_products(score: str) -> None:
    made = model(score=score, temperature=0.5).eval()
    h = torch.randn(2, 8, generator=torch.Generator().manual_seed(4))
    items = made.items[1:10]
    expected = h @ items.T if score == "dot" else F.normalize(h, dim=-1) @ F.normalize(items, dim=-1).T / 0.5
    torch.testing.assert_close(made.scores(h), expected)


def test_views_need_a_generator() -> None:
    with pytest.raises(ValueError, match="need a generator"):
        model(sequence_contrast=0.1).losses(batch(), None)
