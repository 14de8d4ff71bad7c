"""Routes that write: append events, request an erasure."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Iterator
from typing import Annotated, Final
from urllib.parse import quote

import msgspec
from fastapi import FastAPI, Header, Request
from starlette.responses import Response

from monitor.answers import Appended, ErasureAccepted, EventRefusal
from monitor.api.openapi import answers, body_of_events
from monitor.api.parameters import User, checked_id, reply
from monitor.appending import event_message
from monitor.http.problems import Problem
from monitor.idempotency import log_key, too_old
from monitor.service import Service
from stream.log.base import LogError, Message
from stream.schema import topics
from stream.schema.bare_numbers import wrap_bare_numbers
from stream.schema.decoder import Decoded

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=128,
        pattern=r"^[\x21-\x7e]+$",
        description="events of the same key and body are appended once within a day, however often they are sent; "
        "another body under a key is refused (422) if the key came since `idempotency-compared-since`, a header of the "
        "answer in epoch milliseconds, and appended if it came before",
    ),
]
_LINES: Final = frozenset(
    {"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"}
)
_MOST_COMMAS: Final = 16  # per accepted event: more could be millions of values
_PART_EVENTS: Final = 256  # decoded at a time: some 20 ms if all are bad
_PART_BYTES: Final = 16 * 1024
_split_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_check_json = msgspec.json.Decoder(msgspec.Raw).decode


def split_events(content_type: str, body: bytes, most: int) -> list[bytes]:
    """The events of a request's body, as the bytes that came.

    It takes time and memory linear in the body, and a bounded number of objects.

    Raises
    ------
    Problem
        415 another content type, 400 not JSON, 422 no event, 413 too many.
    """
    kind = content_type.partition(";")[0].strip().lower()
    body = body.removeprefix(codecs.BOM_UTF8)
    if kind in _LINES:
        values = _split_lines(body, most)
    elif kind == "application/json":
        values = _split_json(body, most)
    else:
        raise Problem(
            415, f"content type {kind[:80]!r} is not supported: send application/json or application/x-ndjson"
        )
    if not values:
        raise Problem(422, "there is no event in the body")
    if len(values) > most:
        raise Problem(413, f"more than {most} events in one request")
    return values


def _split_lines(body: bytes, most: int) -> list[bytes]:
    lines = body.count(b"\n")
    if lines > 2 * most:
        raise Problem(413, f"{lines} lines in one request, empty ones included; at most {2 * most} are accepted")
    return [line for line in body.split(b"\n") if line.strip()]


def _split_json(body: bytes, most: int) -> list[bytes]:
    commas = body.count(b",")
    if commas > _MOST_COMMAS * most:
        raise Problem(
            413,
            f"{commas} commas in one JSON document; at most {_MOST_COMMAS * most} are accepted: "
            "send fewer events, or send them as application/x-ndjson",
        )
    body = wrap_bare_numbers(body)
    try:
        if body.lstrip()[:1] == b"[":
            found = _split_array(body)
            return [bytes(raw) for raw in found[: most + 1]]
        _check_json(body)  # without making objects of it
        return [body.strip()]
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as exc:
        raise Problem(400, f"the body is not JSON: {exc}") from None


class Judged(msgspec.Struct):
    """The events of a request, judged: records for the input topic in the order in which they came, and refusals."""

    messages: list[Message] = []
    refused: list[EventRefusal] = []


async def judge(service: Service, values: list[bytes]) -> Judged:
    """Decode events in small parts; other requests have their turn between two parts, whatever the events hold."""
    judged = Judged()
    for begin, part in _parts(values):
        now_ms = service.clock_ms()
        decoded = service.decoder.decode(part, [None] * len(part), [now_ms] * len(part))
        judged.messages += to_messages(part, decoded, now_ms, service.events.topic)
        judged.refused += [
            EventRefusal(index=begin + bad.index, reason=bad.reason, field=bad.field, value=bad.value, rule=bad.rule)
            for bad in decoded.rejections
        ]
        await asyncio.sleep(0)
    return judged


def _parts(values: list[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Parts of the values, each with the place where it begins."""
    begin = size = 0
    for place, value in enumerate(values):
        if place > begin and (place - begin == _PART_EVENTS or size + len(value) > _PART_BYTES):
            yield begin, values[begin:place]
            begin, size = place, 0
        size += len(value)
    yield begin, values[begin:]


def to_messages(values: list[bytes], decoded: Decoded, now_ms: int, topic: str = topics.EVENTS) -> list[Message]:
    """Records for the input topic, in the order in which they came, of which all events are good."""
    good = dict(zip(decoded.index.tolist(), decoded.events.users, strict=True))
    good |= {one.index: one.user for one in decoded.erasures}
    for bad in decoded.rejections:  # of a record with several items
        good.pop(bad.index, None)
    return [event_message(user, values[index], now_ms, topic) for index, user in sorted(good.items())]


async def append(service: Service, messages: list[Message], idempotency_key: bytes | None = None) -> bool:
    """Append messages and return when they are durable; False when the log had them already, by the key.

    Raises
    ------
    Problem
        503 with `retry-after` when the log does not answer or has no room, 500 when it refuses.
    """
    if service.appender is None:
        raise Problem(503, "this monitor was started without a way to append events")
    try:
        return await service.appender.append(messages, idempotency_key)
    except LogError as exc:
        if exc.retriable:
            raise Problem(503, f"the log takes no events at present: {exc}", {"retry-after": "1"}) from exc
        raise Problem(500, f"the log refused the events: {exc}") from exc


async def append_events(service: Service, content_type: str, body: bytes, key: str | None = None) -> Response:
    """Append the good events of a request; once for an idempotency key."""
    values = split_events(content_type, body, service.config.max_batch_events)
    judged = await judge(service, values)
    messages, refused = judged.messages, judged.refused
    if not messages and refused:
        first = refused[0]
        raise Problem(
            422,
            f"every event was refused; the first: {first.reason}: {first.field}: {first.rule}",
            refused=msgspec.to_builtins(refused[:1000]),
        )
    is_new = not messages or await append(service, messages, None if key is None else log_key(key, body))
    if is_new:
        service.telemetry.appended(len(messages), len(refused))
    response = reply(Appended(appended=len(messages), refused=refused))
    if not is_new:
        response.headers["idempotent-replayed"] = "true"
    return response


async def append_once(service: Service, key: str, content_type: str, body: bytes) -> Response:
    """Append the events of a request once for an idempotency key, however often the request comes."""
    if too_old(key, service.clock_ms()):
        raise Problem(
            422,
            f"idempotency key {key!r} was made more than a day ago, and keys are known for a day: the events may be in "
            "the log already; look for them, and send them with a new key",
        )
    conflict = service.recent_keys.begin(key, body, service.clock_ms())
    if conflict == "other body":
        raise Problem(422, f"idempotency key {key!r} was used with another body")
    if conflict:
        raise Problem(409, f"the request with idempotency key {key!r} is still under way", {"retry-after": "1"})
    appended = False
    try:
        response = await append_events(service, content_type, body, key)
        appended = True
    finally:
        service.recent_keys.finish(key, appended=appended)
    response.headers["idempotency-compared-since"] = str(service.recent_keys.since_ms)
    return response


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
        return await append_events(service, content_type, body)

    @app.delete(
        "/users/{user:id}",
        status_code=202,
        summary="Forget a user",
        responses=answers(ErasureAccepted, 202),
        response_model=None,
    )
    async def delete_user(user: User) -> Response:
        name, now_ms = checked_id(user, "user"), service.clock_ms()
        value = msgspec.json.encode({"user": name, "action": "erase", "ts": now_ms})
        await append(service, [event_message(name.encode(), value, now_ms, service.events.topic)])
        return reply(ErasureAccepted(user=name, receipt=f"/erasures/{quote(name, safe='')}"), 202)
