"""The route that streams a topic as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import FastAPI, Query
from fastapi.sse import EventSourceResponse
from starlette.responses import Response, StreamingResponse

from monitor.answers import Appended
from monitor.api.openapi import answers
from monitor.api.parameters import checked_id
from monitor.http.problems import Problem
from monitor.service import Service
from stream.schema.events import MAX_ID_BYTES

Topic = Literal[
    "recommendations",
    "intent-shifts",
    "intent-catalog",
    "drift-alerts",
    "stream-metrics",
    "erasures",
    "behavior-events.dead-letter",
]


def add_stream_routes(app: FastAPI, service: Service) -> None:
    """Add `/stream/{topic}`."""

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
        user: Annotated[
            str | None, Query(min_length=1, max_length=MAX_ID_BYTES, description="only records with this key")
        ] = None,
    ) -> Response:
        listener = service.hub.open(topic, None if user is None else checked_id(user, "user").encode())
        if listener is None:
            raise Problem(503, f"{service.config.max_streams} streams are open already", {"retry-after": "5"})

        async def events() -> AsyncIterator[bytes]:
            try:
                async for some in listener.events():
                    yield some
            finally:
                service.hub.close(listener)

        return EventSourceResponse(events(), headers={"x-accel-buffering": "no"})
