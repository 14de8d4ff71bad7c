"""A schema registry for tests: the documented HTTP API over schemas in memory, with troubles on request."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import unquote, urlsplit

_TYPE: Final = "application/vnd.schemaregistry.v1+json"


class RegistryServer:
    """`trouble` is a status that every request gets, "slow", "page" (a proxy's), or None."""

    def __init__(self, credentials: str = "") -> None:
        self.schemas: dict[int, dict[str, Any]] = {}
        self.subjects: dict[str, list[int]] = {}
        self.requests: list[str] = []
        self.trouble: int | str | None = None
        self.failing = 0  # so many of the next requests get 503
        self._expected = f"Basic {base64.b64encode(credentials.encode()).decode()}" if credentials else ""
        handler = type("Handler", (_Handler,), {"registry": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def register(self, subject: str, schema: dict[str, Any]) -> int:
        """The id of the schema, an old one where it is known."""
        number = next((one for one, known in self.schemas.items() if known == schema), len(self.schemas) + 1)
        self.schemas[number] = schema
        versions = self.subjects.setdefault(subject, [])
        if number not in versions:
            versions.append(number)
        return number

    def answer(self, method: str, path: str, body: bytes, authorization: str) -> tuple[int, Any]:
        """Status and JSON document of one request."""
        if self._expected and authorization != self._expected:
            return 401, {"error_code": 401, "message": "Unauthorized"}
        parts = [unquote(part) for part in urlsplit(path).path.strip("/").split("/")]
        match method, parts:
            case "GET", ["schemas", "ids", wanted] if int(wanted) in self.schemas:
                return 200, self.schemas[int(wanted)]
            case "GET", ["schemas", "ids", _]:
                return 404, {"error_code": 40403, "message": "Schema not found"}
            case "GET", ["subjects", subject, "versions", version] if subject in self.subjects:
                versions = self.subjects[subject]
                place = len(versions) if version == "latest" else int(version)
                number = versions[place - 1]
                return 200, {"subject": subject, "version": place, "id": number, **self.schemas[number]}
            case "POST", ["subjects", subject, *_]:
                schema = {name: value for name, value in json.loads(body).items() if value}
                number = self.register(subject, schema)
                return 200, {"id": number, "subject": subject, "version": 1, **schema}
        return 404, {"error_code": 40401, "message": f"Subject not found: {path}"}

    def close(self) -> None:
        """Stop answering: connections are refused from here on."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    registry: RegistryServer

    def _serve(self) -> None:
        registry, body = self.registry, self.rfile.read(int(self.headers.get("content-length", 0)))
        registry.requests.append(self.path)
        if registry.trouble == "slow":
            time.sleep(30)  # longer than the client waits in the test
        status, document = registry.answer(self.command, self.path, body, self.headers.get("authorization", ""))
        if registry.failing > 0:
            registry.failing -= 1
            status, document = 503, {"error_code": 50301, "message": "starting"}
        if isinstance(registry.trouble, int):
            status, document = registry.trouble, {"error_code": registry.trouble * 100, "message": "trouble"}
        sent = b"<html>not found</html>" if registry.trouble == "page" else json.dumps(document).encode()
        self.send_response(404 if registry.trouble == "page" else status)
        self.send_header("content-type", _TYPE)
        self.send_header("content-length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_POST = do_PUT = _serve  # noqa: N815  # the base class calls them so

    def log_message(self, *args: object) -> None:
        """Nothing is printed."""


@contextmanager
def running_registry(credentials: str = "") -> Iterator[RegistryServer]:
    """A registry that answers while the context is open."""
    server = RegistryServer(credentials)
    try:
        yield server
    finally:
        server.close()


__all__ = ["RegistryServer", "running_registry"]
