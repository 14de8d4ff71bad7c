"""One step's commit, exactly once: when its answer is lost, the journal decides, never a guess."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stream.errors import JournalError
from stream.log.base import CommitOutcomeUnknown, EventLog, LogUnavailable, Message, TopicPartition, WriterFenced
from stream.schema import topics
from stream.schema.messages import JournalEntry
from stream.worker.event_input import RETRY_S
from stream.worker.journal import last_entry
from stream.worker.outage import Outage

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Committed:
    """What the journal holds once every open transaction is decided."""

    entry: JournalEntry | None  # the worker's newest
    begin: int  # first journal offset that is still there

    @property
    def step(self) -> int:
        return 0 if self.entry is None else self.entry.step


def commit_step(
    log: EventLog,
    entry: JournalEntry,
    messages: Sequence[Message],
    positions: Mapping[TopicPartition, int],
    journal_from: int,
) -> None:
    """Commit a step's messages, among them its journal entry, and the input positions; waits for a log that is away.

    Parameters
    ----------
    entry
        The step's journal entry.
    positions
        Next offset of each input partition after the step.
    journal_from
        A journal offset at or before the worker's newest entry.

    Raises
    ------
    WriterFenced
        Another process has taken the worker's place.
    JournalError
        The brokers lost the step before this one.
    """
    outage = Outage(f"commit of step {entry.step}")
    while True:
        try:
            log.commit(messages, positions)
            outage.over()
            return
        except (CommitOutcomeUnknown, LogUnavailable) as exc:
            outage.failed(exc)
            found = _resolve(log, entry, journal_from)
            logger.info("commit of step %d: the journal's newest step is %d", entry.step, found.step)
            if found.entry == entry:
                return
            _refuse_if_taken(entry, found.entry)
            if found.step < entry.step - 1 and found.begin <= journal_from:
                raise JournalError(
                    f"worker {entry.worker}: the commit of step {entry.step - 1} was answered and is not in the "
                    'journal: the brokers lost it (see "broker killed" in docs/failures.md); start this worker '
                    "again: it makes the step anew from the same input"
                ) from exc


def _resolve(log: EventLog, entry: JournalEntry, journal_from: int) -> _Committed:
    """Read what the journal holds, once every open transaction is decided; waits for the log.

    It looks before the claim, too, so as not to fence another process that has taken this worker's place.
    """
    worker = entry.worker
    outage = Outage(f"finding out whether step {entry.step} was committed")
    while True:
        time.sleep(RETRY_S)
        try:
            _refuse_if_taken(entry, last_entry(log, worker, journal_from, decided=True))
            log.claim(worker)
            return _Committed(last_entry(log, worker, journal_from), log.begin_offsets(topics.JOURNAL)[0])
        except LogUnavailable as exc:
            outage.failed(exc)


def _refuse_if_taken(entry: JournalEntry, newest: JournalEntry | None) -> None:
    """Raise `WriterFenced` when another process journalled this step or a later one: that one has the stream, and going
    on here would answer its events a second time.
    """
    if newest is not None and newest.step >= entry.step and newest != entry:
        raise WriterFenced(
            f"worker {entry.worker}: step {newest.step} in the journal is not from this process: another one ran as "
            "this worker meanwhile, this one must stop"
        )


__all__ = ["commit_step"]
