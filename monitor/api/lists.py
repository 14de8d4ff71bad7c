"""Routes that answer with a list of items: of a user, of a session that is sent along, like an item, popular."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from fastapi import FastAPI, Path, Query, Request
from starlette.responses import Response

from monitor.answers import ItemList, SessionRequest
from monitor.api.openapi import answers, json_body
from monitor.api.parameters import Exclude, User, checked_id, reply
from monitor.http.problems import Problem
from monitor.service import Service
from stream.schema.events import MAX_ID_BYTES, ActionsConfig
from stream.schema.messages import Recommendations, Recommended
from stream.schema.ranked_items import RankedItems, SessionEvent

_MOST_ITEMS: Final = 100
Length = Annotated[int, Query(ge=1, le=_MOST_ITEMS, description="most items of the answer")]
Item = Annotated[str, Path(min_length=1, max_length=MAX_ID_BYTES, description="item id, 1 to 256 bytes of UTF-8")]
_decode_session = msgspec.json.Decoder(SessionRequest).decode


def add_list_routes(app: FastAPI, service: Service) -> None:
    """Add `/recommendations/{user}`, `/recommendations`, `/items/{item}/similar` and `/popular`."""
    users, lists = service.view.users, service.lists

    @app.get(
        "/recommendations/{user:id}",
        summary="The newest list of a user; popular items for somebody unknown",
        responses=answers(ItemList),
        response_model=None,
    )
    async def recommendations(user: User, k: Length = 10, exclude: Exclude = None) -> Response:
        published = users.recommendations(checked_id(user, "user"))
        unwanted = frozenset(exclude or ())
        kept = None if published is None else _without(published, unwanted)
        if kept is not None and (len(kept.items) >= k or not lists.available):
            return reply(msgspec.structs.replace(kept, items=kept.items[:k]))
        found = await lists.rank(_events(service, user), k, unwanted)
        # The published list is the newer one: a longer one alone is better.
        return reply(_to_answer(found) if kept is None or len(found.items) > len(kept.items) else kept)

    @app.post(
        "/recommendations",
        summary="A list for a session that is sent along; nothing of it is kept",
        responses=answers(ItemList),
        response_model=None,
        openapi_extra=json_body("SessionRequest"),
    )
    async def for_session(request: Request) -> Response:
        wanted = _session(await request.body())
        events = _session_events(wanted, service.actions)
        return reply(_to_answer(await lists.rank(events, wanted.k, frozenset(wanted.exclude))))

    @app.get(
        "/items/{item:id}/similar",
        summary="Items for somebody who took this one alone",
        responses=answers(ItemList),
        response_model=None,
    )
    async def similar(item: Item, k: Length = 10, exclude: Exclude = None) -> Response:
        found = await lists.similar(checked_id(item, "item"), k, frozenset(exclude or ()))
        if found is None:
            raise Problem(404, "the model does not know this item: nobody took it lately")
        return reply(_to_answer(found))

    @app.get("/popular", summary="The popular items", responses=answers(ItemList), response_model=None)
    async def popular(k: Length = 10, exclude: Exclude = None) -> Response:
        return reply(_to_answer(await lists.rank([], k, frozenset(exclude or ()))))


def _without(published: Recommendations, unwanted: frozenset[str]) -> Recommendations:
    return msgspec.structs.replace(published, items=[one for one in published.items if one.item not in unwanted])


def _events(service: Service, user: str) -> list[SessionEvent]:
    """The history of a user as the view has it, oldest first."""
    codes = service.actions.codes()
    history = service.view.users.history(user)
    return [SessionEvent(one.item, codes.get(one.action or "", 0), one.ts) for one in reversed(history)]


def _session(body: bytes) -> SessionRequest:
    try:
        return _decode_session(body)
    except msgspec.ValidationError as exc:
        raise Problem(422, str(exc)) from None
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as exc:
        raise Problem(400, f"the body is not JSON: {exc}") from None


def _session_events(wanted: SessionRequest, actions: ActionsConfig) -> list[SessionEvent]:
    codes = actions.codes()
    events = []
    for place, one in enumerate(wanted.events):
        code = 0 if one.action is None else codes.get(one.action, 0 if actions.other == "default" else None)
        if code is None:
            raise Problem(422, f"events[{place}].action = {one.action!r:.100}: must be one of {', '.join(codes)}")
        events.append(SessionEvent(checked_id(one.item, "item"), code, one.ts))
    return sorted(events, key=lambda event: event.ts)  # stable: events of one time stay in the order of the request


def _to_answer(found: RankedItems) -> ItemList:
    return ItemList(
        items=[Recommended(item=item, score=score) for item, score in zip(found.items, found.scores, strict=True)],
        source=found.source,
        intent=found.intent,
        because=found.because,
        step=found.step,
        model_step=found.model_step,
    )
