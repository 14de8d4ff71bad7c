"""Times in files: their unit, and how they become epoch milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream.errors import SourceError
from stream.schema.events import MAX_TS, MIN_TS

UNITS: Final = {"seconds": 1e3, "milliseconds": 1.0, "microseconds": 1e-3, "nanoseconds": 1e-6}  # ms in one


def find_unit(sample: Sequence[Any], column: str, path: Path) -> str:
    """Tell seconds from milliseconds by where the times would lie: 1990 to 2100 holds for one unit only.

    >>> find_unit([b"1506826800", b"1506826801.5"], "ts", Path("x.csv"))
    'seconds'
    """
    numbers = []
    for value in sample:
        try:
            numbers.append(float(value))
        except (TypeError, ValueError):
            continue
    if not numbers:
        shown = next((value for value in sample if value is not None), None)
        text = shown.decode(errors="replace") if isinstance(shown, bytes) else shown
        raise SourceError(f"{path}: column {column}: {text!r} is no number: expected epoch seconds or milliseconds")
    middle = float(np.median(numbers))
    for unit, factor in UNITS.items():
        if MIN_TS <= middle * factor < MAX_TS:
            return unit
    raise SourceError(
        f"{path}: column {column}: {middle:.15g} is a time between 1990 and 2100 neither in seconds nor in milliseconds"
    )


def to_milliseconds(cells: Sequence[bytes], factor: float) -> NDArray[np.int64]:
    """Parse numbers and scale them; ValueError when one is none, or is not finite.

    >>> to_milliseconds([b"1506826800", b"1506826801.5"], 1e3).tolist()
    [1506826800000, 1506826801500]
    """
    try:
        return scale_to_milliseconds(np.array(cells, dtype=np.bytes_).astype(np.int64), factor)
    except ValueError:
        values = np.array([float(cell) for cell in cells])
        if not (np.abs(values * factor) < 1 << 62).all():
            raise ValueError("not a time") from None
        return scale_to_milliseconds(values, factor)


def scale_to_milliseconds(values: NDArray[Any], factor: float) -> NDArray[np.int64]:
    """Times in milliseconds; `factor` is that of their unit in `UNITS`."""
    if values.dtype.kind == "i":
        if factor == 1.0:
            return np.asarray(values, dtype=np.int64)
        if factor < 1:
            return values // int(round(1 / factor))
        # 0 is refused as bad_ts, as is any time that does not fit after scaling
        return np.where(np.abs(values) < 1 << 52, values, 0) * int(factor)
    return np.round(np.asarray(values, dtype=np.float64) * factor).astype(np.int64)


def in_time_order(sample: Sequence[bytes]) -> bool:
    """Whether no time is before the one in front of it; true also when one is no number."""
    try:
        return bool((np.diff(to_milliseconds(sample, 1.0)) >= 0).all())
    except ValueError:
        return True


__all__ = ["UNITS", "find_unit", "in_time_order", "scale_to_milliseconds", "to_milliseconds"]
