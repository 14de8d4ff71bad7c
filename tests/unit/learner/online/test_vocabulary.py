import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.online.vocabulary import ROW_BITS, Vocabulary

ITEMS = st.lists(st.integers(0, 12), max_size=60)


class Naive:
    """The same rules, one event at a time, with lists searched from the front."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.seen: list[str] = []  # longest unseen first
        self.row: dict[str, int] = {}
        self.generation: dict[int, int] = {}

    def admit(self, item: str) -> int:
        if item in self.seen:
            self.seen.remove(item)
        elif len(self.seen) < self.capacity:
            self.row[item] = len(self.seen) + 1
            self.generation[self.row[item]] = 0
        else:
            self.row[item] = self.row.pop(self.seen.pop(0))
            self.generation[self.row[item]] += 1
        self.seen.append(item)
        return self.generation[self.row[item]] << ROW_BITS | self.row[item]


@given(ITEMS, st.integers(1, 6), st.integers(1, 9))
def test_batches_admit_as_single_events_do(items: list[int], capacity: int, size: int) -> None:
    vocabulary, naive = Vocabulary(capacity), Naive(capacity)
    for start in range(0, len(items), size):
        part = [str(item) for item in items[start : start + size]]
        got = vocabulary.admit(part, start + np.arange(len(part)))
        assert got.handles.tolist() == [naive.admit(item) for item in part]
        assert len(set(got.new_rows.tolist())) == len(got.new_rows)
    assert vocabulary.size == len(naive.seen) <= capacity
    current = vocabulary.lookup(naive.seen)
    assert vocabulary.ids(current) == naive.seen
    assert (vocabulary.rows(current) > 0).all()


@given(ITEMS, st.integers(1, 6))
def test_saved_and_loaded_it_goes_on_the_same(items: list[int], capacity: int) -> None:
    one = Vocabulary(capacity)
    one.admit([str(item) for item in items], np.arange(len(items)))
    two = Vocabulary.from_arrays(capacity, one.to_arrays())
    more = [str(item) for item in range(5, 20)]
    assert one.admit(more, np.arange(15)).handles.tolist() == two.admit(more, np.arange(15)).handles.tolist()
    for key, array in one.to_arrays().items():
        assert np.array_equal(array, two.to_arrays()[key]), key


def test_a_recycled_row_is_never_read_as_the_old_item() -> None:
    vocabulary = Vocabulary(1)
    old = vocabulary.admit(["a"], np.array([0])).handles
    new = vocabulary.admit(["b"], np.array([1])).handles
    assert vocabulary.rows(old).tolist() == [0]
    assert vocabulary.ids(old) == [""]
    assert vocabulary.rows(new).tolist() == [1]


def test_handles_from_elsewhere_read_as_nothing() -> None:
    vocabulary = Vocabulary(10)
    assert vocabulary.rows(np.array([[0, 5, 10**6], [1 << 40, 7 << 32 | 3, 2**31]])).tolist() == [[0, 5, 0], [0, 0, 0]]


def test_ids_of_many_letters_survive() -> None:
    items = ["ä", "日本", "x" * 256, "\x00", "a\nb"]
    vocabulary = Vocabulary(10)
    vocabulary.admit(items, np.arange(5))
    again = Vocabulary.from_arrays(10, vocabulary.to_arrays())
    assert again.ids(again.lookup(items)) == items


@pytest.mark.parametrize("capacity", [0, -1, 2**40])
def test_a_capacity_out_of_range_is_refused(capacity: int) -> None:
    with pytest.raises(ValueError, match=f"got {capacity}"):
        Vocabulary(capacity)
