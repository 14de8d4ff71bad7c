"""Times in files: in which form they are, and how they become epoch milliseconds."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream.schema.events import MAX_TS, MIN_TS

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
    """Dates and times as text, in `zone` where they name none; `pattern` is one of strptime, or `ISO`.

    >>> TextTimes(ISO).read("2019-10-13 22:53:20+02:00") == TextTimes(ISO).read("2019-10-13 20:53:20 UTC")
    True
    """

    def __init__(self, pattern: str, zone: tzinfo = UTC) -> None:
        self.description = "ISO 8601" if pattern == ISO else f"the form {pattern}"
        if zone is not UTC:
            self.description += f", {zone} where they name no zone"
        self._pattern, self._zone = pattern, zone

    def read_cells(self, cells: Sequence[bytes]) -> NDArray[np.int64]:
        """Read many cells, each distinct one once: dates come again and again."""
        read = {cell: self.read(cell.decode()) for cell in set(cells)}
        return np.array([read[cell] for cell in cells], dtype=np.int64)

    def read(self, value: Any) -> int:
        """Read one text."""
        if not isinstance(value, str):
            raise ValueError(f"{value!r} is no text")
        if self._pattern == ISO:
            with suppress(ValueError):  # most are in the form that Python reads at once
                return self._epoch_ms(datetime.fromisoformat(value))
        text = value.strip()
        if self._pattern == ISO:
            for zone in (" UTC", " GMT"):
                text = text.removesuffix(zone) if text.endswith(zone) else text
            time = datetime.fromisoformat(re.sub(r"\s+(?=[+-]\d\d:?\d\d$)", "", text))
        else:
            time = datetime.strptime(text, self._pattern)  # noqa: DTZ007  # the zone comes next
        return self._epoch_ms(time)

    def read_values(self, values: Sequence[Any]) -> NDArray[np.int64]:
        """Read many values, those in the common form of ISO 8601 at once; ValueError when one is no time."""
        if self._pattern == ISO:
            with suppress(ValueError, TypeError):
                times = list(map(datetime.fromisoformat, values))
                if all([time.tzinfo is not None for time in times]):
                    seconds = np.array([time.timestamp() for time in times])
                    return np.rint(seconds * 1e6).astype(np.int64) // 1000  # a float holds the microseconds exactly
        return super().read_values(values)

    def _epoch_ms(self, time: datetime) -> int:
        if time.tzinfo is None:
            time = time.replace(tzinfo=self._zone)
        return (time - _EPOCH) // _MS


class AnyTimes(TimeReader):
    """Times of which each says what it is: numbers by their size, text by its form; nothing depends on the others.

    A number is seconds, milliseconds, microseconds or nanoseconds, whichever puts it between 1990 and 2100; eight
    digits are a day. Text is a number or ISO 8601. Formats with types of their own give datetimes.

    >>> reader = AnyTimes()
    >>> reader.read(1506826800) == reader.read("1506826800000") == reader.read("2017-10-01T03:00:00Z")
    True
    """

    description = "epoch s, ms, us or ns by the size, or ISO 8601"

    def __init__(self, zone: tzinfo = UTC) -> None:
        self._zone = zone
        self._text, self._day = TextTimes(ISO, zone), TextTimes("%Y%m%d", zone)

    def read_cells(self, cells: Sequence[bytes]) -> NDArray[np.int64]:
        """Read many cells of text; ValueError when one is no time."""
        return self.read_values([cell.decode() for cell in cells])

    def read(self, value: Any) -> int:
        """Read one value: a number, text or a datetime; ValueError when it is no time."""
        if type(value) is int or type(value) is float:
            return self._number(value, str(value) if type(value) is int else "")
        if isinstance(value, datetime):
            value = value.replace(tzinfo=self._zone) if value.tzinfo is None else value
            return int((value - _EPOCH) // _MS)
        if isinstance(value, date):
            return self._text.read(value.isoformat())
        if not isinstance(value, str):
            raise ValueError(f"{value!r} is no time")
        if value[4:5] == "-":
            return self._text.read(value)
        text = value.strip()
        if text[:1].isdigit() and text.replace(".", "", 1).isdigit():
            return self._number(float(text) if "." in text else int(text), text)
        return self._text.read(text)

    def read_values(self, values: Sequence[Any]) -> NDArray[np.int64]:
        """Read many values, integers at once; ValueError when one is no time."""
        if set(map(type, values)) == {int}:
            numbers = np.array(values, dtype=np.int64)
            for unit in (1.0, 1000.0, 1e-3, 1e-6):  # milliseconds first
                low, high = _bounds(unit)
                if ((numbers >= low) & (numbers < high)).all():
                    return numbers * int(unit) if unit >= 1 else numbers // round(1 / unit)
        if all([type(value) is str and value[4:5] == "-" for value in values]):
            return self._text.read_values(values)
        return super().read_values(values)

    def _number(self, number: float, text: str) -> int:
        if MIN_TS <= number < MAX_TS:
            return int(number)
        if MIN_TS <= number * 1000 < MAX_TS:
            return number * 1000 if type(number) is int else round(number * 1000)
        for divisor in (1000, 1_000_000):
            if MIN_TS <= number / divisor < MAX_TS:
                return int(number // divisor)
        if len(text) == 8 and text.isdigit():
            return self._day.read(text)
        raise ValueError(f"{number!r} lies between 1990 and 2100 in no unit")


def _bounds(factor: float) -> tuple[int, int]:
    """The integers that are times between 1990 and 2100 with this many milliseconds in one."""
    return -int(-MIN_TS // factor), -int(-MAX_TS // factor)


def in_time_order(times: NDArray[np.int64]) -> bool:
    """Whether no time (n,) is before the one in front of it."""
    return bool((np.diff(times) >= 0).all())


__all__ = ["AnyTimes", "ISO", "NumberTimes", "TextTimes", "TimeReader", "UNITS", "in_time_order"]
