"""The report of a replay: figures, dead letters by reason, drift episodes, and the file of shifts and intents."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from stream.engine.engine import Engine, StepResult
from stream.errors import SourceError
from stream.log.base import Message, RecordBatch
from stream.schema import topics
from stream.schema.dead_letters import decode_headers
from stream.schema.decoder import Decoder
from stream.schema.events import ActionsConfig
from stream.schema.messages import DriftAlert
from stream.schema.user_keys import user_keys

_SHOWN: Final = 200  # bytes of the first dead letter in the report
_MAX_NAMES: Final = 50  # of unknown actions that are counted by name
_OTHER_NAMES: Final = "…"
_encode = msgspec.json.Encoder().encode
_decode_alert = msgspec.json.Decoder(DriftAlert).decode


class DriftEpisodes:
    """The drift episodes of a run, from its alerts; where they opened and closed is in accepted events."""

    def __init__(self) -> None:
        self._found: dict[int, dict[str, Any]] = {}

    def add(self, result: StepResult) -> None:
        """Add the alerts of a step."""
        for message in result.messages:
            if message.topic == topics.DRIFT_ALERTS and message.value is not None:
                alert = _decode_alert(message.value)
                episode = self._found.setdefault(alert.episode, {"opened": None, "closed": None, "since": None})
                episode[alert.state] = alert.at_event
                episode |= {"since": alert.since_event, "signals": alert.signals}
                episode |= {"kind": alert.kind, "action": alert.action}
                self._found[alert.episode] = episode

    def report(self) -> list[dict[str, Any]]:
        """All episodes in order; `opened` or `closed` is null where it lies outside this run."""
        return [self._found[number] for number in sorted(self._found)]


class RejectionCounts:
    """The dead letters by reason, the first one, and the names of unknown actions."""

    def __init__(self) -> None:
        self._by_reason: Counter[str] = Counter()
        self._unknown_actions: Counter[str] = Counter()
        self._first: dict[str, Any] | None = None

    def count(self, messages: Iterable[Message]) -> None:
        """Count the dead letters among the messages."""
        for message in messages:
            if message.topic == topics.DEAD_LETTERS:
                headers = decode_headers(message.headers)
                self._by_reason[headers.reason] += 1
                if headers.reason == "unknown_action":
                    known = headers.value in self._unknown_actions or len(self._unknown_actions) < _MAX_NAMES
                    self._unknown_actions[headers.value if known else _OTHER_NAMES] += 1
                if self._first is None:
                    self._first = {name: getattr(headers, name) for name in ("reason", "field", "value", "rule")}
                    self._first["record"] = headers.offset
                    self._first["line"] = (message.value or b"")[:_SHOWN].decode(errors="replace")

    def report(self) -> dict[str, Any]:
        """The number by reason, that of each unknown action, and the first one with its record number, from 0."""
        return {
            "dead_letters_by_reason": dict(sorted(self._by_reason.items())),
            "unknown_actions": dict(self._unknown_actions.most_common()),
            "first_dead_letter": self._first,
        }


class UserCount:
    """The number of distinct users, by 64-bit hashes: some 60 bytes for each."""

    def __init__(self, actions: ActionsConfig) -> None:
        self._decoder = Decoder(actions)
        self._hashes: set[int] = set()

    @property
    def number(self) -> int:
        """Distinct users so far."""
        return len(self._hashes)

    def add(self, batch: RecordBatch) -> None:
        """Add the users of the batch's events."""
        users = list(set(self._decoder.decode(batch.values, batch.keys, batch.timestamps_ms).events.users))
        self._hashes.update(user_keys(users).tolist())


class IntentsFile:
    """JSON lines: every shift in order, also those caused by the model, and at the end every user's intent.

    Parameters
    ----------
    path
        Overwritten if it exists.

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

    def write_shifts(self, result: StepResult) -> None:
        """Write the shifts of a step."""
        self._write(
            {
                "user": shift.user,
                "position": shift.as_of.offset,
                "from": shift.from_intent,
                "to": shift.to_intent,
                "cause": shift.cause,
                "confidence": shift.confidence,
            }
            for shift in result.shifts
        )

    def write_intents(self, engine: Engine) -> None:
        """Write the intent of every user who has one."""
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


def build_report(
    engine: Engine, *, baselines: dict[str, dict[str, float]], seconds: float, engine_seconds: float, records: int
) -> dict[str, Any]:
    """Collect the figures of the engine.

    Parameters
    ----------
    baselines
        Accuracy by baseline.
    seconds, engine_seconds
        Duration of the run, and of the engine's part in it: decode, step, learn.
    records
        Records that went through the engine in this run.
    """
    counters, gauges = engine.counters, engine.gauges()
    return {
        "records": engine.record_number,
        "events": counters["events"],
        "users": counters["users"],
        "items": int(gauges["items"]),
        # unknown with a fitted model, whose items were never admitted
        "items_recycled": None if engine.init_fingerprint else counters["items_admitted"] - int(gauges["items"]),
        "dead_letters": counters["dead_letters"],
        "unknown_fields": counters["unknown_fields"],
        "values_dropped": counters["values_dropped"],
        "skipped": 0,
        "duplicates": counters["duplicates"],
        "late": counters["late"],
        "erased": counters["erased"],
        "seconds": round(seconds, 3),
        "engine_seconds": round(engine_seconds, 3),
        "events_per_second": round(records / engine_seconds, 1) if engine_seconds else 0.0,
        "prequential": engine.accuracy.prequential.result(),
        "served": engine.accuracy.served.result(),
        "baselines": baselines,
        "intents": {"active": gauges["intents_active"], "effective": gauges["intents_effective"]},
        "recommendations": counters["recommendations"],
        "shifts": counters["shifts"],
        "model_shifts": counters["model_shifts"],
        "learn_steps": counters["learn_steps"],
        "learn_refused": counters["learn_refused"],
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "digest": engine.digest(),
    }


__all__ = ["DriftEpisodes", "IntentsFile", "RejectionCounts", "UserCount", "build_report"]
