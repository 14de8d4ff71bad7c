"""Errors over HTTP: problem details of RFC 9457."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """An error answer; `extra` becomes further members."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers, self.extra = status, detail, headers, extra

    def body(self) -> bytes:
        """The JSON document."""
        return msgspec.json.encode(
            {
                "type": "about:blank",
                "title": HTTPStatus(self.status).phrase,
                "status": self.status,
                "detail": self.detail,
                **self.extra,
            }
        )

    def response(self) -> Response:
        """The HTTP answer."""
        return Response(self.body(), self.status, self.headers, MEDIA_TYPE)
