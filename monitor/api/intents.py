"""Routes about the model: intents and drift."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import FastAPI, Path
from starlette.responses import Response

from monitor.answers import Drift, IntentCatalog, IntentPage
from monitor.api.openapi import answers
from monitor.api.parameters import Limit, reply
from monitor.http.problems import Problem
from monitor.queries import find_intent
from monitor.service import Service

_MAX_INT: Final = (1 << 53) - 1  # the largest integer that JavaScript reads exactly


def add_intent_routes(app: FastAPI, service: Service) -> None:
    """Add `/intents`, `/intents/{intent}` and `/drift`."""
    view = service.view

    @app.get("/intents", summary="The catalog of intents", responses=answers(IntentCatalog), response_model=None)
    async def intents(limit: Limit = 500) -> Response:
        return reply(IntentCatalog(intents=view.catalog.intents()[:limit]))

    @app.get("/intents/{intent}", summary="One intent", responses=answers(IntentPage), response_model=None)
    async def intent(intent: Annotated[int, Path(ge=0, le=_MAX_INT, description="id of the intent")]) -> Response:
        found = find_intent(view, intent)
        if found is None:
            raise Problem(404, f"the catalog has no intent {intent}: it was retired, or there never was one")
        return reply(found)

    @app.get("/drift", summary="Drift episodes", responses=answers(Drift), response_model=None)
    async def drift(limit: Limit = 100) -> Response:
        return reply(Drift(episodes=view.episodes()[:limit]))
