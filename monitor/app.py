"""The HTTP server's application: API, page and access checks put together."""

from __future__ import annotations

from pathlib import Path

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from monitor.api.events import add_event_routes
from monitor.api.intents import add_intent_routes
from monitor.api.lists import add_list_routes
from monitor.api.openapi import document
from monitor.api.operations import add_operation_routes
from monitor.api.parameters import known_parameters
from monitor.api.streams import add_stream_routes
from monitor.api.users import add_user_routes
from monitor.config import MonitorConfig
from monitor.errors import ViewError
from monitor.http.middleware import Guard
from monitor.http.problems import Problem
from monitor.service import Service
from stream.log.base import EventLog
from stream.mapping.config import EventsConfig
from stream.schema.events import ActionsConfig
from stream.schema.ranked_items import Ranker


def create_app(
    log: EventLog,
    config: MonitorConfig,
    view_path: Path,
    producer: EventLog | None,
    *,
    actions: ActionsConfig | None = None,
    events: EventsConfig | None = None,
    ranker: Ranker | None = None,
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
    events
        The topic of the events, and the shape of its records.
    ranker
        Makes lists on request; None: those that were published alone.
    page
        Serve the page too; once per process, because NiceGUI has one application per process.
    """
    service = Service(log, config, view_path, producer, actions=actions, events=events, ranker=ranker)
    app = FastAPI(
        title="intentstream",
        version="1",
        description="Recommendations, intents and drift as the topics hold them, and a way to append events.",
        lifespan=service.lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        dependencies=[Depends(known_parameters)],
    )
    app.state.service = service
    _add_error_handlers(app)
    add_event_routes(app, service)
    add_list_routes(app, service)
    add_user_routes(app, service)
    add_intent_routes(app, service)
    add_operation_routes(app, service)
    add_stream_routes(app, service)
    document(app, config)
    if page:
        # NiceGUI takes a second to import; a monitor without a page does not need it.
        from monitor.page.site import add_page

        add_page(app, service)
    app.add_middleware(
        Guard, config=config, observe=service.telemetry.observe, connections=lambda: service.connections.busy
    )
    return app


def _add_error_handlers(app: FastAPI) -> None:
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

    async def view_error(request: Request, exc: Exception) -> Response:
        return Problem(503, str(exc), {"retry-after": "1"}).response()

    async def unexpected(request: Request, exc: Exception) -> Response:
        return Problem(500, "internal error of the monitor; its log has the details").response()

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(ViewError, view_error)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)
