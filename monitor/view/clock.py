"""The stream's own time, by which old events leave the view."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

_USERS: Final = 256
_RESTORED: Final = _USERS // 2


class StreamClock:
    """The (lower) median of the newest event times of the users seen last.

    A maximum would follow one wrong clock, and the histories of all others would look old. Each user counts once,
    however many events come; and the median goes back when the wrong ones have passed.

    >>> clock = StreamClock()
    >>> clock.update([b"anna", b"bert", b"cleo", b"bert"], [1000, 1001, 1002, 99_000_000])
    >>> clock.now_ms
    1002
    """

    def __init__(self) -> None:
        self._newest: OrderedDict[bytes, int] = OrderedDict()  # event time by user, the user seen last at the end
        self.now_ms = 0

    def update(self, users: Sequence[bytes], times_ms: Sequence[int]) -> None:
        """Count events, in their order."""
        newest = self._newest
        for user, ts in list(dict(zip(users, times_ms, strict=True)).items())[-_USERS:]:
            newest[user] = ts
            newest.move_to_end(user)
        while len(newest) > _USERS:
            newest.popitem(last=False)
        if newest:
            self.now_ms = sorted(newest.values())[(len(newest) - 1) // 2]

    def restore(self, now_ms: int) -> None:
        """Go on at a time that was kept: it counts like half of the users."""
        self._newest.clear()
        self.now_ms = now_ms
        if now_ms:
            self._newest.update((b"\0%d" % n, now_ms) for n in range(_RESTORED))
