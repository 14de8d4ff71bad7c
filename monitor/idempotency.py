"""Idempotency keys of requests. The log keeps them, in one write with the events; here is what it cannot tell."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from typing import Final
from uuid import UUID

from stream.log.base import KEY_TTL_MS

_RECENT: Final = 20_000


def log_key(key: str, body: bytes) -> bytes:
    """The key under which the log appends the events of a request: the client's key, and the body's digest."""
    return key.encode() + b"\0" + blake2b(body, digest_size=16).digest()


def too_old(key: str, now_ms: int) -> bool:
    """Whether the log may have forgotten a key: it is a UUID of version 7, which holds its time, made a day ago.

    >>> key = "019b76da-a800-7000-8000-000000000000"  # made at 1767225600000
    >>> too_old(key, 1767225700000), too_old(key, 1767325600000), too_old("order-17", 1767325600000)
    (False, True, False)
    """
    try:
        made = UUID(key)
    except ValueError:
        return False
    return made.version == 7 and now_ms - (made.int >> 80) > KEY_TTL_MS


class RecentKeys:
    """The keys that were used last, each with its body: tells apart a repeated request and another one under its key.

    It is a courtesy to clients that reuse a key by mistake. That a request is appended once does not depend on it.

    Attributes
    ----------
    since_ms
        Every key that came to this monitor since then is known with its body; earlier ones may not be.
    """

    def __init__(self, most: int = _RECENT, now_ms: int = 0) -> None:
        self._most = most
        self.since_ms = now_ms
        self._times: OrderedDict[str, int] = OrderedDict()
        self._digests: OrderedDict[str, bytes] = OrderedDict()
        self._under_way: set[str] = set()

    def begin(self, key: str, body: bytes, now_ms: int = 0) -> str:
        """Note that a request begins; "" when it may, else why not: "other body" or "under way"."""
        digest = blake2b(body, digest_size=16).digest()
        if self._digests.get(key, digest) != digest:
            return "other body"
        if key in self._under_way:
            return "under way"
        self._under_way.add(key)
        self._digests[key] = digest
        self._digests.move_to_end(key)
        self._times[key] = now_ms
        self._times.move_to_end(key)
        while len(self._digests) > self._most:
            oldest, _ = self._digests.popitem(last=False)
            self.since_ms = max(self.since_ms, self._times.pop(oldest, 0) + 1)
        return ""

    def finish(self, key: str, *, appended: bool) -> None:
        """Note the end of a request. A key under which nothing was appended may be used with another body."""
        self._under_way.discard(key)
        if not appended:
            self._digests.pop(key, None)
            self._times.pop(key, None)
