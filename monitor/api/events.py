"""Routes that write: append events, request an erasure."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import quote

import msgspec
from fastapi import FastAPI, Header, Request
from starlette.responses import Response

from monitor.answers import Appended, ErasureAccepted, EventRefusal
from monitor.api.openapi import answers, body_of_events
from monitor.api.parameters import User, checked_user, reply
from monitor.appending import Idempotency, event_message
from monitor.http.problems import Problem
from monitor.service import Service
from stream.log.base import LogError, Message
from stream.schema.decoder import Decoded

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=128,
        pattern=r"^[\x21-\x7e]+$",
        description="the same key with the same body gets the first answer again, and the events are appended once",
    ),
]
_LINES: Final = frozenset(
    {"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"}
)
_split_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


def split_events(content_type: str, body: bytes, most: int) -> list[bytes]:
    """The events of a request's body, as the bytes that came.

    Raises
    ------
    Problem
        415 another content type, 400 not JSON, 422 no event, 413 too many.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind in _LINES:
        values = [line for line in body.split(b"\n") if line.strip()]
    elif kind == "application/json":
        try:
            if body.lstrip()[:1] == b"[":
                values = [bytes(raw) for raw in _split_array(body)]
            else:
                msgspec.json.decode(body)
                values = [body.strip()]
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as exc:
            raise Problem(400, f"the body is not JSON: {exc}") from None
    else:
        raise Problem(
            415, f"content type {kind[:80]!r} is not supported: send application/json or application/x-ndjson"
        )
    if not values:
        raise Problem(422, "there is no event in the body")
    if len(values) > most:
        raise Problem(413, f"{len(values)} events in one request; at most {most} are accepted")
    return values


def to_messages(values: list[bytes], decoded: Decoded, now_ms: int) -> list[Message]:
    """Records for the input topic, in the order in which they came, for all events that are good."""
    good = list(zip(decoded.index.tolist(), decoded.events.users, strict=True))
    good += [(one.index, one.user) for one in decoded.erasures]
    return [event_message(user, values[index], now_ms) for index, user in sorted(good)]


async def append(service: Service, messages: list[Message]) -> None:
    """Append messages and return when they are durable; raises `Problem` when the log does not take them."""
    if service.appender is None:
        raise Problem(503, "this monitor was started without a way to append events")
    try:
        await service.appender.append(messages)
    except LogError as exc:
        if exc.retriable:
            raise Problem(503, f"the log takes no events at present: {exc}", {"retry-after": "1"}) from exc
        raise Problem(500, f"the log refused the events: {exc}") from exc


async def append_events(service: Service, content_type: str, body: bytes) -> bytes:
    """Append the good events of a request; the answer as JSON."""
    values = split_events(content_type, body, service.config.max_batch_events)
    decoded = service.decoder.decode(values, [None] * len(values))
    messages = to_messages(values, decoded, service.clock_ms())
    refused = [
        EventRefusal(index=bad.index, reason=bad.reason, field=bad.field, value=bad.value, rule=bad.rule)
        for bad in decoded.rejections
    ]
    if not messages:
        first = refused[0]
        raise Problem(
            422,
            f"every event was refused; the first: {first.reason}: {first.field}: {first.rule}",
            refused=msgspec.to_builtins(refused[:1000]),
        )
    await append(service, messages)
    service.telemetry.appended(len(messages), len(refused))
    return msgspec.json.encode(Appended(appended=len(messages), refused=refused))


async def append_once(service: Service, key: str, content_type: str, body: bytes) -> Response:
    """Append the events of a request once for an idempotency key, however often the request comes."""
    known = service.idempotency.begin(key, body, service.clock_ms())
    if known is not None:
        if known.digest != Idempotency.digest(body):
            raise Problem(422, f"idempotency key {key!r} was used with another body")
        if known.answer is None:
            raise Problem(409, f"the request with idempotency key {key!r} is still under way")
        return Response(known.answer, media_type="application/json", headers={"idempotent-replayed": "true"})
    try:
        answer = await append_events(service, content_type, body)
    except BaseException:
        service.idempotency.abandon(key)
        raise
    service.idempotency.finish(key, body, service.clock_ms(), answer)
    return Response(answer, media_type="application/json")


def add_event_routes(app: FastAPI, service: Service) -> None:
    """Add `POST /events` and `DELETE /users/{user}`."""

    @app.post(
        "/events",
        summary="Append events; the answer comes when they are durable",
        responses=answers(Appended),
        openapi_extra=body_of_events(),
        response_model=None,
    )
    async def post_events(request: Request, idempotency_key: Key = None) -> Response:
        content_type = request.headers.get("content-type", "")
        body = await request.body()
        if idempotency_key is not None:
            return await append_once(service, idempotency_key, content_type, body)
        return Response(await append_events(service, content_type, body), media_type="application/json")

    @app.delete(
        "/users/{user:id}",
        status_code=202,
        summary="Forget a user",
        responses=answers(ErasureAccepted, 202),
        response_model=None,
    )
    async def delete_user(user: User) -> Response:
        name, now_ms = checked_user(user), service.clock_ms()
        value = msgspec.json.encode({"user": name, "action": "erase", "ts": now_ms})
        await append(service, [event_message(name.encode(), value, now_ms)])
        return reply(ErasureAccepted(user=name, receipt=f"/erasures/{quote(name, safe='')}"), 202)
