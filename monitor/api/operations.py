"""Routes for operators: dead letters, reports, health, metrics."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Query
from starlette.responses import PlainTextResponse, Response

from monitor.answers import DeadLetters, Healthy, Status
from monitor.api.openapi import answers
from monitor.api.parameters import Limit, reply
from monitor.http.problems import Problem
from monitor.metrics import CONTENT_TYPE
from monitor.service import Service


def add_operation_routes(app: FastAPI, service: Service) -> None:
    """Add `/dead-letters`, `/status`, `/healthz`, `/readyz` and `/metrics`."""
    view = service.view

    @app.get("/dead-letters", summary="Refused records", responses=answers(DeadLetters), response_model=None)
    async def dead_letters(
        reason: Annotated[str | None, Query(min_length=1, max_length=100, description="only with this reason")] = None,
        limit: Limit = 50,
    ) -> Response:
        return reply(DeadLetters(by_reason=dict(view.reasons), letters=view.newest_dead_letters(reason, limit)))

    @app.get("/status", summary="The workers' newest reports", responses=answers(Status), response_model=None)
    async def status() -> Response:
        health = service.health.check()
        workers = service.health.reports()
        lag = dict(service.reader.reading.lag)
        return reply(
            Status(state=health.state, problems=health.problems, notes=health.notes, workers=workers, monitor_lag=lag)
        )

    @app.get("/healthz", summary="Whether this process works", responses=answers(Healthy), response_model=None)
    async def healthz() -> Response:
        if not service.reader.alive:
            raise Problem(503, "the monitor does not read the topics; its log has the reason")
        return reply(Healthy())

    @app.get(
        "/readyz",
        summary="Whether worker and monitor are up to date",
        responses=answers(Healthy),
        response_model=None,
    )
    async def readyz() -> Response:
        problems = service.health.check().problems
        if problems:
            raise Problem(503, "; ".join(problems), problems=problems)
        return reply(Healthy())

    @app.get(
        "/metrics",
        summary="Figures for Prometheus",
        responses={200: {"description": "text format", "content": {"text/plain": {"schema": {"type": "string"}}}}},
        response_class=PlainTextResponse,
        response_model=None,
    )
    async def metrics() -> Response:
        return Response(service.telemetry.exposition(), headers={"content-type": CONTENT_TYPE})
