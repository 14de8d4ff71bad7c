"""Which column of a file holds which field of an event."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from stream.errors import SourceError

EventField = Literal["user", "item", "ts", "action", "value"]

COLUMN_NAMES: Final[dict[EventField, tuple[str, ...]]] = {
    "user": ("user", "user_id", "userid", "uid", "visitorid", "visitor_id", "customer_id", "reviewerid"),
    "item": ("item", "item_id", "itemid", "iid", "product_id", "movieid", "movie_id", "asin", "article_id"),
    "ts": ("ts", "timestamp", "time", "timestamp_ms", "unixreviewtime", "event_time"),
    "action": ("action",),
    "value": ("value", "rating"),
}
OPTIONAL_FIELDS: Final[tuple[EventField, ...]] = ("action", "value")


def find_columns(names: Sequence[str], path: Path) -> dict[EventField, str]:
    """Find the columns by name, whatever the case.

    Raises
    ------
    SourceError
        There is no user, item or time among them.

    >>> find_columns(["User_ID", "item", "rating", "timestamp"], Path("x.csv"))
    {'user': 'User_ID', 'item': 'item', 'ts': 'timestamp', 'value': 'rating'}
    """
    by_lower = {name.lower(): name for name in reversed(names)}
    found: dict[EventField, str] = {}
    for field, choices in COLUMN_NAMES.items():
        for choice in choices:
            if choice in by_lower:
                found[field] = by_lower[choice]
                break
        else:
            if field in ("user", "item", "ts"):
                shown = ", ".join(name if name.isprintable() else repr(name) for name in names[:20]) + (
                    ", …" if len(names) > 20 else ""
                )
                raise SourceError(f"{path}: no column for {field}: found {shown}; expected one of {', '.join(choices)}")
    return found


__all__ = ["COLUMN_NAMES", "EventField", "OPTIONAL_FIELDS", "find_columns"]
