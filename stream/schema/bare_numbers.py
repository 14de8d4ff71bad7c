"""`NaN`, `Infinity` and `-Infinity` in JSON: not valid, but many programs write them for missing numbers."""

from __future__ import annotations

import re
from typing import Any, Final

_NAMES: Final = (b"NaN", b"Infinity")
# A string is passed over as a whole, also one without end: each byte is looked at once.
_string_or_number = re.compile(rb'"(?:[^"\\]+|\\.?)*+"?|-?(?:NaN|Infinity)', re.DOTALL)
_SOURCES: Final = {b'["%b"]' % number: number for number in (b"NaN", b"Infinity", b"-Infinity")}


def wrap_bare_numbers(data: bytes) -> bytes:
    """Write each bare `NaN` as `["NaN"]`, so that the rest can be parsed: a list is no valid value of any field.

    >>> wrap_bare_numbers(b'{"item": "NaN", "value": NaN, "a": [-Infinity]}')
    b'{"item": "NaN", "value": ["NaN"], "a": [["-Infinity"]]}'
    """
    if not any(name in data for name in _NAMES):
        return data
    return _string_or_number.sub(_wrap, data)


def unwrap_bare_number(token: bytes) -> bytes:
    """The number in a token that `wrap_bare_numbers` made, to show it; any other token as it is."""
    return _SOURCES.get(token, token)


def unwrapped(value: Any) -> Any:
    """The name of the number, where a parsed value is one that `wrap_bare_numbers` made; any other value as it is."""
    if isinstance(value, list) and len(value) == 1 and b'["%b"]' % str(value[0]).encode("utf-8", "replace") in _SOURCES:
        return value[0]
    return value


def _wrap(match: re.Match[bytes]) -> bytes:
    found = match.group()
    return found if found.startswith(b'"') else b'["%b"]' % found


__all__ = ["unwrap_bare_number", "unwrapped", "wrap_bare_numbers"]
