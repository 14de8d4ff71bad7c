"""Times in files: in which form they are, and how they become epoch milliseconds."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

UNITS: Final = {"seconds": 1e3, "milliseconds": 1.0, "microseconds": 1e-3, "nanoseconds": 1e-6}  # ms in one
ISO: Final = "iso"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_MAX_ABS_MS: Final = 1 << 62  # farther from 1970 than any time; fits an int64


class TimeReader:
    """Makes epoch milliseconds of the times of a column."""

    description: str

    def read_cells(self, cells: Sequence[bytes]) -> NDArray[np.int64]:
        """Read many cells of text, (n,); ValueError when one is no time."""
        raise NotImplementedError

    def read(self, value: Any) -> int:
        """Read one value: a number or text; ValueError when it is no time."""
        raise NotImplementedError

    def read_values(self, values: Sequence[Any]) -> NDArray[np.int64]:
        """Read many values, (n,); ValueError when one is no time."""
        return np.array([self.read(value) for value in values], dtype=np.int64)


class NumberTimes(TimeReader):
    """Numbers in a unit, counted from 1970 or from `origin_ms`.

    >>> NumberTimes("seconds").read_cells([b"1506826800", b"1506826801.5"]).tolist()
    [1506826800000, 1506826801500]
    """

    def __init__(self, unit: str, origin_ms: int = 0) -> None:
        self.description = unit + (f" from {_EPOCH + origin_ms * _MS:%Y-%m-%dT%H:%M:%SZ}" if origin_ms else "")
        self._factor = UNITS[unit]
        self._origin_ms = origin_ms
        self._largest = _MAX_ABS_MS if self._factor <= 1 else 1 << 52

    def read_cells(self, cells: Sequence[bytes]) -> NDArray[np.int64]:
        """Read many cells; ValueError when one is no finite number."""
        try:
            whole = np.array(cells, dtype=np.bytes_).astype(np.int64)
        except ValueError:
            values = np.array([float(cell) for cell in cells])
            if not (np.abs(values * self._factor) < _MAX_ABS_MS).all():
                raise ValueError("not a time") from None
            return np.round(values * self._factor).astype(np.int64) + self._origin_ms
        return self.scale(whole)

    def read_values(self, values: Sequence[Any]) -> NDArray[np.int64]:
        """Read many values, integers at once."""
        if all([type(value) is int for value in values]):
            return self.scale(np.array(values, dtype=np.int64))
        return super().read_values(values)

    def scale(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Scale integers, (n,); one that does not fit becomes 0, which is refused as bad_ts like itself."""
        if self._factor < 1:
            scaled = values // round(1 / self._factor)
        else:
            scaled = np.where(np.abs(values) < self._largest, values, 0) * int(self._factor)
        return np.asarray(scaled + self._origin_ms, dtype=np.int64)

    def read(self, value: Any) -> int:
        """Read one number, which may be text."""
        if type(value) is int and abs(value) < self._largest:
            scaled = value * int(self._factor) if self._factor >= 1 else value // round(1 / self._factor)
            return scaled + self._origin_ms
        number = math.nan if isinstance(value, bool) else float(value)
        if not abs(number * self._factor) < _MAX_ABS_MS:
            raise ValueError(f"{value!r} is no time")
        return round(number * self._factor) + self._origin_ms


class TextTimes(TimeReader):
    """Dates and times as text, in UTC where they name no zone; `pattern` is one of strptime, or `ISO`.

    >>> TextTimes(ISO).read("2019-10-13 22:53:20+02:00") == TextTimes(ISO).read("2019-10-13 20:53:20 UTC")
    True
    """

    def __init__(self, pattern: str) -> None:
        self.description = "ISO 8601" if pattern == ISO else f"the form {pattern}"
        self._pattern = pattern

    def read_cells(self, cells: Sequence[bytes]) -> NDArray[np.int64]:
        """Read many cells, each distinct one once: dates come again and again."""
        read = {cell: self.read(cell.decode()) for cell in set(cells)}
        return np.array([read[cell] for cell in cells], dtype=np.int64)

    def read(self, value: Any) -> int:
        """Read one text."""
        if not isinstance(value, str):
            raise ValueError(f"{value!r} is no text")
        text = value.strip()
        if self._pattern == ISO:
            for zone in (" UTC", " GMT"):
                text = text.removesuffix(zone) if text.endswith(zone) else text
            time = datetime.fromisoformat(re.sub(r"\s+(?=[+-]\d\d:?\d\d$)", "", text))
        else:
            time = datetime.strptime(text, self._pattern)  # noqa: DTZ007  # the zone comes next
        if time.tzinfo is None:
            time = time.replace(tzinfo=UTC)
        return (time - _EPOCH) // _MS


def in_time_order(times: NDArray[np.int64]) -> bool:
    """Whether no time (n,) is before the one in front of it."""
    return bool((np.diff(times) >= 0).all())


__all__ = ["ISO", "NumberTimes", "TextTimes", "TimeReader", "UNITS", "in_time_order"]
