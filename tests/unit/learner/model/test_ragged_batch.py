"""Positions one after another and in blocks: there and back, values and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.model.ragged_batch import RaggedBatch

blocks_of_lengths = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), min_size=1, max_size=3)


def there(lengths: list[list[int]]) -> list[torch.Tensor]:
    """(n, T) for each list of n lengths, T one more than the longest now and then."""
    return [
        torch.arange(T := max(max(block), 1) + number % 2) >= T - torch.tensor(block)[:, None]
        for number, block in enumerate(lengths)
    ]


@pytest.mark.parametrize("padded", [False, True])
@given(lengths=blocks_of_lengths)
def test_blocks_and_positions_are_the_same_numbers(lengths: list[list[int]], padded: bool) -> None:
    given_blocks = there(lengths)
    layout = RaggedBatch(given_blocks, padded=padded)
    count = sum(block.numel() if padded else int(block.sum()) for block in given_blocks)
    x = torch.randn(count, 3, dtype=torch.float64, requires_grad=True)
    blocks = layout.blocks(x)
    assert torch.equal(layout.flat(blocks), x)
    held = torch.cat([block.flatten() for block in given_blocks]) | padded
    assert not torch.cat([block.flatten(0, 1) for block in blocks])[~held].any()
    numbers = torch.cat([block.flatten() for block in layout.numbers()])
    assert numbers[held].tolist() == list(range(count)) and (numbers[~held] == -1).all()

    weights = [torch.randn(block.shape, dtype=torch.float64) for block in blocks]
    (slope,) = torch.autograd.grad(sum((w * b).sum() for w, b in zip(weights, blocks, strict=True)), x)  # type: ignore[arg-type]
    assert torch.equal(slope, torch.cat([w.flatten(0, 1) for w in weights])[held])
    y = [block.detach().requires_grad_() for block in blocks]
    weight = torch.randn(count, 3, dtype=torch.float64)
    slopes = torch.autograd.grad((layout.flat(y) * weight).sum(), y)
    expected = torch.zeros(len(held), 3, dtype=torch.float64)
    expected[held] = weight
    assert torch.equal(torch.cat([one.flatten(0, 1) for one in slopes]), expected)


def test_a_block_without_padding_says_so() -> None:
    full, holed = torch.ones(2, 3, dtype=torch.bool), torch.tensor([[False, True]])
    layout = RaggedBatch([full, holed])
    assert layout.valid == [None, holed]
    assert not layout.is_one_block
    assert RaggedBatch([full]).is_one_block and not RaggedBatch([holed]).is_one_block
    assert RaggedBatch([holed], padded=True).is_one_block
