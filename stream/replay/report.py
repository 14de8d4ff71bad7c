"""What a replay tells beside its figures: dead letters by reason, a file of shifts, and the list of drift episodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from stream.engine.engine import Engine, StepResult
from stream.errors import SourceError
from stream.log.base import Message
from stream.schema import topics
from stream.schema.messages import DriftAlert

_SHOWN: Final = 200  # bytes of the first dead letter that the report holds
_encode = msgspec.json.Encoder().encode
_decode_alert = msgspec.json.Decoder(DriftAlert).decode


class Episodes:
    """The drift episodes of a run, from its alerts; positions are numbers of records in the input, from 0."""

    def __init__(self) -> None:
        self._found: dict[int, dict[str, Any]] = {}

    def take(self, result: StepResult) -> None:
        """Take the alerts of a step."""
        for message in result.messages:
            if message.topic == topics.DRIFT_ALERTS and message.value is not None:
                alert = _decode_alert(message.value)
                episode = self._found.setdefault(alert.episode, {"opened": None, "closed": None, "since": None})
                episode[alert.state] = alert.at_event
                episode |= {"since": alert.since_event, "signals": alert.signals}
                episode |= {"kind": alert.kind, "action": alert.action}
                self._found[alert.episode] = episode

    def report(self) -> list[dict[str, Any]]:
        """All episodes in order; `opened` or `closed` is null for what lies outside of this run."""
        return [self._found[number] for number in sorted(self._found)]


class RejectionCounts:
    """The dead letters by reason, and the first one."""

    def __init__(self) -> None:
        self._by_reason: Counter[str] = Counter()
        self._first: dict[str, Any] | None = None

    def take(self, messages: Iterable[Message]) -> None:
        """Count the dead letters among the messages."""
        for message in messages:
            if message.topic == topics.DEAD_LETTERS:
                said = {name: data.decode(errors="replace") for name, data in message.headers}
                self._by_reason[said["reason"]] += 1
                if self._first is None:
                    self._first = {name: said[name] for name in ("reason", "field", "value", "rule")}
                    self._first["record"] = int(said["offset"])
                    self._first["line"] = (message.value or b"")[:_SHOWN].decode(errors="replace")

    def report(self) -> dict[str, Any]:
        """How many by reason; the first with its place in the input, counted from 0, or null."""
        return {"dead_letters_by_reason": dict(sorted(self._by_reason.items())), "first_dead_letter": self._first}


class IntentsFile:
    """JSON lines: every shift as it happens, also those that the model caused; at the end every user's intent.

    Parameters
    ----------
    path
        Written anew.

    Raises
    ------
    SourceError
        The file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._out: IO[bytes] = path.open("wb")
        except OSError as exc:
            raise self._failed(exc) from exc

    def take(self, engine: Engine) -> None:
        """Write the shifts of the step that the engine has just made."""
        self._write(
            {
                "user": shift.user,
                "position": shift.as_of.offset,
                "from": shift.from_intent,
                "to": shift.to_intent,
                "cause": shift.cause,
                "confidence": shift.confidence,
            }
            for shift in engine.meaning.shifts
        )

    def finish(self, engine: Engine) -> None:
        """Write every user's intent; users without any are left out."""
        self._write({"user": user, "intent": intent} for user, intent in engine.user_intents())

    def _write(self, lines: Iterable[dict[str, Any]]) -> None:
        try:
            self._out.writelines(_encode(line) + b"\n" for line in lines)
        except OSError as exc:
            raise self._failed(exc) from exc

    def _failed(self, exc: OSError) -> SourceError:
        return SourceError(f"{self._path}: cannot be written: {exc.strerror}")

    def close(self) -> None:
        """Close the file."""
        self._out.close()


__all__ = ["Episodes", "IntentsFile", "RejectionCounts"]
