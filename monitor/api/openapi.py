"""The OpenAPI document of the API, and an HTML page of it that loads nothing from other hosts."""

from __future__ import annotations

import html
import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse, Response

from monitor.answers import ANSWERS
from monitor.config import MonitorConfig
from monitor.http.problems import MEDIA_TYPE

_TEMPLATE: Final = Path(__file__).parent / "static" / "docs.html"
_REF: Final = "#/components/schemas/"
_EVENT: Final = {
    "type": "object",
    "required": ["user"],
    "properties": {
        "user": {"type": ["string", "integer"], "description": "1 to 256 bytes of UTF-8"},
        "item": {"type": ["string", "integer"], "description": "like user; omit it for the action erase"},
        "ts": {"type": "integer", "description": "event time, epoch milliseconds, from 1990 to 2100"},
        "action": {"type": ["string", "null"], "description": "a name from the configuration, or erase"},
        "value": {"type": ["number", "null"], "description": "finite"},
    },
    "example": {"user": "anna", "item": "tent-2p", "ts": 1767225600000, "action": "cart"},
}


def answers(answer: type | str, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """The responses of a route: one struct on success, problem details otherwise."""
    name = answer if isinstance(answer, str) else answer.__name__
    return {
        status: {"description": "success", "content": {"application/json": {"schema": {"$ref": _REF + name}}}},
        "default": {
            "description": "problem details (RFC 9457)",
            "content": {MEDIA_TYPE: {"schema": {"$ref": _REF + "ProblemDetails"}}},
        },
    }


def body_of_events() -> dict[str, Any]:
    """The request body of `POST /events`, which is not parsed by FastAPI."""
    many = {"type": "array", "items": _EVENT, "minItems": 1}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"oneOf": [_EVENT, many]}},
                "application/x-ndjson": {"schema": {"type": "string", "description": "one event per line"}},
            },
        }
    }


def json_body(name: str) -> dict[str, Any]:
    """The request body of a route that decodes it by itself."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": {"$ref": _REF + name}}}}}


def document(app: FastAPI, config: MonitorConfig) -> None:
    """Add `/openapi.json` and `/docs`."""

    @lru_cache(maxsize=1)
    def build() -> dict[str, Any]:
        built = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            openapi_version="3.1.0",
        )
        _, schemas = msgspec.json.schema_components(ANSWERS, ref_template=_REF + "{name}")
        components = built.setdefault("components", {})
        components["schemas"] = schemas
        for operations in built["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)  # FastAPI's own form of it; ours is the default answer
        if config.token:
            components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
            built["security"] = [{"bearer": []}]
        return built

    app.openapi = build  # type: ignore[method-assign]  # the documented way to replace it

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Response(json.dumps(app.openapi()), media_type="application/json")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(_page(app.openapi()))


def _page(built: dict[str, Any]) -> str:
    """The document as plain HTML."""
    sections = []
    for path, operations in built["paths"].items():
        for method, operation in operations.items():
            rows = "".join(
                f"<tr><td><code>{html.escape(p['name'])}</code></td><td>{html.escape(p['in'])}</td>"
                f"<td>{html.escape(p.get('description', ''))}</td></tr>"
                for p in operation.get("parameters", [])
            )
            table = f"<table><tr><th>name</th><th>in</th><th>meaning</th></tr>{rows}</table>" if rows else ""
            shapes = "".join(
                f"<li><code>{html.escape(status)}</code> {html.escape(_shape(answer))}</li>"
                for status, answer in operation["responses"].items()
            )
            sections.append(
                f"<section><h2><span class='{html.escape(method)}'>{html.escape(method.upper())}</span> "
                f"<code>{html.escape(path)}</code></h2><p>{html.escape(operation.get('summary', ''))}</p>{table}"
                f"<ul>{shapes}</ul></section>"
            )
    schemas = "".join(
        f"<details id='{html.escape(name)}'><summary><code>{html.escape(name)}</code> "
        f"{html.escape(schema.get('description', ''))}</summary>"
        f"<pre>{html.escape(json.dumps(schema, indent=1))}</pre></details>"
        for name, schema in built["components"]["schemas"].items()
    )
    return _TEMPLATE.read_text().replace("{sections}", "".join(sections)).replace("{schemas}", schemas)


def _shape(answer: dict[str, Any]) -> str:
    for media, content in answer.get("content", {}).items():
        name = content["schema"].get("$ref", "").removeprefix(_REF)
        return f"{media} {name}".strip()
    return str(answer.get("description", ""))
