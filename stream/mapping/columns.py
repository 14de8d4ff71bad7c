"""Which column of a file holds which field of an event."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, cast, get_args

from stream.errors import SourceError

EventField = Literal["user", "item", "ts", "action", "value"]

# in lower case, preferred ones first; RetailRocket, REES46, OTTO, H&M, Amazon, RecBole, MovieLens, Yambda use them
COLUMN_NAMES: Final[dict[EventField, tuple[str, ...]]] = {
    "user": (
        *("user", "user_id", "userid", "uid", "visitorid", "visitor_id", "customer_id", "customerid", "customer"),
        *("reviewerid", "reviewer_id", "client_id", "clientid", "member_id", "account_id", "user_idx"),
        *("buyer_id", "shopper_id", "subscriber_id", "person_id", "reader_id", "username", "user_name", "anonymous_id"),
        *("session_id", "sessionid", "session", "device_id"),
    ),
    "item": (
        *("item", "item_id", "itemid", "iid", "product_id", "productid", "movieid", "movie_id", "parent_asin", "asin"),
        *("article_id", "articleid", "sku", "product", "aid", "track_id", "song_id", "video_id", "news_id", "book_id"),
        *("business_id", "content_id", "item_idx", "stock_code", "sku_id", "offer_id", "isbn", "anime_id", "recipe_id"),
        *("post_id", "game_id", "app_id", "listing_id", "hotel_id", "venue_id", "poi_id", "document_id", "doc_id"),
    ),
    "ts": (
        *(
            "ts",
            "timestamp",
            "time",
            "at",
            "timestamp_ms",
            "unixreviewtime",
            "event_time",
            "event_timestamp",
            "datetime",
        ),
        *("t_dat", "created_at", "eventdate", "date", "time_stamp", "unix_timestamp"),
    ),
    "action": (
        *("action", "event", "event_type", "eventtype", "event_name", "behavior", "behaviour", "behavior_type", "type"),
        *("interaction", "interaction_type", "action_type"),
    ),
    "value": ("value", "rating", "stars", "overall", "score"),
}
OPTIONAL_FIELDS: Final[tuple[EventField, ...]] = ("action", "value")
LINE_ORDER: Final = "none"  # the "column" of times that are the order of the lines
_RECBOLE: Final = re.compile(r":(token|token_seq|float|float_seq)$")
_SHOWN: Final = 20


def parse_columns(text: str) -> dict[EventField, str]:
    """Read `--columns user=…,item=…`; the part behind each field is a name, a dotted path, or a number from 1.

    Raises
    ------
    SourceError
        No such field, a field twice, or nothing behind it.

    >>> parse_columns("user=visitorid,ts=2")
    {'user': 'visitorid', 'ts': '2'}
    """
    found: dict[EventField, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        field, _, column = (piece.strip() for piece in part.partition("="))
        if field not in get_args(EventField) or not column:
            near = difflib.get_close_matches(field, get_args(EventField), 1, 0.5)
            hint = f", did you mean {near[0]}" if near and near[0] != field else ""
            raise SourceError(f"--columns {part}: expected user=, item=, ts=, action= or value= and a column{hint}")
        if field in found:
            raise SourceError(f"--columns {text}: {field} is there twice")
        found[cast(EventField, field)] = column
    return found


def find_columns(
    names: Sequence[str], path: Path, given: Mapping[EventField, str] | None = None
) -> dict[EventField, str]:
    """Find the columns by name, whatever the case; those in `given` are taken instead.

    Raises
    ------
    SourceError
        There is no user, item or time among them, or none of a given name.

    >>> find_columns(["User_ID", "item", "rating", "timestamp"], Path("x.csv"))
    {'user': 'User_ID', 'item': 'item', 'ts': 'timestamp', 'value': 'rating'}
    >>> find_columns(["user_id:token", "item_id:token", "timestamp:float"], Path("x.inter"))["item"]
    'item_id:token'
    """
    given = given or {}
    by_name = {plain_name(name): name for name in reversed(names)}
    found: dict[EventField, str] = {}
    for field, choices in _PLAIN_NAMES.items():
        if field in given:
            if given[field] != LINE_ORDER or field != "ts":
                found[field] = _named(given[field], names, path, field)
            continue
        taken = {*given.values(), *found.values()}
        name = next((by_name[choice] for choice in choices if by_name.get(choice, None) not in (None, *taken)), None)
        if name is not None:
            found[field] = name
        elif field not in OPTIONAL_FIELDS:
            raise _missing(field, names, path)
    return found


def preset_columns(names: Sequence[str], texts: Mapping[EventField, str]) -> dict[EventField, str]:
    """The columns that a preset names and the file has; of alternatives, the first.

    >>> preset_columns(["userId", "rating"], {"user": "userId|1", "item": "movieId|2"})
    {'user': 'userId'}
    """
    by_name = {plain_name(name): name for name in reversed(names)}
    found: dict[EventField, str] = {}
    for field, text in texts.items():
        column = next((by_name[plain_name(one)] for one in text.split("|") if plain_name(one) in by_name), None)
        if column is not None and column not in found.values():
            found[field] = column
    return found


def plain_name(name: str) -> str:
    """The name in lower case without RecBole's type, the list that it is in, blanks and underscores.

    >>> plain_name("Customer ID") == plain_name("customerId") == plain_name("customer_id:token")
    True
    """
    return re.sub(r"[\s_.-]+", "", _RECBOLE.sub("", name.strip().lower()).rpartition("[].")[2])


def known_fields(names: Sequence[str]) -> set[EventField]:
    """The fields that the names of some columns are known for."""
    plain = {plain_name(name) for name in names}
    return {field for field, choices in _PLAIN_NAMES.items() if plain & set(choices)}


def _missing(field: EventField, names: Sequence[str], path: Path) -> SourceError:
    hint = f"or give --columns {field}=NAME"
    if field == "ts":
        hint += f"; with --columns ts={LINE_ORDER} the order of the lines counts"
    return SourceError(
        f"{path}: no column for {field}: found {_listed(names)}; "
        f"expected one of {', '.join(COLUMN_NAMES[field][:8])}, …; {hint}"
    )


def _named(column: str, names: Sequence[str], path: Path, field: EventField) -> str:
    if column in names:
        return column
    if column.isdigit() and 1 <= int(column) <= len(names):
        return names[int(column) - 1]
    by_lower = {plain_name(name): name for name in reversed(names)} | {name.lower(): name for name in reversed(names)}
    if column.lower() in by_lower:
        return by_lower[column.lower()]
    near = difflib.get_close_matches(column.lower(), by_lower, 1, 0.6)
    hint = f"; did you mean {by_lower[near[0]]}?" if near else ""
    raise SourceError(f"{path}: --columns {field}={column}: no such column: found {_listed(names)}{hint}")


def _listed(names: Sequence[str]) -> str:
    shown = (name if name.isprintable() else repr(name) for name in names[:_SHOWN])
    return ", ".join(name[:60] for name in shown) + (", …" if len(names) > _SHOWN else "")


_PLAIN_NAMES: Final = {field: tuple(map(plain_name, names)) for field, names in COLUMN_NAMES.items()}

__all__ = [
    "COLUMN_NAMES",
    "EventField",
    "LINE_ORDER",
    "OPTIONAL_FIELDS",
    "find_columns",
    "known_fields",
    "parse_columns",
    "plain_name",
    "preset_columns",
]
