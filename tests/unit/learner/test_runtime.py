from __future__ import annotations

from collections.abc import Iterator

import pytest
import threadpoolctl
import torch

from learner.runtime import set_threads


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


def test_threads_are_set_and_algorithms_deterministic() -> None:
    set_threads(3)
    assert torch.get_num_threads() == 3
    assert torch.are_deterministic_algorithms_enabled()


def test_zero_leaves_the_number_to_torch() -> None:
    torch.set_num_threads(2)
    set_threads(0)
    assert torch.get_num_threads() == 2


def test_the_matrix_products_of_numpy_take_one_thread() -> None:
    with threadpoolctl.threadpool_limits(4, user_api="blas"):
        set_threads(2)
        assert {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"} == {1}
