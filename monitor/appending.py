"""Appends events from HTTP to the log in groups, and answers when they are durable; idempotency keys."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import msgspec

from stream.log.base import EventLog, LogError, LogUnavailable, Message
from stream.schema import topics

_GROUP_EVENTS: Final = 20_000
_QUEUED_REQUESTS: Final = 1024


@dataclass(slots=True)
class _Request:
    messages: list[Message]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]


class Appender:
    """One thread that owns the producer's log handle; requests that wait together share one durable write."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._queue: queue.Queue[_Request | None] = queue.Queue(maxsize=_QUEUED_REQUESTS)
        self._thread = threading.Thread(target=self._run, name="monitor-appender", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Write the requests that wait, then end."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(timeout=30)

    async def append(self, messages: list[Message]) -> None:
        """Return when the messages are durable.

        Raises
        ------
        LogUnavailable
            Too many requests wait, or the log does not answer: nothing of this request was written.
        LogError
            The log refuses.
        """
        loop = asyncio.get_running_loop()
        request = _Request(messages, loop, loop.create_future())
        try:
            self._queue.put_nowait(request)
        except queue.Full:
            raise LogUnavailable(f"{_QUEUED_REQUESTS} requests wait for the log already") from None
        await request.done

    def _run(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                return
            group, size, last = [first], len(first.messages), False
            while size < _GROUP_EVENTS:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    last = True
                    break
                group.append(more)
                size += len(more.messages)
            self._write(group)
            if last:
                return

    def _write(self, group: list[_Request]) -> None:
        error: Exception | None = None
        try:
            self._log.append([message for request in group for message in request.messages])
        except LogError as exc:
            error = exc
        except Exception as exc:  # no caller may wait for ever
            error = LogError(f"appending failed: {exc}")
        for request in group:
            request.loop.call_soon_threadsafe(_answer, request.done, error)


def _answer(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.cancelled():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)


def event_message(user: bytes, value: bytes, now_ms: int) -> Message:
    """A record of the input topic; its timestamp is the time of appending, from which freshness is measured."""
    return Message(topics.EVENTS, user, value, now_ms)


class Remembered(msgspec.Struct, frozen=True, array_like=True):
    """An idempotency key's request and answer; no answer while the request is under way."""

    key: str
    digest: bytes
    at_ms: int
    answer: bytes | None = None


class Idempotency:
    """Answers by idempotency key, the newest `size` of them, none older than `ttl_ms`; kept over restarts.

    Parameters
    ----------
    put, delete, saved
        Where the answers are kept: functions over (key, value), and what is there at the start.
    """

    def __init__(
        self,
        size: int,
        ttl_ms: int,
        *,
        put: Callable[[bytes, bytes], None] = lambda key, value: None,
        delete: Callable[[bytes], None] = lambda key: None,
        saved: list[bytes] | None = None,
    ) -> None:
        self._size = size
        self._ttl_ms = ttl_ms
        self._put, self._delete = put, delete
        self._answers: OrderedDict[str, Remembered] = OrderedDict()
        kept = [msgspec.msgpack.decode(raw, type=Remembered) for raw in saved or []]
        for one in sorted(kept, key=lambda r: r.at_ms):
            self._answers[one.key] = one

    def begin(self, key: str, body: bytes, now_ms: int) -> Remembered | None:
        """What is known of this key; when nothing is, the request is noted as under way and None returned."""
        self._drop(now_ms)
        found = self._answers.get(key)
        if found is None:
            self._answers[key] = Remembered(key, self.digest(body), now_ms)
        return found

    def finish(self, key: str, body: bytes, now_ms: int, answer: bytes) -> None:
        """Keep the answer."""
        one = Remembered(key, self.digest(body), now_ms, answer)
        self._answers[key] = one
        self._answers.move_to_end(key)
        self._put(self._name(key), msgspec.msgpack.encode(one))

    def abandon(self, key: str) -> None:
        """The request failed: the same key may be tried again."""
        self._answers.pop(key, None)

    def _drop(self, now_ms: int) -> None:
        while self._answers:
            key, oldest = next(iter(self._answers.items()))
            if len(self._answers) < self._size and now_ms - oldest.at_ms <= self._ttl_ms:
                return
            del self._answers[key]
            self._delete(self._name(key))

    @staticmethod
    def digest(body: bytes) -> bytes:
        """By which two bodies under one key are compared."""
        return blake2b(body, digest_size=16).digest()

    @staticmethod
    def _name(key: str) -> bytes:
        return b"i" + blake2b(key.encode(), digest_size=16).digest()

    def __len__(self) -> int:
        return len(self._answers)
