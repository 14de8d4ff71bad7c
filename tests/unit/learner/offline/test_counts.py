"""The mix of counts and network, and the counts' file; the counts themselves stand beside a loop in test_offline."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.errors import ModelFileError
from learner.offline.config import CountsConfig
from learner.offline.counts import ItemCounts, log_shares, mix

SEQUENCES = st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=8), min_size=1, max_size=6)

slowly = settings(deadline=None)  # a busy machine is no failure


def counted(sequences: list[list[int]]) -> ItemCounts:
    offsets = np.cumsum([0, *map(len, sequences)])
    return ItemCounts(CountsConfig(), np.array([item for one in sequences for item in one]), offsets, item_count=6)


@slowly
@given(SEQUENCES, st.lists(st.integers(0, 6), min_size=3, max_size=3))
def test_scores_are_shares(sequences: list[list[int]], history: list[int]) -> None:
    scores = counted(sequences).scores(np.array([history]))
    assert scores.shape == (1, 7) and scores[0, 0] == 0 and (scores >= 0).all()
    assert scores.sum() == pytest.approx(1, abs=1e-5) or not scores.any()


@slowly
@given(SEQUENCES)
def test_users_do_not_reach_into_each_other(sequences: list[list[int]]) -> None:
    counts = counted(sequences)
    histories = np.array([[0, 1, 2], [0, 0, 0], [6, 5, 4]])
    together = counts.scores(histories)
    for place in range(3):
        np.testing.assert_array_equal(together[place], counts.scores(histories[place : place + 1])[0])


def test_what_is_saved_scores_the_same(tmp_path: Path) -> None:
    counts = counted([[1, 2, 3], [3, 1, 6]])
    counts.save(tmp_path / "counts.npz")
    again = ItemCounts.load(tmp_path / "counts.npz", CountsConfig(), 6)
    histories = np.array([[0, 1, 3], [0, 0, 6]])
    np.testing.assert_array_equal(again.scores(histories), counts.scores(histories))
    with pytest.raises(ModelFileError, match="counts of 6 items, expected 7"):
        ItemCounts.load(tmp_path / "counts.npz", CountsConfig(), 7)


@pytest.mark.parametrize(
    "other",
    [
        {"columns": np.array([7, 1], np.int32)},
        {"columns": np.array([[1, 2]], np.int32)},
        {"columns": np.array([1.0, 2.0])},
        {"values": np.array([1.0, math.nan], np.float32)},
        {"values": np.array(["a", "b"])},
        {"ends": np.array([0, 5, 2, 2, 2, 2, 2])},
        {"ends": np.array(3)},
        {},
    ],
)
def test_a_matrix_of_another_form_is_refused(tmp_path: Path, other: dict[str, np.ndarray]) -> None:
    good = {"columns": np.array([1, 2], np.int32), "values": np.ones(2, np.float32), "ends": np.full(7, 2)}
    path = tmp_path / "counts.npz"
    np.savez(path, **(good | other))  # type: ignore[arg-type]  # its stub takes `allow_pickle` for one of them
    if other:
        with pytest.raises(ModelFileError, match="counts"):
            ItemCounts.load(path, CountsConfig(), 6)
    else:
        ItemCounts.load(path, CountsConfig(), 6)
    path.write_bytes(b"")
    with pytest.raises(ModelFileError, match="not the counts"):
        ItemCounts.load(path, CountsConfig(), 6)


def test_the_mix_is_the_formula() -> None:
    network, shares = torch.tensor([[-1.0, -2.0]]), torch.tensor([[0.0, 0.5]])
    found = mix(network, log_shares(shares, 0.01), 0.3)
    torch.testing.assert_close(found, torch.tensor([[-0.3 + math.log(0.01), -0.6 + math.log(0.51)]]))
