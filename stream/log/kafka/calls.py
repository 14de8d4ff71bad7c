"""Calls of the Kafka client that may hang, in threads of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from stream.log.base import LogError

PAUSE_S: Final = 0.05  # between two tries
MOST_ASLEEP: Final = 256  # threads of calls that hang: hours of a broker that answers nothing


class _Call(threading.Thread):
    """A call of the client that may never return."""


def bounded(call: Callable[[], None], timeout_ms: int, name: str) -> BaseException | None:
    """Run a call that may hang and return its error; `TimeoutError` when it has not returned after the time.

    The thread of a call that never returns stays, asleep, until the process ends. With `MOST_ASLEEP` of them no other
    call begins: the `LogError` returned then ends the process, and the next process begins with none.
    """
    asleep = sum(isinstance(thread, _Call) for thread in threading.enumerate())
    if asleep >= MOST_ASLEEP:
        return LogError(
            f"{asleep} calls of the Kafka client have not come back: the brokers take connections and give no answers; "
            "look at them, then start this process again: nothing is lost"
        )
    outcome: list[BaseException | None] = []

    def run() -> None:
        try:
            call()
            outcome.append(None)
        except BaseException as exc:
            outcome.append(exc)

    thread = _Call(target=run, name=name, daemon=True)
    thread.start()
    thread.join(timeout_ms / 1000)
    return outcome[0] if outcome else TimeoutError(f"no answer within {timeout_ms} ms")
