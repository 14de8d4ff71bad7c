"""A simulated shop that appends its events to a log at a set pace, and continues there after any stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from stream.errors import SourceError
from stream.log.base import EventLog, Message
from stream.schema import topics
from stream.sources.simulator.config import SimulatorConfig
from stream.sources.simulator.simulator import Simulator

_CHUNK = 2_000  # most events appended at once
_LATE_S = 1.0  # at most this much is caught up after a delay


class Shop:
    """Appends the events of `Simulator` to the event topic.

    Parameters
    ----------
    state
        File that keeps the simulator's state from `save` to the next start; None keeps nothing. The shop counts the
        records of the log, so that no event is missing or there twice after a crash.
    rate
        Events per second; 0 sets no limit.
    truth
        File to which the truth (intents, switches, drifts) is appended as JSON lines.
    clock
        Monotonic seconds, for the pace.
    """

    def __init__(
        self,
        config: SimulatorConfig,
        log: EventLog,
        *,
        state: Path | None,
        seed: int,
        rate: float,
        truth: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        self._log = log
        self._state = state
        self._rate = rate
        self._truth = truth
        self._clock = clock
        self._now_ms = now_ms
        self.made = 0
        there = sum(log.end_offsets(topics.EVENTS))
        if state is not None and state.exists():
            self._simulator = Simulator.load(state, config)
        else:
            self._simulator = Simulator(config, seed=seed)
        while state is not None and self._simulator.position < there:
            self._simulator.next_chunk(min(_CHUNK, there - self._simulator.position))
        self._fed_at = clock()
        self._owed = 0.0

    def feed(self, limit: int | None = None) -> int:
        """Append the events that are due by now, at most `limit`; returns their number."""
        now = self._clock()
        self._owed = min(self._owed + (now - self._fed_at) * self._rate, max(1.0, _LATE_S * self._rate))
        self._fed_at = now
        count = _CHUNK if self._rate == 0 else min(int(self._owed), _CHUNK)
        count = count if limit is None else min(count, limit)
        if count <= 0:
            return 0
        chunk = self._simulator.next_chunk(count)
        now_ms = self._now_ms()
        # a calendar that runs ahead of the clock is no reason to refuse its events
        rows = zip(chunk.keys, chunk.values, chunk.ts.tolist(), strict=True)
        self._log.append([Message(topics.EVENTS, key, value, max(now_ms, ts)) for key, value, ts in rows])
        if self._truth is not None and chunk.truth:
            try:
                with self._truth.open("ab") as file:
                    file.write(b"".join(msgspec.json.encode(line) + b"\n" for line in chunk.truth))
            except OSError as exc:
                raise SourceError(f"{self._truth}: cannot be written: {exc.strerror}") from exc
        self._owed -= count
        self.made += count
        return count

    def save(self) -> None:
        """Write the simulator's state, so that the next start need not make all events again."""
        if self._state is not None:
            self._simulator.save(self._state)
