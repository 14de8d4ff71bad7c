"""What the routes share: path and query parameters, their checks, JSON answers."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Final

import msgspec
from fastapi import Path, Query, Request
from fastapi.routing import APIRoute
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.responses import Response

from monitor.http.problems import Problem
from stream.schema.events import MAX_ID_BYTES, is_visible

User = Annotated[str, Path(min_length=1, max_length=MAX_ID_BYTES, description="user id, 1 to 256 bytes of UTF-8")]
Limit = Annotated[int, Query(ge=1, le=500, description="most entries of the answer")]

Exclude = Annotated[
    list[str] | None,
    Query(max_length=100, description="an item that the list must not hold; may stand several times"),
]
_REPEATABLE: Final = frozenset({"exclude"})
_SHOWN_CHARACTERS: Final = 100


class _IdConvertor(PathConvertor):
    """Any character that an id may hold: `path` leaves line breaks out, and such a user could not be erased."""

    regex = "(?s:.*)"


register_url_convertor("id", _IdConvertor())


def reply(answer: Any, status: int = 200) -> Response:
    """A struct as a JSON answer."""
    return Response(msgspec.json.encode(answer), status, media_type="application/json")


def checked_id(given: str, kind: str) -> str:
    """Return a user's or an item's id, or raise `Problem` 422 when no event can have it."""
    try:
        size = len(given.encode())
    except UnicodeEncodeError:
        raise Problem(422, f"the {kind} id is not UTF-8") from None
    if not 1 <= size <= MAX_ID_BYTES:
        raise Problem(422, f"the {kind} id has {size} bytes; it must have 1 to {MAX_ID_BYTES}")
    if not is_visible(given):
        raise Problem(422, f"the {kind} id must have one visible character at least, and no NUL")
    return given


async def known_parameters(request: Request) -> None:
    """Raise `Problem` 400 for a query parameter that the route does not have or that stands twice.

    A parameter without effect would be an answer to another question than the one that was asked. The page's own routes
    read theirs by themselves.
    """
    given, route = request.query_params, request.scope.get("route")
    if not given or not isinstance(route, APIRoute) or not route.include_in_schema:
        return
    known = [parameter.alias for parameter in route.dependant.query_params]
    for name in given:
        shown = name[:_SHOWN_CHARACTERS]
        if name not in known:
            close = difflib.get_close_matches(name[:_SHOWN_CHARACTERS], known, 1, 0.5)
            rule = f"did you mean {close[0]!r}?" if close else f"this route has {', '.join(known) or 'none'}"
            raise Problem(400, f"there is no query parameter {shown!r}; {rule}")
        if name not in _REPEATABLE and len(given.getlist(name)) > 1:
            raise Problem(400, f"the query parameter {shown!r} stands twice")
