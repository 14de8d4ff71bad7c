"""The login form of a page that needs a token."""

from __future__ import annotations

from html import escape

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from monitor.http.middleware import COOKIE, local_path, same, session_value
from monitor.page.layout import STATIC
from monitor.service import Service


def add_login(app: FastAPI, service: Service) -> None:
    """Add `/login`."""
    token = service.config.token

    def form(note: str, next_path: str) -> str:
        text = (STATIC / "login.html").read_text().replace("{note}", note)
        return text.replace("{next}", escape(local_path(next_path)))

    @app.get("/login", include_in_schema=False)
    async def login(request: Request) -> Response:
        return HTMLResponse(form("", request.query_params.get("next", "/")))

    @app.post("/login", include_in_schema=False)
    async def enter(request: Request) -> Response:
        sent = await request.form(max_fields=4, max_files=0)
        given, next_path = sent.get("token"), str(sent.get("next", "/"))
        if not token or not isinstance(given, str) or not same(given.strip(), token):
            return HTMLResponse(form('<p role="alert">That is not the token.</p>', next_path), 401)
        answer = RedirectResponse(local_path(next_path), 303)
        secure = request.url.scheme == "https"
        answer.set_cookie(
            COOKIE, session_value(token), httponly=True, samesite="strict", secure=secure, max_age=7 * 86_400
        )
        return answer
