"""A log that fails as planned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stream.log.base import CommitOutcomeUnknown, EventLog, LogUnavailable, Message, TopicPartition


class Flaky:
    """A log whose commits end as planned: `before` or `after` they take effect the answer is lost, or `away`, or
    they are answered and `lost`.
    """

    def __init__(self, log: EventLog, plan: Sequence[str]) -> None:
        self._log, self._plan = log, list(plan)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def commit(self, messages: Sequence[Message], positions: Mapping[TopicPartition, int]) -> None:
        what = self._plan.pop(0) if self._plan else "well"
        if what == "away":
            raise LogUnavailable("commit: no broker answers")
        if what in ("after", "well"):
            self._log.commit(messages, positions)
        if what in ("before", "after"):
            raise CommitOutcomeUnknown(f"commit: the answer was lost ({what})")
