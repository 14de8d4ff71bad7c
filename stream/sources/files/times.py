"""Times in files: in which form they are, and how they become epoch milliseconds."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream.errors import SourceError
from stream.schema.events import MAX_TS, MIN_TS

UNITS: Final = {"seconds": 1e3, "milliseconds": 1.0, "microseconds": 1e-3, "nanoseconds": 1e-6}  # ms in one
_UNIT_NAMES: Final = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "µs": "microseconds"} | {
    "ns": "nanoseconds",
    **{name: name for name in UNITS},
}
ISO: Final = "iso"
# forms of text beside ISO 8601; the pairs that differ by day and month only are told apart by days above the 12th
_PATTERNS: Final = (
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y",
    "%d/%m/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d-%m-%Y %H:%M:%S",
    "%m-%d-%Y %H:%M:%S",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%m %d, %Y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%d %b %Y",
    "%d %B %Y",
    "%d/%b/%Y:%H:%M:%S %z",
    "%a, %d %b %Y %H:%M:%S %z",
    "%a, %d %b %Y %H:%M:%S %Z",
    "%a %b %d %H:%M:%S %z %Y",
    "%a %b %d %H:%M:%S %Z %Y",
    "%a %b %d %H:%M:%S %Y",
)
_TRIED: Final = 200  # cells of the sample
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_DAY: Final = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
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


@dataclass(frozen=True, slots=True)
class TimeOptions:
    """What the user says about the times; empty or None where nothing is said."""

    pattern: str = ""  # a unit, `iso`, or a pattern of strptime
    origin_ms: int | None = None  # numbers are counted from it


def parse_time_format(text: str) -> str:
    """Check `--time-format`.

    Raises
    ------
    SourceError
        It is no unit, not `iso`, and no pattern of strptime.
    """
    if text.lower() == ISO:
        return ISO
    if text in _UNIT_NAMES:
        return _UNIT_NAMES[text]
    try:
        if "%" in text:
            datetime.strptime(datetime.now(UTC).strftime(text), text)  # noqa: DTZ007  # only whether it can be read
            return text
    except (ValueError, re.error):
        pass
    raise SourceError(f"--time-format {text}: expected s, ms, us, ns, iso, or a form such as %d/%m/%Y %H:%M")


def parse_time_origin(text: str) -> int:
    """Return `--time-origin`, ISO 8601 or epoch seconds, in epoch milliseconds."""
    for reader in (NumberTimes("seconds"), TextTimes(ISO)):
        try:
            return reader.read(text)
        except ValueError:
            continue
    raise SourceError(f"--time-origin {text}: expected a time such as 2024-01-01T00:00:00Z")


def find_times(
    sample: Sequence[Any],
    column: str,
    path: Path,
    options: TimeOptions = TimeOptions(),  # noqa: B008  # immutable
) -> TimeReader:
    """Find the form of the times in a sample of a column.

    Numbers are seconds, milliseconds, microseconds or nanoseconds by their size: for one unit only they lie in 1990 to
    2100. Text is ISO 8601 or one of a list of common forms.

    Raises
    ------
    SourceError
        Neither holds for most of the sample, or day and month cannot be told apart.

    >>> find_times([b"1506826800", b"1506826801.5"], "ts", Path("x.csv")).description
    'seconds'
    """
    values = [cell.decode(errors="replace") if isinstance(cell, bytes) else cell for cell in sample]
    values = [value for value in values if value is not None and value != ""]
    where = f"{path}: column {column}"
    if options.pattern and options.pattern not in UNITS:
        return TextTimes(options.pattern)
    numbers = _numbers(values)
    if options.origin_ms is not None:
        return NumberTimes(options.pattern or "seconds", options.origin_ms)
    if options.pattern:
        return NumberTimes(options.pattern)
    if len(numbers) * 2 >= len(values) and numbers:
        return _number_times(values, float(np.median(numbers)), where)
    found = _text_times([value for value in values if isinstance(value, str)][:_TRIED], where)
    if found is not None:
        return found
    if numbers:
        return _number_times(values, float(np.median(numbers)), where)
    shown = next(iter(values), None)
    raise SourceError(
        f"{where}: {_short(shown)} is no time that is known: expected epoch seconds or milliseconds, or ISO 8601; "
        "give --time-format for another form, such as '%d/%m/%Y %H:%M'"
    )


def _numbers(values: Sequence[Any]) -> list[float]:
    numbers = []
    for value in values:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            continue
        if math.isfinite(number):
            numbers.append(number)
    return numbers


def _number_times(values: Sequence[Any], middle: float, where: str) -> TimeReader:
    for unit, factor in UNITS.items():
        if MIN_TS <= middle * factor < MAX_TS:
            return NumberTimes(unit)
    if all(_DAY.fullmatch(str(value)) for value in values):
        return TextTimes("%Y%m%d")
    raise SourceError(
        f"{where}: {middle:.15g} is a time between 1990 and 2100 neither in seconds nor in milliseconds: "
        "give --time-origin for times that count from another moment than 1970, such as 2024-01-01T00:00:00Z"
    )


def _text_times(values: Sequence[str], where: str) -> TimeReader | None:
    """Return the reader for most of these, None when there is none."""
    share = {pattern: _share_read(TextTimes(pattern), values) for pattern in (ISO, *_PATTERNS)}
    best = max(share.values(), default=0.0)
    if best <= 0.5:
        return None
    found = [pattern for pattern, read in share.items() if read == best]
    if len(found) > 1:
        raise SourceError(
            f"{where}: {_short(values[0])}: day or month first? Give --time-format '{found[0]}' or '{found[1]}'"
        )
    return TextTimes(found[0])


def _share_read(reader: TimeReader, values: Sequence[str]) -> float:
    good = 0
    for number, value in enumerate(values):
        if number == 5 and not good:  # most patterns fit nothing
            return 0.0
        try:
            good += MIN_TS <= reader.read(value) < MAX_TS
        except (ValueError, OverflowError):
            continue
    return good / len(values) if values else 0.0


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def in_time_order(times: NDArray[np.int64]) -> bool:
    """Whether no time (n,) is before the one in front of it."""
    return bool((np.diff(times) >= 0).all())


__all__ = [
    "ISO",
    "NumberTimes",
    "TextTimes",
    "TimeOptions",
    "TimeReader",
    "UNITS",
    "find_times",
    "in_time_order",
    "parse_time_format",
    "parse_time_origin",
]
