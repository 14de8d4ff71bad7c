"""The page as part of the application: its paths, and what happens on all others."""

from __future__ import annotations

import re
import warnings

from fastapi import FastAPI
from nicegui import app as nicegui_app
from nicegui import ui
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from monitor.http.problems import Problem
from monitor.page.cache import RenderCache
from monitor.page.intent import IntentPanel
from monitor.page.layout import ICON, PageLayout
from monitor.page.login import add_login
from monitor.page.overview import Overview
from monitor.page.user import UserPanel
from monitor.service import Service


class _Fallback:
    """In front of NiceGUI: a path of the API with another method is 405, an unknown path 404, both problem details."""

    def __init__(self, inner: ASGIApp, routes: list[Route]) -> None:
        self._inner = inner
        self._routes = [(route.path_regex, route.methods or set()) for route in routes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            problem = self._problem(scope)
            if problem is not None:
                await problem.response()(scope, receive, send)
                return
        await self._inner(scope, receive, send)

    def _problem(self, scope: Scope) -> Problem | None:
        methods: set[str] = set()
        for regex, allowed in self._routes:
            if regex.match(scope["path"]):
                methods |= allowed
        if methods:
            return Problem(405, f"{scope['method']} is not possible here", {"allow": ", ".join(sorted(methods))})
        if re.fullmatch(r"/|/user|/intent/\d{1,1000}|/_nicegui.*", scope["path"]):
            return None
        return Problem(404, "there is nothing under this path; /docs says what there is")


def add_page(app: FastAPI, service: Service) -> None:
    """Add the page to the application; once per process."""
    cache = RenderCache(service)
    api_routes = [route for route in app.routes if isinstance(route, Route)]

    @ui.page("/", title="intentstream", language="en-US")
    def overview() -> None:
        layout = PageLayout(cache, "intentstream")
        Overview(layout)
        layout.refresh()

    @ui.page("/user", language="en-US")
    def user(id: str = "") -> None:
        layout = PageLayout(cache, f"{id[:60]} · intentstream")
        UserPanel(layout, id)
        layout.refresh()

    @ui.page("/intent/{intent}", language="en-US")
    def one_intent(intent: int) -> None:
        layout = PageLayout(cache, f"intent {str(intent)[:20]} · intentstream")
        IntentPanel(layout, intent)
        layout.refresh()

    add_login(app, service)
    # NiceGUI inspects every object of the process at its start, and a deprecated one of torch warns.
    warnings.filterwarnings("ignore", message=".*torch.distributed.reduce_op.*", category=FutureWarning)
    ui.run_with(
        app,
        title="intentstream",
        favicon=ICON,
        dark=None,
        language="en-US",
        tailwind=False,
        show_welcome_message=False,
        binding_refresh_interval=None,
    )
    mount = app.routes[-1]
    assert isinstance(mount, Mount) and mount.app is nicegui_app
    mount.app = _Fallback(nicegui_app, api_routes)
