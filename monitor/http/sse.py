"""Server-sent events: the records that the reader takes, to the clients that listen."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Final, NamedTuple

import msgspec
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from monitor.view import records
from stream.log.base import RecordBatch
from stream.schema import topics

_QUEUED: Final = 500  # events that wait for a slow client; the oldest are dropped and counted
_HEARTBEAT_S: Final = 15.0


def encode_events(batch: RecordBatch, user: bytes | None) -> Iterable[bytes]:
    """The batch's records as they go over the wire, only those with this key where one is given."""
    rows = zip(batch.offsets, batch.keys, batch.values, batch.timestamps_ms, batch.headers, strict=True)
    for offset, key, value, ts, headers in rows:
        if user is not None and key != user:
            continue
        event = "message"
        if batch.topic == topics.DEAD_LETTERS:
            event, value = "dead-letter", records.to_json(records.dead_letter_view(offset, key, value, ts, headers))
        elif value is None:
            event, value = "tombstone", msgspec.json.encode({"key": records.readable(key)})
        yield format_sse_event(id=f"{batch.partition}-{offset}", event=event, data_str=value.decode("utf-8", "replace"))


class _Encoded(NamedTuple):
    events: list[bytes]
    dropped: int  # older ones, which no queue could hold


def _encode_newest(batches: list[RecordBatch], topic: str, user: bytes | None) -> _Encoded:
    newest: deque[bytes] = deque(maxlen=_QUEUED)
    count = 0
    for batch in batches:
        if batch.topic == topic:
            for event in encode_events(batch, user):
                newest.append(event)
                count += 1
    return _Encoded(list(newest), count - len(newest))


class Listener:
    """One open stream: a bounded queue; belongs to the event loop."""

    def __init__(self, topic: str, user: bytes | None) -> None:
        self.topic, self.user = topic, user
        self._waiting: deque[bytes] = deque(maxlen=_QUEUED)
        self._dropped = 0
        self._wake = asyncio.Event()
        self._closed = False

    def put(self, events: list[bytes], dropped: int = 0) -> None:
        """Queue events, after as many others that were dropped already; the oldest give way."""
        self._dropped += dropped + max(0, len(self._waiting) + len(events) - _QUEUED)
        self._waiting.extend(events)
        self._wake.set()

    def close(self) -> None:
        """End the stream."""
        self._closed = True
        self._wake.set()

    async def events(self) -> AsyncIterator[bytes]:
        """Bytes to send, with a comment now and then so that both sides notice a dead connection."""
        yield format_sse_event(comment="connected")
        while not self._closed:
            try:
                await asyncio.wait_for(self._wake.wait(), _HEARTBEAT_S)
            except TimeoutError:
                yield KEEPALIVE_COMMENT
                continue
            self._wake.clear()
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                yield format_sse_event(event="dropped", data_str=f'{{"events":{dropped}}}')
            if self._waiting:
                waiting = b"".join(self._waiting)
                self._waiting.clear()
                yield waiting


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
        """Remove a stream that has ended."""
        self._listeners.discard(listener)

    def close_all(self) -> None:
        """End every stream: the server stops."""
        for listener in list(self._listeners):
            listener.close()

    def publish(self, batches: list[RecordBatch]) -> None:
        """Encode records for the streams and hand them over; called by the reader's thread, which may take its time."""
        loop = self._loop
        if loop is None:
            return
        encoded: dict[tuple[str, bytes | None], _Encoded] = {}
        for listener in list(self._listeners):
            key = (listener.topic, listener.user)
            if key not in encoded:
                encoded[key] = _encode_newest(batches, *key)
            if encoded[key].events:
                loop.call_soon_threadsafe(listener.put, *encoded[key])

    def __len__(self) -> int:
        return len(self._listeners)
