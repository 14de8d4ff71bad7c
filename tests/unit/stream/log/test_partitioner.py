"""Kafka's murmur2: its own test vectors, and the fast form against the plain one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.log.partitioner import murmur2, murmur2_many, partition_of, partitions_of

# org.apache.kafka.common.utils.UtilsTest.testMurmur2
VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("key", VECTORS)
def test_known_vectors(key: bytes) -> None:
    assert murmur2(key) == VECTORS[key] % 2**32
    assert murmur2_many([key]).tolist() == [VECTORS[key] % 2**32]


@given(st.lists(st.binary(max_size=300), max_size=60))
def test_many_is_one_by_one(keys: list[bytes]) -> None:
    assert murmur2_many(keys).tolist() == [murmur2(key) for key in keys]


@given(st.lists(st.none() | st.binary(max_size=20), max_size=60), st.integers(1, 50))
def test_partitions(keys: list[bytes | None], partitions: int) -> None:
    assert partitions_of(keys, partitions).tolist() == [partition_of(key, partitions) for key in keys]
