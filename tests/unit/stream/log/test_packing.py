"""Entries of the embedded log: what is packed comes back, any part of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.log.base import LogError
from stream.log.embedded.packing import info, pack, unpack

RECORDS = st.lists(
    st.tuples(
        st.none() | st.binary(max_size=20),
        st.none() | st.binary(max_size=50),
        st.integers(-(2**63), 2**63 - 1),
        st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5)), max_size=2).map(tuple),
        st.integers(1, 5),
    ),
    min_size=1,
    max_size=30,
)


@given(RECORDS, st.booleans(), st.integers(0, 2**40), st.data())
def test_round_trip(
    records: list[tuple[bytes | None, bytes | None, int, tuple[tuple[str, bytes], ...], int]],
    holes: bool,
    base: int,
    data: st.DataObject,
) -> None:
    n = len(records)
    deltas = [sum(r[4] for r in records[:i]) if holes else i for i in range(n)]
    raw = pack(
        [r[0] for r in records],
        [r[1] for r in records],
        [r[2] for r in records],
        [r[3] for r in records],
        next_offset=base + deltas[-1] + 1,
        appended_ms=7,
        deltas=deltas if holes else None,
    )
    assert info(raw).records == n
    assert info(raw).next_offset == base + deltas[-1] + 1
    start = data.draw(st.integers(max(0, base - 3), base + deltas[-1] + 3))
    stop = data.draw(st.integers(start, base + deltas[-1] + 5))
    limit = data.draw(st.integers(1, n + 1))
    columns = unpack(raw, base, start, stop, limit)
    wanted = [i for i in range(n) if start <= base + deltas[i] < stop][:limit]
    assert columns.offsets == [base + deltas[i] for i in wanted]
    assert columns.keys == [records[i][0] for i in wanted]
    assert columns.values == [records[i][1] for i in wanted]
    assert columns.timestamps_ms == [records[i][2] for i in wanted]
    assert columns.headers == [records[i][3] for i in wanted]


def test_another_format_is_refused() -> None:
    raw = pack([b"k"], [b"v"], [0], None, next_offset=1, appended_ms=0)
    with pytest.raises(LogError, match="format 9"):
        unpack(b"\x09" + raw[1:], 0, 0, 1, 1)
