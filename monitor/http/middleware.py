"""The outermost layer of the HTTP server: access checks, limits and security headers.

Plain ASGI, because it runs for every request of the fast paths.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitor.config import MonitorConfig
from monitor.http.problems import Problem

COOKIE: Final = "intentstream"
OPEN_PATHS: Final = frozenset({"/healthz", "/readyz", "/login"})
WATCHED_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics"})  # these show an operator that there are too many
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_CLIENTS: Final = 10_000
_PAGE_POLICY: Final = (
    # Vue compiles the page's templates in the browser, which needs 'unsafe-eval'; nothing may come from another host.
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # stricter, and browsers send `Origin: null` with our own forms
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "content-security-policy": _PAGE_POLICY,
}


def session_value(token: str) -> str:
    """The value of the page's cookie: proves the token without revealing it."""
    return hmac.new(token.encode(), b"intentstream page session", hashlib.sha256).hexdigest()


def same(given: str, expected: str) -> bool:
    """Whether two secrets are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def local_path(path: str) -> str:
    r"""The path if it stays on this server, else "/": a link must not lead through the login to another site.

    >>> local_path("/user?id=a%2Fb"), local_path("//evil.example"), local_path("/\\evil.example"), local_path("http:x")
    ('/user?id=a%2Fb', '/', '/', '/')
    """
    harmless = path.isascii() and path.isprintable() and "\\" not in path and len(path) <= 4096
    return path if harmless and path.startswith("/") and not path.startswith("//") else "/"


class Origin(NamedTuple):
    """Scheme, host and port of a URL; all empty when it is none."""

    scheme: str
    host: str
    port: int


_NO_ORIGIN: Final = Origin("", "", 0)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_WEB_SOCKETS: Final = {"ws": "http", "wss": "https"}


def origin_of(url: str) -> Origin:
    """The origin of a URL, by which browsers tell sites apart.

    >>> origin_of("http://Shop.example:8050/x"), origin_of("wss://shop.example")
    (Origin(scheme='http', host='shop.example', port=8050), Origin(scheme='https', host='shop.example', port=443))
    >>> origin_of("//[") == origin_of("null") == Origin("", "", 0)
    True
    """
    try:
        found = urlsplit(url)
        scheme = _WEB_SOCKETS.get(found.scheme, found.scheme)
        if scheme not in _DEFAULT_PORTS or not found.hostname:
            return _NO_ORIGIN
        return Origin(scheme, found.hostname, found.port or _DEFAULT_PORTS[scheme])
    except ValueError:
        return _NO_ORIGIN


def _is_utf8(raw_path: bytes) -> bool:
    try:
        unquote_to_bytes(raw_path).decode()
    except UnicodeDecodeError:
        return False
    return True


def _login(scope: Scope) -> str:
    """The login URL for a browser without the token, which leads back to the page that it requested."""
    query = scope["query_string"].decode("latin-1")
    requested = local_path(scope["raw_path"].decode("latin-1") + (f"?{query}" if query else ""))
    return "/login" if requested == "/" or scope["method"] != "GET" else f"/login?next={quote(requested, safe='')}"


class RateLimit:
    """A token bucket per client address: `per_second` on average, bursts of as many."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address -> (left, when)

    def allow(self, client: str) -> bool:
        """Take a token from the bucket; False when it is empty."""
        now = self._clock()
        left, when = self._buckets.pop(client, (self._per_second, now))
        left = min(self._per_second, left + (now - when) * self._per_second)
        self._buckets[client] = (max(0.0, left - 1), now)
        if len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        return left >= 1


class Guard:
    """Checks host, origin, token, rate and body size; adds the security headers; reports each answer to `observe`.

    Parameters
    ----------
    observe
        Called with (route, method, status, seconds) after each HTTP request.
    connections
        Number of connections that have sent a request; above the limit only `WATCHED_PATHS` are answered.
    body_s
        Longest pause within a request's body, seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: MonitorConfig,
        observe: Callable[[str, str, int, float], None] = lambda route, method, status, seconds: None,
        connections: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
        body_s: float = 30.0,
    ) -> None:
        self._app = app
        self._config = config
        self._observe = observe
        self._connections = connections
        self._body_s = body_s
        self._clock = clock
        self._rate = RateLimit(config.requests_per_second, clock)
        self._session = session_value(config.token) if config.token else ""
        self._origins = {origin_of(one) for one in config.allowed_origins}
        self._hosts = {"localhost", "127.0.0.1", "::1", config.host.lower(), *(h.lower() for h in config.allowed_hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        crowded = self._connections() > self._config.max_connections
        refusal = self._refusal(scope, headers, crowded)
        if scope["type"] == "websocket":
            if refusal is not None:
                await send({"type": "websocket.close", "code": 1008})
                return
            await self._app(scope, receive, send)
            return
        began, status, method = self._clock(), 500, scope["method"]
        only_head = method == "HEAD"
        if only_head:
            scope = {**scope, "method": "GET"}  # answered as GET is, without the body; that of a stream has no end

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] != "http.response.start":
                if not only_head:
                    await send(message)
                return
            status = message["status"]
            found = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                found.setdefault(name, value)
            found.setdefault("cache-control", "no-store")
            if crowded:
                found["connection"] = "close"
            await send(message)
            if only_head:
                await send({"type": "http.response.body"})

        if refusal is not None:
            response = refusal.response()
            if refusal.status == 401 and "text/html" in headers.get("accept", ""):
                response = RedirectResponse(_login(scope), 303)
            await response(scope, receive, sending)
        else:
            try:
                await self._app(scope, self._limited(receive), sending)
            except Problem as problem:  # from `_limited`, before any answer began
                await problem.response()(scope, receive, sending)
        route = getattr(scope.get("route"), "path_format", None)  # `path` names the convertor too
        self._observe(route or "other", method, status, self._clock() - began)

    def _refusal(self, scope: Scope, headers: Headers, crowded: bool) -> Problem | None:
        config = self._config
        if crowded and scope["path"] not in WATCHED_PATHS:
            return Problem(503, f"more than {config.max_connections} connections are open", {"retry-after": "1"})
        client = scope.get("client")
        if not self._rate.allow(client[0] if client else ""):
            return Problem(429, f"more than {config.requests_per_second:g} requests per second", {"retry-after": "1"})
        host = headers.get("host", "")
        # Without a token, a web site could reach this server through a name of its own that resolves to loopback.
        if not config.token and origin_of("http://" + host).host not in self._hosts:
            return Problem(421, f"host {host[:100]!r} is not served here; add it to `monitor.allowed_hosts`")
        method = scope.get("method", "GET")
        origin = headers.get("origin")
        if origin and (method not in _READING or scope["type"] == "websocket") and not self._own(origin, scope, host):
            return Problem(403, f"origin {origin[:100]!r} is another site; add it to `monitor.allowed_origins`")
        if config.token and scope["path"] not in OPEN_PATHS and not self._knows(scope, headers, method):
            return Problem(401, "a bearer token is required", {"www-authenticate": 'Bearer realm="intentstream"'})
        if not _is_utf8(scope.get("raw_path") or b""):
            return Problem(400, "the path is not UTF-8 when its %-signs are decoded")  # else another user is named
        if (coding := headers.get("content-encoding", "identity").strip().lower()) not in ("", "identity"):
            # decompressed, a small body could be of any size
            detail = f"content encoding {coding[:80]!r} is not supported: send the body uncompressed"
            return Problem(415, detail, {"accept-encoding": "identity"})
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > config.max_body_bytes:
            return Problem(413, f"body of {length[:20]} bytes; at most {config.max_body_bytes} are accepted")
        return None

    def _own(self, origin: str, scope: Scope, host: str) -> bool:
        found = origin_of(origin)
        return found != _NO_ORIGIN and (found == origin_of(f"{scope['scheme']}://{host}") or found in self._origins)

    def _knows(self, scope: Scope, headers: Headers, method: str) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and same(given.strip(), self._config.token):
            return True
        if method not in _READING and not scope["path"].startswith("/_nicegui"):
            return False  # the page's cookie never changes anything
        for part in headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == COOKIE and same(value, self._session):
                return True
        return False

    def _limited(self, receive: Receive) -> Receive:
        taken, more = 0, True

        async def receiving() -> Message:
            nonlocal taken, more
            try:
                async with asyncio.timeout(self._body_s if more else None):  # after the body: until the client leaves
                    message = await receive()
            except TimeoutError:
                raise Problem(
                    408, f"no byte of the body arrived for {self._body_s:g} s", {"connection": "close"}
                ) from None
            if message["type"] == "http.request":
                more = message.get("more_body", False)
                taken += len(message.get("body", b""))
                if taken > self._config.max_body_bytes:
                    raise Problem(413, f"body of more than {self._config.max_body_bytes} bytes")
            return message

        return receiving
