"""A user's record: of fixed size in memory, shorter on disk.

In memory a batch of users is one structured array, so that nothing loops over users or events. On disk a short history
takes little space: entries are pairs of 64-bit words (item, time and action) *before* everything else and
right-aligned, so that the value of a user with few events is the tail of the full row: a slice to write, padding with
zeros to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from state.errors import StateCorrupted

NO_INTENT: Final = -1
_HEADER_WORDS: Final = (
    6  # list_ts, list_step, seen_ts, (events, intent), (intent_events, candidate), (length, …, shift_level)
)
_ACTION_BITS: Final = 8


def user_dtype(max_len: int, list_len: int) -> np.dtype[np.void]:
    """Type of one user's record.

    Fields: `items` (max_len,) item handles, newest last, 0 = empty; `ts` (max_len,) epoch milliseconds; `list`
    (list_len,) the handles last published; `list_ts`, `list_step` when that was; `seen_ts` newest event time, or where
    the clock stood when an event came late; `events` taken in all; `intent`, its `intent_events`, the `candidate`
    intent and its `candidate_count` (-1 = none); `length` of the history; `reserved` 16 bits; `shift_level`
    of the intent's statistic; `actions` (max_len,) codes.
    """
    padding = -max_len % 8
    fields: list[Any] = [
        ("items", "<i8", (max_len,)),
        ("ts", "<i8", (max_len,)),
        ("list", "<i8", (list_len,)),
        ("list_ts", "<i8"),
        ("list_step", "<i8"),
        ("seen_ts", "<i8"),
        ("events", "<u4"),
        ("intent", "<i4"),
        ("intent_events", "<u4"),
        ("candidate", "<i4"),
        ("length", "<u2"),
        ("candidate_count", "<u2"),
        ("reserved", "<i2"),
        ("shift_level", "<u2"),
        ("actions", "u1", (max_len,)),
    ]
    if padding:
        fields.append(("padding", "u1", (padding,)))
    return np.dtype(fields)


def blank_users(count: int, dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """Records of unknown users."""
    records = np.zeros(count, dtype=dtype)
    records["intent"] = NO_INTENT
    records["candidate"] = NO_INTENT
    return records


def is_live(seen_ts: NDArray[np.int64], now_ts: NDArray[np.int64] | int, ttl_ms: int) -> NDArray[np.bool_]:
    """Which of the users last seen at these times are still known when the clock is at `now_ts`.

    They are forgotten after twice the time to live: an event late by up to the time to live still finds its user.
    """
    if not ttl_ms:
        return np.ones(len(seen_ts), dtype=bool)
    return seen_ts >= now_ts - 2 * ttl_ms


class RecordCodec:
    """Records to stored values and back, for a whole batch.

    Parameters
    ----------
    max_len
        Entries of a history, L.
    list_len
        Items of a published list, k.
    """

    def __init__(self, max_len: int, list_len: int) -> None:
        self.max_len = max_len
        self.list_len = list_len
        self.dtype = user_dtype(max_len, list_len)
        self._record_words = self.dtype.itemsize // 8
        self._fixed_words = list_len + _HEADER_WORDS
        self._row_bytes = 8 * (2 * max_len + self._fixed_words)
        self._fixed_bytes = 8 * self._fixed_words

    def encode(self, records: NDArray[np.void]) -> list[bytes]:
        """Stored values of the records; `len(value)` is 16 bytes per entry and a fixed part."""
        count, L = len(records), self.max_len
        words = np.ascontiguousarray(records).view("<i8").reshape(count, self._record_words)  # (B, words of a record)
        rows = np.empty((count, 2 * L + self._fixed_words), dtype="<i8")
        rows[:, 0 : 2 * L : 2] = words[:, :L]
        np.left_shift(words[:, L : 2 * L], _ACTION_BITS, out=rows[:, 1 : 2 * L : 2])
        rows[:, 1 : 2 * L : 2] |= records["actions"]
        rows[:, 2 * L :] = words[:, 2 * L : 2 * L + self._fixed_words]
        raw = rows.tobytes()
        stops = np.arange(1, count + 1, dtype=np.int64) * self._row_bytes
        starts = stops - self._fixed_bytes - 16 * records["length"].astype(np.int64)
        return [raw[a:b] for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]

    def decode(self, values: Sequence[bytes]) -> NDArray[np.void]:
        """Records of the stored values.

        Raises
        ------
        StateCorrupted
            A value does not have the length that it claims.
        """
        count, L, size = len(values), self.max_len, self._row_bytes
        raw = b"".join([value.rjust(size, b"\0") for value in values])
        if len(raw) != count * size:
            raise StateCorrupted(
                f"a stored user has more than {size} bytes: it was written with longer histories or lists"
            )
        rows = np.frombuffer(raw, dtype="<i8").reshape(count, self._row_bytes // 8)
        records = np.zeros(count, dtype=self.dtype)
        words = records.view("<i8").reshape(count, self._record_words)
        words[:, :L] = rows[:, 0 : 2 * L : 2]
        packed = rows[:, 1 : 2 * L : 2]
        np.right_shift(packed, _ACTION_BITS, out=words[:, L : 2 * L])
        np.bitwise_and(packed, (1 << _ACTION_BITS) - 1, out=records["actions"], casting="unsafe")
        words[:, 2 * L : 2 * L + self._fixed_words] = rows[:, 2 * L :]
        claimed = records["length"].astype(np.int64) * 16 + self._fixed_bytes
        found = np.fromiter(map(len, values), dtype=np.int64, count=count)
        if not np.array_equal(claimed, found):
            row = int(np.flatnonzero(claimed != found)[0])
            raise StateCorrupted(f"a stored user has {found[row]} bytes, its history of {claimed[row]} was expected")
        return records

    def seen_ts(self, values: Sequence[bytes]) -> NDArray[np.int64]:
        """When each stored user was last seen, without decoding the rest."""
        tail = 8 * (_HEADER_WORDS - 2)  # seen_ts and the words after it
        return np.frombuffer(b"".join([value[-tail:] for value in values]), dtype="<i8")[:: tail // 8]
