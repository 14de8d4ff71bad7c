"""Server-sent events: what the reader takes, to those who listen."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Final

import msgspec

from monitor.view import records
from stream.log.base import RecordBatch
from stream.schema import topics

_QUEUED: Final = 500  # events that wait for a slow listener; older ones are dropped and counted
_HEARTBEAT_S: Final = 15.0


def frame(event: str, data: bytes, id_: str | None = None) -> bytes:
    r"""One event as it goes over the wire.

    >>> frame("shift", b'{"a":1}', "0-7")
    b'id: 0-7\nevent: shift\ndata: {"a":1}\n\n'
    """
    lines = [b"data: " + line for line in data.replace(b"\r", b"\n").split(b"\n")]
    head = [b"id: " + id_.encode()] if id_ is not None else []
    return b"\n".join([*head, b"event: " + event.encode(), *lines]) + b"\n\n"


def frames(batch: RecordBatch, user: bytes | None) -> Iterable[bytes]:
    """The batch's records as events, of one user only when given."""
    rows = zip(batch.offsets, batch.keys, batch.values, batch.timestamps_ms, batch.headers, strict=True)
    for offset, key, value, ts, headers in rows:
        if user is not None and key != user:
            continue
        id_ = f"{batch.partition}-{offset}"
        if batch.topic == topics.DEAD_LETTERS:
            yield frame("dead-letter", records.to_json(records.dead_letter_view(offset, key, value, ts, headers)), id_)
        elif value is None:
            yield frame("tombstone", msgspec.json.encode({"key": records.readable(key)}), id_)
        else:
            yield frame("message", value, id_)


class Listener:
    """One open stream: a bounded queue; belongs to the event loop."""

    def __init__(self, topic: str, user: bytes | None) -> None:
        self.topic, self.user = topic, user
        self._waiting: deque[bytes] = deque(maxlen=_QUEUED)
        self._dropped = 0
        self._wake = asyncio.Event()
        self._closed = False

    def put(self, some: list[bytes]) -> None:
        """Queue events; the oldest give way."""
        self._dropped += max(0, len(self._waiting) + len(some) - _QUEUED)
        self._waiting.extend(some)
        self._wake.set()

    def close(self) -> None:
        """End the stream."""
        self._closed = True
        self._wake.set()

    async def events(self) -> AsyncIterator[bytes]:
        """What to send, with a comment now and then so that both sides notice a dead connection."""
        yield b": connected\n\n"
        while not self._closed:
            try:
                await asyncio.wait_for(self._wake.wait(), _HEARTBEAT_S)
            except TimeoutError:
                yield b": alive\n\n"
                continue
            self._wake.clear()
            if self._dropped:
                lost, self._dropped = self._dropped, 0
                yield frame("dropped", b'{"events":%d}' % lost)
            if self._waiting:
                some = b"".join(self._waiting)
                self._waiting.clear()
                yield some


class Hub:
    """All open streams."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._listeners: set[Listener] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, topic: str, user: bytes | None) -> Listener | None:
        """A new stream, None when there are too many."""
        if len(self._listeners) >= self._most:
            return None
        self._loop = asyncio.get_running_loop()
        listener = Listener(topic, user)
        self._listeners.add(listener)
        return listener

    def close(self, listener: Listener) -> None:
        """The stream has ended."""
        self._listeners.discard(listener)

    def close_all(self) -> None:
        """End every stream: the server stops."""
        for listener in list(self._listeners):
            listener.close()

    def publish(self, batches: list[RecordBatch]) -> None:
        """Called by the reader's thread."""
        if not self._listeners or self._loop is None:
            return
        self._loop.call_soon_threadsafe(self._deliver, batches)

    def _deliver(self, batches: list[RecordBatch]) -> None:
        made: dict[tuple[str, bytes | None], list[bytes]] = {}
        for listener in list(self._listeners):
            key = (listener.topic, listener.user)
            if key not in made:
                made[key] = [
                    f for b in batches if b.topic == listener.topic and len(b) for f in frames(b, listener.user)
                ]
            if made[key]:
                listener.put(made[key])

    def __len__(self) -> int:
        return len(self._listeners)
