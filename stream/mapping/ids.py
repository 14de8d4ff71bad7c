"""Ids as files write them: `7`, `7.0` and `7 ` are one user, and `nan` is none."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Final
from uuid import UUID

# what pandas and database exports write for a missing value; the same list as pandas reads
MISSING: Final = frozenset(
    ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"]
    + ["NULL", "NaN", "None", "n/a", "nan", "null", "\\N"]
)
_WHOLE_FLOAT: Final = re.compile(r"(-?\d+)\.0+")
_EXPONENT: Final = re.compile(r"-?\d(\.\d+)?[eE]\+\d+")  # R writes 100000 as 1e+05
_EXACT: Final = float(1 << 53)  # below, a float holds every whole number
_BLANK: Final = re.compile(r"\s")


def normalize_id(text: str) -> str:
    """Return the id without blanks around it and a whole number in its digits; empty when it is missing.

    Leading zeros stay: `007` is another user than `7`.

    >>> [normalize_id(text) for text in ["7", "7.0", "7 ", "007", "v1.0", "1e+05", "nan"]]
    ['7', '7', '7', '007', 'v1.0', '100000', '']
    """
    text = text.strip()
    if text in MISSING:
        return ""
    number = _WHOLE_FLOAT.fullmatch(text)
    if number:
        return number.group(1)
    if _EXPONENT.fullmatch(text) and abs(float(text)) < _EXACT and float(text).is_integer():
        return str(int(float(text)))
    return text


def id_text(value: object) -> str:
    """Return an id of any type as text, "" for a missing one.

    Raises
    ------
    ValueError
        It is no id: a fraction, a number of very many digits, a list, …

    >>> id_text(7), id_text(7.0), id_text(" 7 "), id_text(b"x7")
    ('7', '7', '7', 'x7')
    """
    if isinstance(value, str):
        plain = value.replace("-", "").replace("_", "").isalnum()  # most ids, UUIDs too
        return value if plain and value not in MISSING else normalize_id(value)
    if isinstance(value, bytes):
        return normalize_id(value.decode())
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("expected text or an integer")
    if not isinstance(value, int) and not (math.isfinite(value) and value == int(value)):
        raise ValueError(f"{value!r} is no id: expected text or an integer")
    if not -(1 << 200) < value < 1 << 200:
        raise ValueError("a number of very many digits")
    return str(int(value))


def normalize_ids(ids: list[str]) -> list[str]:
    """Normalize many ids; returns the list itself when none needs it."""
    text = "\0".join(ids)
    if (
        MISSING.isdisjoint(ids)
        and ".0" not in text
        and "e+" not in text
        and "E+" not in text
        and not _BLANK.search(text)
    ):
        return ids
    return [normalize_id(one) for one in ids]


__all__ = ["MISSING", "id_text", "normalize_id", "normalize_ids"]
