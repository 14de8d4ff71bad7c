"""Settings of the monitor."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from monitor.errors import MonitorConfigError

MIN_TOKEN: int = 16


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class MonitorConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The page, the HTTP API and its limits."""

    host: Annotated[
        str, Meta(min_length=1, max_length=255, description="address to bind; any but loopback needs a token")
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="port to bind, 0 takes a free one; number")] = 8050
    token: Annotated[
        str,
        Meta(max_length=512, description='bearer token of every request, at least 16 characters; "" for none'),
    ] = ""
    token_env: Annotated[str, Meta(max_length=255, description="environment variable with the token")] = ""
    token_file: Annotated[str, Meta(max_length=4096, description="file with the token")] = ""
    allowed_hosts: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=255)]],
        Meta(max_length=64, description="host names that clients may use beside the bound address"),
    ] = []
    allowed_origins: Annotated[
        list[Annotated[str, Meta(pattern=r"^https?://[^/]+$", max_length=255)]],
        Meta(
            max_length=64,
            description="origins, beside the server's own, from which the page may be used, such as a proxy's",
        ),
    ] = []
    max_body_bytes: Annotated[int, Meta(ge=1024, le=1 << 30, description="largest request body; bytes")] = 8 << 20
    max_batch_events: Annotated[
        int, Meta(ge=1, le=1_000_000, description="most events in one POST /events; events")
    ] = 10_000
    requests_per_second: Annotated[
        float, Meta(ge=1, le=1e6, description="most requests of one client address; per second")
    ] = 5000.0
    max_connections: Annotated[
        int, Meta(ge=1, le=100_000, description="most connections that have sent a request; count")
    ] = 512
    max_streams: Annotated[int, Meta(ge=1, le=10_000, description="most open server-sent event streams; count")] = 32
    poll_interval_s: Annotated[float, Meta(ge=0.01, le=60, description="time between reads of the topics; seconds")] = (
        0.25
    )
    poll_max_records: Annotated[int, Meta(ge=1, le=100_000, description="most records of one read; records")] = 4000
    history_len: Annotated[int, Meta(ge=1, le=1000, description="newest events shown per user; events")] = 50
    history_days: Annotated[
        float,
        Meta(gt=0, le=3650, description="age at which the view drops a user's events and shifts; days of event time"),
    ] = 30.0
    series_points: Annotated[
        int, Meta(ge=10, le=100_000, description="reports of the worker kept for the curves; reports")
    ] = 2000
    stale_after_s: Annotated[
        float,
        Meta(
            gt=0,
            le=86_400,
            description="age of the newest report above which the worker counts as gone, at least three times its "
            "usual interval; seconds",
        ),
    ] = 15.0
    ready_max_lag: Annotated[
        int,
        Meta(
            ge=0,
            le=10**12,
            description="waiting records above which worker or monitor is not ready; records",
        ),
    ] = 10_000

    def __post_init__(self) -> None:
        given = [name for name in ("token", "token_env", "token_file") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)}: give one of them")
        if self.token and len(self.token) < MIN_TOKEN:
            raise ValueError(f"token has {len(self.token)} characters: at least {MIN_TOKEN} are needed")
        if not self.token.isascii() or any(c.isspace() or not c.isprintable() for c in self.token):
            raise ValueError("token: only printable ASCII characters without spaces can be sent in a header")
        if not is_loopback(self.host) and not given:
            raise ValueError(
                f"host = {self.host!r}: reachable from other machines, which needs a `token`, `token_env` or "
                f"`token_file` of at least {MIN_TOKEN} characters"
            )

    def with_secret(self) -> MonitorConfig:
        """The settings with the token read from its variable or file.

        Raises
        ------
        MonitorConfigError
            The token is missing or not valid.
        """
        if self.token_env:
            where = f"monitor.token_env = {self.token_env!r}"
            token = os.environ.get(self.token_env, "")
        elif self.token_file:
            where = f"monitor.token_file = {self.token_file!r}"
            try:
                token = Path(self.token_file).read_text().strip()
            except (OSError, UnicodeDecodeError) as exc:
                reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
                raise MonitorConfigError(f"{where}: cannot be read: {reason}") from None
        else:
            return self
        if not token:
            raise MonitorConfigError(f"{where}: it holds no token")
        try:
            return msgspec.structs.replace(self, token=token, token_env="", token_file="")
        except ValueError as exc:
            raise MonitorConfigError(f"{where}: {exc}") from None
