"""Finding the form of the times of a file, and the options that give it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from stream.errors import ConfigError, SourceError
from stream.mapping.times import ISO, UNITS, AnyTimes, NumberTimes, TextTimes, TimeReader
from stream.schema.events import MAX_TS, MIN_TS

_UNIT_NAMES: Final = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "µs": "microseconds"} | {
    "ns": "nanoseconds",
    **{name: name for name in UNITS},
}
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
_DAY: Final = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")


@dataclass(frozen=True, slots=True)
class TimeOptions:
    """What the user says about the times; empty or None where nothing is said."""

    pattern: str = ""  # a unit, `iso`, or a pattern of strptime
    origin_ms: int | None = None  # numbers are counted from it
    zone: tzinfo = UTC  # of text that names none

    @classmethod
    def of(cls, time_format: str, time_origin: str, time_zone: str, prefix: str) -> TimeOptions:
        """Read the three settings, "" where not given; `prefix` is what stands before their names in messages.

        Raises
        ------
        ConfigError
            One of them cannot be understood.
        """
        try:
            zone = ZoneInfo(time_zone) if time_zone else UTC
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ConfigError(
                f"{prefix}time_zone {time_zone!r}: there is no such zone; expected a name such as Europe/Berlin"
            ) from None
        return cls(
            parse_time_format(time_format) if time_format else "",
            parse_time_origin(time_origin) if time_origin else None,
            zone,
        )

    def reader(self) -> TimeReader:
        """The reader of times that come one by one: what is not given is found in each of them."""
        if self.pattern and self.pattern not in UNITS:
            return TextTimes(self.pattern, self.zone)
        if self.pattern or self.origin_ms is not None:
            return NumberTimes(self.pattern or "seconds", self.origin_ms or 0)
        return AnyTimes(self.zone)


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
        return TextTimes(options.pattern, options.zone)
    numbers = _numbers(values)
    if options.origin_ms is not None:
        return NumberTimes(options.pattern or "seconds", options.origin_ms)
    if options.pattern:
        return NumberTimes(options.pattern)
    if len(numbers) * 2 >= len(values) and numbers:
        return _number_times(values, float(np.median(numbers)), where)
    found = _text_times([value for value in values if isinstance(value, str)][:_TRIED], where, options.zone)
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


def _text_times(values: Sequence[str], where: str, zone: tzinfo) -> TimeReader | None:
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
    return TextTimes(found[0], zone)


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


__all__ = ["TimeOptions", "find_times", "parse_time_format", "parse_time_origin"]
