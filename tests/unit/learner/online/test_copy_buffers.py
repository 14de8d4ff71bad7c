"""Copies that stay what they were, of arrays that change and grow."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from learner.online.copy_buffers import CopyBuffers

SHAPES = st.tuples(st.sampled_from(["u1", "f4", "i8", "?"]), st.lists(st.integers(0, 5), max_size=3))


@given(st.lists(st.dictionaries(st.sampled_from("abc"), SHAPES), min_size=1, max_size=6), st.integers(0, 99))
def test_copies_are_equal_share_nothing_and_outlive_a_change(
    turns: list[dict[str, tuple[str, list[int]]]], seed: int
) -> None:
    rng, snapshot = np.random.default_rng(seed), CopyBuffers()
    for arrays in ({n: rng.integers(0, 99, shape).astype(kind) for n, (kind, shape) in t.items()} for t in turns):
        expected = {name: array.copy() for name, array in arrays.items()}
        copies = snapshot.copy(arrays)
        for array in arrays.values():
            array[...] = 0
        assert copies.keys() == expected.keys()
        for name, copy in copies.items():
            assert (copy.dtype, copy.shape) == (expected[name].dtype, expected[name].shape)
            assert copy.tobytes() == expected[name].tobytes()


def test_memory_is_taken_once_while_a_table_grows_a_little() -> None:
    snapshot = CopyBuffers()
    first = snapshot.copy({"table": np.ones((100, 4))})["table"]
    second = snapshot.copy({"table": np.full((150, 4), 2.0)})["table"]
    assert np.shares_memory(first, second)
    assert snapshot.number == 2
