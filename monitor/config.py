"""What can be set about the monitor."""

from __future__ import annotations

import ipaddress
from typing import Annotated

import msgspec
from msgspec import Meta

MIN_TOKEN: int = 16
_DAY_S = 24 * 3600


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
        str, Meta(min_length=1, max_length=255, description="address to bind; any but loopback needs `token`")
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="port to bind, 0 takes a free one")] = 8050
    token: Annotated[
        str,
        Meta(
            max_length=512, description='bearer token asked of every caller, at least 16 characters; "" asks for none'
        ),
    ] = ""
    allowed_hosts: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=255)]],
        Meta(max_length=64, description="names, beside the bound address, by which clients may call this server"),
    ] = []
    max_body_bytes: Annotated[int, Meta(ge=1024, le=1 << 30, description="largest request body; bytes")] = 8 << 20
    max_batch_events: Annotated[
        int, Meta(ge=1, le=1_000_000, description="most events in one POST /events; events")
    ] = 10_000
    requests_per_second: Annotated[
        float, Meta(ge=1, le=1e6, description="requests of one client address, averaged over a second; per second")
    ] = 5000.0
    max_connections: Annotated[int, Meta(ge=1, le=100_000, description="open connections; more are refused; count")] = (
        512
    )
    max_streams: Annotated[int, Meta(ge=1, le=10_000, description="open server-sent event streams; count")] = 32
    idempotency_keys: Annotated[
        int, Meta(ge=1, le=1_000_000, description="newest idempotency keys kept with their answers; count")
    ] = 10_000
    idempotency_ttl_s: Annotated[
        float, Meta(ge=1, le=365 * _DAY_S, description="how long an idempotency key is kept; seconds")
    ] = float(_DAY_S)
    poll_interval_s: Annotated[
        float, Meta(ge=0.01, le=60, description="from one look at the topics to the next; seconds")
    ] = 0.25
    poll_max_records: Annotated[int, Meta(ge=1, le=100_000, description="records taken in one look; records")] = 4000
    history_len: Annotated[int, Meta(ge=1, le=1000, description="newest events shown per user; events")] = 50
    history_days: Annotated[
        float, Meta(gt=0, le=3650, description="event time for which a user's events and shifts are kept; days")
    ] = 30.0
    series_points: Annotated[
        int, Meta(ge=10, le=100_000, description="reports of the worker kept for the curves; reports")
    ] = 2000
    stale_after_s: Annotated[
        float,
        Meta(gt=0, le=86_400, description="age of the newest report above which the worker counts as gone; seconds"),
    ] = 30.0
    ready_max_lag: Annotated[
        int,
        Meta(
            ge=0,
            le=10**12,
            description="records waiting, of the worker or of the monitor, above which not ready; records",
        ),
    ] = 10_000

    def __post_init__(self) -> None:
        if self.token and len(self.token) < MIN_TOKEN:
            raise ValueError(f"token has {len(self.token)} characters: at least {MIN_TOKEN} are needed")
        if not self.token.isascii() or any(c.isspace() or not c.isprintable() for c in self.token):
            raise ValueError("token: only printable ASCII characters without spaces can be sent in a header")
        if not is_loopback(self.host) and not self.token:
            raise ValueError(
                f"host = {self.host!r}: reachable from other machines, which needs a `token` of at least "
                f"{MIN_TOKEN} characters"
            )
