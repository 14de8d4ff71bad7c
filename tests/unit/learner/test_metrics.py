import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.metrics import NOT_EVALUATED, UNRANKED, RankMetrics, WindowedRankMetrics

RANKS = st.lists(st.sampled_from([NOT_EVALUATED, 0, 1, 4, 5, 9, 10, 19, 20, 500, UNRANKED]), max_size=50)


def naive(ranks: list[int], k: int) -> tuple[float, float]:
    kept = [rank for rank in ranks if rank >= 0]
    hits = [rank for rank in kept if rank < k]
    return len(hits) / max(len(kept), 1), sum(1 / np.log2(rank + 2) for rank in hits) / max(len(kept), 1)


@given(RANKS, RANKS)
def test_sums_agree_with_a_loop_and_survive_json(first: list[int], second: list[int]) -> None:
    metrics = RankMetrics()
    metrics.add(np.array(first, dtype=np.int64))
    metrics = RankMetrics.from_state(json.loads(json.dumps(metrics.to_state())))
    metrics.add(np.array(second, dtype=np.int64))
    result = metrics.result()
    for k in (5, 10, 20):
        hr, ndcg = naive(first + second, k)
        assert result[f"hr@{k}"] == pytest.approx(hr)
        assert result[f"ndcg@{k}"] == pytest.approx(ndcg)
    assert result["n"] == sum(rank >= 0 for rank in first + second)


@given(st.lists(RANKS, max_size=6), st.integers(1, 20))
def test_a_window_holds_the_newest(parts: list[list[int]], size: int) -> None:
    windowed, expected = WindowedRankMetrics(size), RankMetrics()
    for part in parts:
        windowed.add(np.array(part, dtype=np.int64))
    everything = [rank for part in parts for rank in part if rank >= 0]
    expected.add(np.array(everything[-size:], dtype=np.int64))
    assert windowed.result() == pytest.approx(expected.result())


def test_a_window_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="got 0"):
        WindowedRankMetrics(0)
