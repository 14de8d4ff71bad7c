"""The model of the offline protocol: its terms add up, padding is nothing, scores are the products."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from msgspec import convert
from torch.nn import functional as F

from learner.model import Batch, ELCRec, ModelConfig


def model(**given: Any) -> ELCRec:
    settings = {"max_len": 6, "encoder": {"hidden": 8}, "intents": {"count": 3, "queue": 8}, **given}
    return ELCRec(convert(settings, ModelConfig), 9, torch.Generator().manual_seed(1))


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
