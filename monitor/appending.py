"""Appends events from HTTP to the log, in groups, and answers when they are durable."""

from __future__ import annotations

import asyncio
import queue
import threading
from dataclasses import dataclass
from typing import Final

from stream.log.base import AppendRequest, EventLog, LogError, LogUnavailable, Message
from stream.schema import topics

_GROUP_EVENTS: Final = 20_000
_QUEUED_REQUESTS: Final = 1024


@dataclass(slots=True)
class _Waiting:
    request: AppendRequest
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[bool]


class Appender:
    """One thread that owns the producer's log handle; requests that wait together share one durable write."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._queue: queue.Queue[_Waiting | None] = queue.Queue(maxsize=_QUEUED_REQUESTS)
        self._thread = threading.Thread(target=self._run, name="monitor-appender", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Write the requests that wait, then end."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(timeout=30)

    async def append(self, messages: list[Message], idempotency_key: bytes | None = None) -> bool:
        """Return when the messages are durable: True, or False when the log knew the key, and with it the messages.

        Raises
        ------
        LogUnavailable
            Too many requests wait, or the log does not answer or has no room. The same request may be made again.
        LogError
            The log refuses.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(AppendRequest(messages, idempotency_key), loop, loop.create_future())
        try:
            self._queue.put_nowait(waiting)
        except queue.Full:
            raise LogUnavailable(f"{_QUEUED_REQUESTS} requests wait for the log already") from None
        return await waiting.done

    def _run(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                return
            group, size, last = [first], len(first.request.messages), False
            while size < _GROUP_EVENTS:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    last = True
                    break
                group.append(more)
                size += len(more.request.messages)
            self._write(group)
            if last:
                return

    def _write(self, group: list[_Waiting]) -> None:
        error: Exception | None = None
        answers = [True] * len(group)
        try:
            answers = self._log.append_each([waiting.request for waiting in group])
        except LogError as exc:
            error = exc
        except OSError as exc:
            error = LogUnavailable(f"appending failed: {exc}")
        except Exception as exc:  # no caller may wait for ever
            error = LogError(f"appending failed: {exc}")
        for waiting, is_new in zip(group, answers, strict=True):
            waiting.loop.call_soon_threadsafe(_answer, waiting.done, is_new, error)


def _answer(done: asyncio.Future[bool], is_new: bool, error: Exception | None) -> None:
    if done.cancelled():
        return
    if error is None:
        done.set_result(is_new)
    else:
        done.set_exception(error)


def event_message(user: bytes, value: bytes, now_ms: int, topic: str = topics.EVENTS) -> Message:
    """A record of the input topic; its timestamp is the time of appending, from which freshness is measured."""
    return Message(topic, user, value, now_ms)
