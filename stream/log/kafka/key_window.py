"""The idempotency keys of the last day in memory, eight bytes each."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from stream.log.base import KEY_TTL_MS, MAX_KEYS

_SEALED_AT: Final = 100_000  # keys
_GROUPS: Final = 24  # of sealed keys, about: one an hour


@dataclass(frozen=True, slots=True)
class _Sealed:
    """Keys that were added one after the other, sorted."""

    numbers: npt.NDArray[np.uint64]  # (n,)
    oldest_ms: int
    newest_ms: int


class KeyWindow:
    """Digests of keys with the time of their use; keys older than `ttl_ms` or beyond the newest `most` are forgotten.

    A key is kept as the first eight bytes of its digest: among a hundred million keys, one new key in a hundred
    thousand million is taken for a known one.

    >>> window = KeyWindow(ttl_ms=1000)
    >>> window.add(b"0123456789abcdef", 5_000)
    >>> window.knows(b"0123456789abcdef", 5_999), window.knows(b"0123456789abcdef", 6_000)
    (True, False)
    """

    def __init__(self, *, ttl_ms: int = KEY_TTL_MS, most: int = MAX_KEYS, sealed_at: int = _SEALED_AT) -> None:
        self._ttl_ms = ttl_ms
        self._most = most
        self._sealed_at = sealed_at
        self._recent: dict[int, int] = {}  # number -> time of its use
        self._sealed: deque[_Sealed] = deque()

    def add(self, digest: bytes, used_ms: int) -> None:
        """Note the use of a key."""
        self._recent[_number(digest)] = used_ms
        if len(self._recent) >= self._sealed_at:
            self._seal()
            while self._sealed and (len(self) > self._most or used_ms - self._sealed[0].newest_ms >= self._ttl_ms):
                self._sealed.popleft()

    def _seal(self) -> None:
        """Move the recent keys into the newest sealed group, or a new one: there are few of them to look into."""
        numbers = np.fromiter(self._recent, dtype=np.uint64, count=len(self._recent))
        oldest_ms, newest_ms = min(self._recent.values()), max(self._recent.values())
        if self._sealed:
            last = self._sealed[-1]
            small = len(last.numbers) + len(numbers) <= self._most // _GROUPS
            if small and newest_ms - last.oldest_ms <= self._ttl_ms // _GROUPS:
                self._sealed.pop()
                numbers, oldest_ms = np.concatenate([last.numbers, numbers]), last.oldest_ms
        self._sealed.append(_Sealed(np.sort(numbers), oldest_ms, newest_ms))
        self._recent = {}

    def knows(self, digest: bytes, now_ms: int) -> bool:
        """Whether the key was used within the window. A key of a sealed group counts from the group's newest use."""
        number = _number(digest)
        used_ms = self._recent.get(number)
        if used_ms is not None:
            return now_ms - used_ms < self._ttl_ms
        for group in self._sealed:
            at = int(np.searchsorted(group.numbers, np.uint64(number)))
            if at < len(group.numbers) and int(group.numbers[at]) == number:
                return now_ms - group.newest_ms < self._ttl_ms
        return False

    def __len__(self) -> int:
        return len(self._recent) + sum(len(group.numbers) for group in self._sealed)


def _number(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")
