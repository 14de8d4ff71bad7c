"""Idempotency keys as both logs store them, and which of several requests are to be written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from stream.log.base import AppendRequest

KEY_BYTES = 16


def key_digest(key: bytes) -> bytes:
    """The 16 bytes by which a log knows an idempotency key."""
    return blake2b(key, digest_size=KEY_BYTES).digest()


@dataclass(frozen=True, slots=True)
class Selection:
    """Which requests of a call are new: `fresh` are to be written; `answers`, one for each request of the call."""

    fresh: list[AppendRequest]
    digests: list[bytes]  # of the keys of `fresh`
    answers: list[bool]


def select(requests: Sequence[AppendRequest], is_known: Callable[[bytes], bool]) -> Selection:
    """Leave out requests whose key is known, or comes earlier in the same call.

    is_known: whether the log has appended under the key of this digest.
    """
    fresh: list[AppendRequest] = []
    digests: list[bytes] = []
    answers: list[bool] = []
    for request in requests:
        digest = key_digest(request.idempotency_key) if request.idempotency_key is not None else None
        new = digest is None or (digest not in digests and not is_known(digest))
        answers.append(new)
        if new:
            fresh.append(request)
            if digest is not None:
                digests.append(digest)
    return Selection(fresh, digests, answers)
