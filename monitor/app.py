"""The HTTP API: routes, checks of what comes in, problem details."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path as FilePath
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import quote

import msgspec
from fastapi import FastAPI, Header, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from monitor.answers import (
    Appended,
    DeadLetterAnswer,
    DeadLetters,
    Drift,
    Episode,
    ErasureAccepted,
    EventRefusal,
    HistoryEvent,
    IntentCatalog,
    IntentPage,
    IntentSample,
    Status,
    UserView,
)
from monitor.api.openapi import answers, body_of_events, document
from monitor.appending import Idempotency, event_message
from monitor.config import MonitorConfig
from monitor.http.middleware import Guard
from monitor.http.problems import Problem
from monitor.metrics import CONTENT_TYPE
from monitor.service import Service
from monitor.view.records import Sample
from stream.log.base import EventLog, LogError, Message
from stream.schema.decoder import Decoded
from stream.schema.events import MAX_ID_BYTES, ActionsConfig
from stream.schema.messages import IntentShift

T = TypeVar("T")
Topic = Literal[
    "recommendations",
    "intent-shifts",
    "intent-catalog",
    "drift-alerts",
    "stream-metrics",
    "erasures",
    "behavior-events.dead-letter",
]
User = Annotated[str, Path(min_length=1, max_length=MAX_ID_BYTES, description="user id, 1 to 256 bytes of UTF-8")]
Limit = Annotated[int, Query(ge=1, le=500, description="most entries of the answer")]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=128,
        pattern=r"^[\x21-\x7e]+$",
        description="the same key with the same body is answered as the first time and appended once",
    ),
]
_LINES: Final = frozenset(
    {"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"}
)
_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode
_MAX_INT: Final = (1 << 53) - 1


class _Id(PathConvertor):
    """Whatever an id may hold: `path` leaves line breaks out, and such a user could not be erased."""

    regex = "(?s:.*)"


register_url_convertor("id", _Id())


def reply(answer: Any, status: int = 200) -> Response:
    """A struct as a JSON answer."""
    return Response(msgspec.json.encode(answer), status, media_type="application/json")


def checked_user(user: str) -> str:
    """The id, refused when it is longer than any event may have."""
    try:
        size = len(user.encode())
    except UnicodeEncodeError:
        raise Problem(422, "the user id is not UTF-8") from None
    if not 1 <= size <= MAX_ID_BYTES:
        raise Problem(422, f"the user id has {size} bytes, 1 to {MAX_ID_BYTES} are possible")
    return user


def create_app(
    log: EventLog,
    config: MonitorConfig,
    view_path: FilePath,
    producer: EventLog | None,
    *,
    actions: ActionsConfig | None = None,
    page: bool = True,
) -> FastAPI:
    """The whole server as an ASGI application; its lifespan starts and ends the threads.

    Parameters
    ----------
    log
        A log handle for reading that nobody else uses: an `EventLog` belongs to one thread, here the reader's.
    view_path
        Folder of the view; one monitor each.
    producer
        A second handle for `POST /events` and erasures; None: those answer 503.
    actions
        The worker's actions, by which events are checked before they are appended.
    page
        Serve the page too; once per process, because NiceGUI has one application per process.
    """
    service = Service(log, config, view_path, producer, actions=actions)
    app = FastAPI(
        title="intentstream",
        version="1",
        description="Recommendations, intents and drift as the topics say them, and a way to append events.",
        lifespan=service.lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    _errors(app)
    _write_routes(app, service)
    _user_routes(app, service)
    _model_routes(app, service)
    _operator_routes(app, service)
    document(app, config)
    if page:
        from monitor.page.overview import (
            add_page,  # NiceGUI takes a second to import; a monitor without a page does not need it
        )

        add_page(app, service)
    app.add_middleware(
        Guard, config=config, observe=service.telemetry.observe, connections=lambda: service.connections.busy
    )
    return app


def _errors(app: FastAPI) -> None:
    async def problem(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, Problem)
        return exc.response()

    async def invalid(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, RequestValidationError)
        found = [
            {"where": ".".join(str(part) for part in error["loc"]), "what": error["msg"]} for error in exc.errors()[:20]
        ]
        detail = "; ".join(f"{one['where']}: {one['what']}" for one in found)
        return Problem(422, detail, errors=found).response()

    async def http(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, HTTPException)
        headers = dict(exc.headers) if exc.headers else None
        return Problem(exc.status_code, str(exc.detail), headers).response()

    async def unexpected(request: Request, exc: Exception) -> Response:
        return Problem(500, "an error of the monitor; its log says more").response()

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)


# -- writing ----------------------------------------------------------------------------------------------------------


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
                values = [bytes(raw) for raw in _raws(body)]
            else:
                msgspec.json.decode(body)
                values = [body.strip()]
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as exc:
            raise Problem(400, f"the body is not JSON: {exc}") from None
    else:
        raise Problem(415, f"content type {kind[:80]!r}: application/json or application/x-ndjson is taken")
    if not values:
        raise Problem(422, "there is no event in the body")
    if len(values) > most:
        raise Problem(413, f"{len(values)} events in one request, at most {most} are taken")
    return values


def to_messages(values: list[bytes], decoded: Decoded, now_ms: int) -> list[Message]:
    """Records for the input topic, in the order in which they came, for all events that are good."""
    good = list(zip(decoded.index.tolist(), decoded.users, strict=True))
    good += [(one.index, one.user) for one in decoded.erasures]
    return [event_message(user, values[index], now_ms) for index, user in sorted(good)]


def _write_routes(app: FastAPI, service: Service) -> None:
    async def append(messages: list[Message]) -> None:
        if service.appender is None:
            raise Problem(503, "this monitor was started without a way to append events")
        try:
            await service.appender.append(messages)
        except LogError as exc:
            if exc.retriable:
                raise Problem(503, f"the log does not take events now: {exc}", {"retry-after": "1"}) from exc
            raise Problem(500, f"the log refused the events: {exc}") from exc

    async def take(content_type: str, body: bytes) -> bytes:
        values = split_events(content_type, body, service.config.max_batch_events)
        decoded = service.decoder.decode(values, [None] * len(values))
        messages = to_messages(values, decoded, service.clock_ms())
        refused = [
            EventRefusal(index=bad.index, reason=bad.reason, field=bad.field, value=bad.value, rule=bad.rule)
            for bad in decoded.bad
        ]
        if not messages:
            first = refused[0]
            raise Problem(
                422,
                f"no event can be taken; the first: {first.reason}: {first.field}: {first.rule}",
                refused=msgspec.to_builtins(refused[:1000]),
            )
        await append(messages)
        service.telemetry.appended(len(messages), len(refused))
        return msgspec.json.encode(Appended(appended=len(messages), refused=refused))

    @app.post(
        "/events",
        summary="Append events; answers when they are durable",
        responses=answers(Appended),
        openapi_extra=body_of_events(),
        response_model=None,
    )
    async def post_events(request: Request, idempotency_key: Key = None) -> Response:
        content_type = request.headers.get("content-type", "")
        body = await request.body()
        if idempotency_key is None:
            return Response(await take(content_type, body), media_type="application/json")
        known = service.idempotency.begin(idempotency_key, body, service.clock_ms())
        if known is not None:
            if known.digest != Idempotency.digest(body):
                raise Problem(422, f"idempotency key {idempotency_key!r} was used with another body")
            if known.answer is None:
                raise Problem(409, f"the request with idempotency key {idempotency_key!r} is still under way")
            return Response(known.answer, media_type="application/json", headers={"idempotent-replayed": "true"})
        try:
            answer = await take(content_type, body)
        except BaseException:
            service.idempotency.abandon(idempotency_key)
            raise
        service.idempotency.finish(idempotency_key, body, service.clock_ms(), answer)
        return Response(answer, media_type="application/json")

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
        await append([event_message(name.encode(), value, now_ms)])
        return reply(ErasureAccepted(user=name, receipt=f"/erasures/{quote(name, safe='')}"), 202)


# -- one user ---------------------------------------------------------------------------------------------------------


def _user_routes(app: FastAPI, service: Service) -> None:
    view = service.view

    @app.get(
        "/recommendations/{user:id}",
        summary="The newest list of a user",
        responses=answers("Recommendations"),
        response_model=None,
    )
    async def recommendations(
        user: User, k: Annotated[int, Query(ge=1, le=100, description="at most so many items")] = 10
    ) -> Response:
        found = view.recommendations(checked_user(user))
        if found is None:
            raise Problem(404, "no list was published for this user, or the user was erased")
        if len(found.items) > k:
            found = msgspec.structs.replace(found, items=found.items[:k])
        return reply(found)

    @app.get(
        "/users/{user:id}",
        summary="History, intent, shifts and list of a user",
        responses=answers(UserView),
        response_model=None,
    )
    async def user_view(user: User) -> Response:
        found = look_up(service, checked_user(user))
        if found is None:
            raise Problem(404, "the topics say nothing about this user")
        return reply(found)

    @app.get(
        "/erasures/{user:id}",
        summary="The receipt of a user's erasure",
        responses=answers("ErasureReceipt"),
        response_model=None,
    )
    async def erasure(user: User) -> Response:
        receipt = view.receipt(checked_user(user))
        if receipt is None:
            raise Problem(404, "no erasure of this user was done yet")
        return reply(receipt)


def look_up(service: Service, user: str) -> UserView | None:
    """All that the view has on a user; None when there is nothing."""
    view = service.view
    newest = view.recommendations(user)
    found = UserView(
        user=user,
        history=[HistoryEvent(item=one.item, ts=one.ts, action=one.action) for one in view.history(user)],
        intent=None if newest is None or newest.intent is None else view.catalog.get(newest.intent),
        shifts=view.shifts_of(user),
        recommendations=newest,
        erased=view.receipt(user),
    )
    known = found.history or found.shifts or found.recommendations or found.erased
    return found if known else None


# -- the model --------------------------------------------------------------------------------------------------------


def intent_page(service: Service, number: int) -> IntentPage | None:
    """One intent with its trail; None when the catalogue does not have it."""
    view = service.view
    intent = view.catalog.get(number)
    if intent is None:
        return None
    samples: list[Sample] = view.samples.newest()
    shifts: list[IntentShift] = view.shifts.newest()
    trail = [
        IntentSample(step=one.step, share=one.intents[number][0], position=list(one.intents[number][1:]))
        for one in samples
        if number in one.intents
    ]
    near = [one for one in reversed(shifts) if number in (one.from_intent, one.to_intent)]
    near.sort(key=lambda one: -one.step)  # partitions are read one after the other
    return IntentPage(intent=intent, trail=trail, shifts=near[:50])


def _model_routes(app: FastAPI, service: Service) -> None:
    view = service.view

    @app.get("/intents", summary="The catalogue of intents", responses=answers(IntentCatalog), response_model=None)
    async def intents(limit: Limit = 500) -> Response:
        return reply(IntentCatalog(intents=view.intents()[:limit]))

    @app.get("/intents/{intent}", summary="One intent", responses=answers(IntentPage), response_model=None)
    async def intent(intent: Annotated[int, Path(ge=0, le=_MAX_INT, description="id of the intent")]) -> Response:
        found = intent_page(service, intent)
        if found is None:
            raise Problem(404, f"the catalogue has no intent {intent}: it was retired, or never born")
        return reply(found)

    @app.get("/drift", summary="Drift episodes", responses=answers(Drift), response_model=None)
    async def drift(limit: Limit = 100) -> Response:
        return reply(Drift(episodes=[Episode(opened=one, closed=end) for one, end in view.episodes()[:limit]]))

    @app.get("/dead-letters", summary="Refused records", responses=answers(DeadLetters), response_model=None)
    async def dead_letters(
        reason: Annotated[str | None, Query(min_length=1, max_length=100, description="only these")] = None,
        limit: Limit = 50,
    ) -> Response:
        letters = [msgspec.convert(one, DeadLetterAnswer, from_attributes=True) for one in view.letters(reason, limit)]
        return reply(DeadLetters(by_reason=dict(view.reasons), letters=letters))

    @app.get(
        "/stream/{topic}",
        summary="A topic as server-sent events, from now on",
        responses={200: {"description": "events", "content": {"text/event-stream": {"schema": {"type": "string"}}}}}
        | {"default": answers(Appended)["default"]},
        response_class=StreamingResponse,
        response_model=None,
    )
    async def stream(
        topic: Topic,
        user: Annotated[str | None, Query(min_length=1, max_length=MAX_ID_BYTES, description="only this key")] = None,
    ) -> Response:
        listener = service.hub.open(topic, None if user is None else checked_user(user).encode())
        if listener is None:
            raise Problem(503, f"{service.config.max_streams} streams are open already", {"retry-after": "5"})

        async def events() -> AsyncIterator[bytes]:
            try:
                async for some in listener.events():
                    yield some
            finally:
                service.hub.close(listener)

        return StreamingResponse(events(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})


# -- operators --------------------------------------------------------------------------------------------------------


def _operator_routes(app: FastAPI, service: Service) -> None:
    @app.get("/status", summary="The workers' newest reports", responses=answers(Status), response_model=None)
    async def status() -> Response:
        health = service.health()
        workers = service.reports()
        lag = dict(service.reader.reading.lag)
        return reply(Status(state=health.state, problems=health.problems, workers=workers, monitor_lag=lag))

    @app.get("/healthz", summary="Whether this process works", responses=answers("Healthy"), response_model=None)
    async def healthz() -> Response:
        if not service.reader.alive:
            raise Problem(503, "the monitor does not read the topics; its log says why")
        return reply({"status": "ok"})

    @app.get(
        "/readyz",
        summary="Whether worker and monitor are up to date",
        responses=answers("Healthy"),
        response_model=None,
    )
    async def readyz() -> Response:
        problems = service.health().problems
        if problems:
            raise Problem(503, "; ".join(problems), problems=problems)
        return reply({"status": "ok"})

    @app.get(
        "/metrics",
        summary="Figures for Prometheus",
        responses={200: {"description": "text format", "content": {"text/plain": {"schema": {"type": "string"}}}}},
        response_class=PlainTextResponse,
        response_model=None,
    )
    async def metrics() -> Response:
        return Response(service.telemetry.exposition(), headers={"content-type": CONTENT_TYPE})
