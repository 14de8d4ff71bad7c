"""Routes about one user."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.responses import Response

from monitor.answers import UserView
from monitor.api.openapi import answers
from monitor.api.parameters import User, checked_id, reply
from monitor.http.problems import Problem
from monitor.queries import find_user
from monitor.service import Service


def add_user_routes(app: FastAPI, service: Service) -> None:
    """Add `/users/{user}` and `/erasures/{user}`."""
    users = service.view.users

    @app.get(
        "/users/{user:id}",
        summary="History, intent, shifts and list of a user",
        responses=answers(UserView),
        response_model=None,
    )
    async def user_view(user: User) -> Response:
        found = find_user(service.view, checked_id(user, "user"))
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
        receipt = users.receipt(checked_id(user, "user"))
        if receipt is None:
            raise Problem(404, "there is no receipt of an erasure of this user yet")
        return reply(receipt)
