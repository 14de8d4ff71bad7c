"""Recovery: the steps after the checkpoint are made again from the journal, unpublished."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal

from stream.engine.decoding import fetch_schemas
from stream.engine.engine import Engine, StepResult
from stream.engine.init_model import PARTITIONS_NOTE, refuse_other
from stream.errors import JournalError, SchemasUnavailable
from stream.log.base import EventLog, RecordBatch
from stream.schema import topics
from stream.schema.messages import JournalEntry
from stream.worker.journal import journal_end, last_step, read_input
from stream.worker.outage import Outage

logger = logging.getLogger(__name__)

_RETRY_S: Final = 0.5


def redo(
    engine: Engine,
    log: EventLog,
    entry: JournalEntry,
    state: Path,
    on_truncated_input: Literal["fail", "earliest", "latest"] = "fail",
) -> StepResult:
    """Make a journalled step again, learning included, and publish nothing.

    Parameters
    ----------
    engine
        It stands after the step before the entry's.
    state
        The state folder, for messages.
    on_truncated_input
        `fail` raises when input of the step is gone; otherwise the step is made without it, which is counted.

    Raises
    ------
    JournalError
        The input of the step is gone, or the journal begins with another fitted model.
    """
    if entry.step == 1:
        refuse_other(entry.notes, engine.init_fingerprint, state)
        begun_with = int(entry.notes.get(PARTITIONS_NOTE, engine.partition_counts[0]))
        if begun_with != engine.partition_counts[0]:
            raise JournalError(
                f"{state}: the journal begins with {begun_with} partitions, the configuration says "
                f"{engine.partition_counts[0]}: set log.partitions = {begun_with}; the worker finds those added since"
            )
    batches, gone = read_input(log, entry, engine.config.events.topic)
    if gone:
        text = (
            f"step {entry.step}: {gone} records of {engine.config.events.topic} in the ranges {entry.ranges} are gone"
        )
        if on_truncated_input == "fail":
            raise JournalError(
                f"{text}, and the journal needs them to rebuild the state; use a newer checkpoint, or set "
                '`engine.on_truncated_input` to "earliest" to go on without them'
            )
        engine.counters["truncated"] += gone
        logger.info("%s: going on without them", text)
    engine.add_partitions(partition for partition, _, _ in entry.ranges)
    for partition, start, _ in entry.ranges:
        engine.seek(partition, start)  # a jump over truncated input shows as a gap between ranges
    _wait_for_schemas(engine, batches)
    result = engine.step(batches)
    engine.learn(entry.learn_steps)
    return result


def _wait_for_schemas(engine: Engine, batches: Sequence[RecordBatch]) -> None:
    outage = Outage("schemas of the journalled events")
    while True:
        try:
            fetch_schemas(engine.decoder, batches)
        except SchemasUnavailable as exc:
            outage.failed(exc)
            time.sleep(_RETRY_S)
        else:
            outage.over()
            return


def is_as_published(
    entry: JournalEntry, result: StepResult, on_replay_mismatch: Literal["warn", "fail", "seen"]
) -> bool:
    """Compare the messages of a step made again with those that were published.

    Parameters
    ----------
    on_replay_mismatch
        `warn` writes a log line when they differ; `seen` does not, because an earlier step's line said it.

    Raises
    ------
    JournalError
        They differ and `on_replay_mismatch` is `fail`.
    """
    if result.checksum == entry.checksum:
        return True
    text = (
        f"step {entry.step}: recovery made {len(result.messages)} messages with checksum "
        f"{result.checksum:#010x}, the journal has {entry.messages} with {entry.checksum:#010x}: this is other "
        "code, another library, another `--items` file or another kind of machine than what published them"
    )
    if on_replay_mismatch == "fail":
        raise JournalError(text + '; set `engine.on_replay_mismatch = "warn"` to go on')
    if on_replay_mismatch == "warn":
        logger.warning("%s; going on", text)
    return False


def without_lost_step(
    engine: Engine, log: EventLog, worker: str, state: Path, reopen: Callable[[int], Engine]
) -> Engine:
    """Go back before a checkpoint whose last step is not in the journal: brokers answered its commit and lost it.

    Parameters
    ----------
    reopen
        Opens the engine from the newest checkpoint up to a step; the present one is closed before.

    Raises
    ------
    JournalError
        The journal ends before the checkpoint by more than one step: it belongs to another log or worker.
    """
    step = engine.step_number
    if not step or last_step(log, worker, engine.journal_from) >= step:
        return engine
    if log.begin_offsets(topics.JOURNAL)[0] > engine.journal_from:
        return engine  # retention took the entry
    known = last_step(log, worker)
    if known < step - 1 or journal_end(log) < engine.journal_from:
        raise JournalError(
            f"journal of worker {worker!r}: its newest step is {known}, the checkpoint in {state} is after step "
            f"{step}: this state folder belongs to another log or worker"
        )
    logger.warning(
        "the journal does not have step %d, which the newest checkpoint holds: going on from the one before", step
    )
    engine.close()
    return reopen(known)


__all__ = ["is_as_published", "redo", "without_lost_step"]
