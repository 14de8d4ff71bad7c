from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from state.errors import StateCorrupted
from state.records import NO_INTENT, RecordCodec, blank_users, user_dtype


def random_records(codec: RecordCodec, count: int, seed: int) -> NDArray[np.void]:
    """Records with every field at random, entries where the length says."""
    rng = np.random.default_rng(seed)
    records = blank_users(count, codec.dtype)
    for name in (
        "list",
        "list_ts",
        "list_step",
        "seen_ts",
        "events",
        "intent",
        "intent_events",
        "candidate",
        "candidate_count",
    ):
        field = records[name]
        info = np.iinfo(field.dtype)
        field[...] = rng.integers(info.min, info.max, field.shape, dtype=field.dtype, endpoint=True)
    records["reserved"] = rng.integers(-5, 5, count)
    records["length"] = rng.integers(0, codec.max_len + 1, count)
    filled = np.arange(codec.max_len) >= codec.max_len - records["length"].astype(np.int64)[:, None]
    records["items"] = rng.integers(1, 1 << 62, filled.shape) * filled
    records["ts"] = rng.integers(0, 1 << 45, filled.shape) * filled
    records["actions"] = rng.integers(0, 256, filled.shape) * filled
    return records


@given(st.integers(1, 60), st.integers(1, 30), st.integers(0, 20), st.integers(0, 1 << 30))
@settings(max_examples=150, deadline=None)
def test_decode_gives_back_what_was_encoded(max_len: int, list_len: int, count: int, seed: int) -> None:
    codec = RecordCodec(max_len, list_len)
    records = random_records(codec, count, seed)
    values = codec.encode(records)
    assert np.array_equal(codec.decode(values), records)
    assert codec.seen_ts(values).tolist() == records["seen_ts"].tolist()
    assert [len(value) for value in values] == (8 * (list_len + 6) + 16 * records["length"].astype(int)).tolist()


def test_a_value_of_another_shape_is_refused() -> None:
    (long,) = RecordCodec(8, 2).encode(_full(8, 2))
    with pytest.raises(StateCorrupted, match="written with longer histories or lists"):
        RecordCodec(4, 2).decode([long])
    with pytest.raises(StateCorrupted, match="bytes"):
        RecordCodec(8, 2).decode([long[:-8]])
    with pytest.raises(StateCorrupted, match="bytes"):
        RecordCodec(8, 2).decode([long[:-3]])


def _full(max_len: int, list_len: int) -> NDArray[np.void]:
    records = blank_users(1, user_dtype(max_len, list_len))
    records["length"], records["items"], records["events"] = max_len, 1, max_len
    return records


def test_blank_users_have_no_intent() -> None:
    records = blank_users(2, user_dtype(3, 2))
    assert records["intent"].tolist() == [NO_INTENT] * 2 and records["candidate"].tolist() == [NO_INTENT] * 2
    assert not records["items"].any() and not records["events"].any()
