from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learner.model import augmentations

few = settings(max_examples=30, deadline=None)
lengths = st.lists(st.integers(1, 30), min_size=1, max_size=6)


def rows_of(sizes: list[int]) -> Tensor:
    """Right-aligned sequences 1, 2, 3, ... of the given lengths."""
    T = max(sizes)
    return torch.stack([torch.tensor([0] * (T - n) + list(range(1, n + 1))) for n in sizes])


def items(row: Tensor) -> list[int]:
    return [int(x) for x in row if x > 0]


def is_right_aligned(row: Tensor) -> bool:
    return bool(((row > 0).int().diff() >= 0).all())


@few
@given(lengths, st.integers(0, 2**31))
def test_crop_is_a_window_of_a_fifth(sizes: list[int], seed: int) -> None:
    cropped = augmentations.crop(rows_of(sizes), torch.Generator().manual_seed(seed))
    for row, n in zip(cropped, sizes, strict=True):
        kept = items(row)
        assert is_right_aligned(row)
        assert len(kept) == max(1, int(0.2 * n))
        assert kept == list(range(kept[0], kept[0] + len(kept)))
        assert 1 <= kept[0] and kept[-1] <= n


@few
@given(lengths, st.integers(0, 2**31))
def test_mask_replaces_seven_tenths_and_moves_nothing(sizes: list[int], seed: int) -> None:
    rows = rows_of(sizes)
    masked = augmentations.mask(rows, torch.Generator().manual_seed(seed), mask_row=99)
    for before, after, n in zip(rows, masked, sizes, strict=True):
        assert int((after == 99).sum()) == int(0.7 * n)
        assert torch.equal(before[after != 99], after[after != 99])
        assert torch.equal(before > 0, after > 0)


@few
@given(lengths, st.integers(0, 2**31))
def test_reorder_shuffles_one_window(sizes: list[int], seed: int) -> None:
    rows = rows_of(sizes)
    shuffled = augmentations.reorder(rows, torch.Generator().manual_seed(seed))
    for before, after, n in zip(rows, shuffled, sizes, strict=True):
        assert sorted(items(after)) == items(before)
        moved = torch.nonzero(before != after)[:, 0]
        if len(moved):
            assert int(moved[-1] - moved[0]) < int(0.2 * n)


def starts(compat: augmentations.Compat) -> set[int]:
    generator = torch.Generator().manual_seed(0)
    rows = rows_of([10]).expand(500, 10)
    return {int(row[row > 0][0]) for row in augmentations.crop(rows, generator, compat=compat)}


def test_authors_never_crop_the_newest_window() -> None:
    assert starts("none") == set(range(1, 10))
    assert starts("authors") == set(range(1, 9))


@pytest.mark.parametrize(("compat", "written"), [("none", 99), ("authors", 0)])
def test_random_view_uses_all_three_and_the_right_mask(compat: augmentations.Compat, written: int) -> None:
    rows = rows_of([20]).expand(600, 20)
    views = augmentations.random_view(rows, torch.Generator().manual_seed(3), 99, compat)
    masked = (views == written).sum(1) == 14
    cropped = (views > 0).sum(1) == 4
    full = torch.tensor([items(row) == list(range(1, 21)) or sorted(items(row)) == list(range(1, 21)) for row in views])
    assert all(150 < int(kind.sum()) < 250 for kind in (masked, cropped, full & ~masked))


def test_same_generator_same_views() -> None:
    rows = rows_of([3, 9, 14])
    one, two = (augmentations.random_view(rows, torch.Generator().manual_seed(5), 99) for _ in range(2))
    assert torch.equal(one, two)
