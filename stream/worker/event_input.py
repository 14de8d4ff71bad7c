"""Where the worker reads: the next records, the end of the input, and the offsets that hold no record."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from stream.config import EngineConfig
from stream.errors import JournalError, SchemasUnavailable
from stream.log.base import EventLog, LogUnavailable, OffsetOutOfRange, RecordBatch
from stream.schema import topics
from stream.worker.journal import log_positions
from stream.worker.outage import Outage

logger = logging.getLogger(__name__)

RETRY_S = 0.5  # between two calls to a log that does not answer
_ENDS_EVERY_S = 0.5
_PARTITIONS_EVERY_S = 2.0

Positions = Mapping[int, int]  # next offset to read by partition


class EventInput:
    """The event topic as the worker reads it; positions are the engine's, passed in with every call."""

    def __init__(
        self, log: EventLog, config: EngineConfig, clock: Callable[[], float], topic: str = topics.EVENTS
    ) -> None:
        self._log = log
        self._topic = topic
        self._config = config
        self._clock = clock
        self._ends: list[int] = []
        self._ends_due = 0.0
        self._partitions_due = 0.0
        self._outage = Outage("reading events")
        self.registry = Outage("schemas of the events")
        self._misplaced_named = False
        self._control_record_ends: dict[int, int] = {}  # up to here a partition holds only marks of transactions

    def poll(self, positions: Positions) -> list[RecordBatch]:
        """The next records; none after a pause when the log does not answer.

        Raises
        ------
        OffsetOutOfRange
            A position lies before the begin or behind the end of its partition.
        """
        config = self._config
        try:
            batches = self._log.poll(
                log_positions(self.read_positions(positions), self._topic),
                config.max_step_records,
                config.poll_max_wait_ms,
            )
        except LogUnavailable as exc:
            self.wait_for_log(exc)
            return []
        self._outage.over()
        return batches

    def wait_for_log(self, error: LogUnavailable) -> None:
        """Wait a moment before the next call to a log that does not answer."""
        self._outage.failed(error)
        time.sleep(RETRY_S)

    def wait_for_registry(self, error: SchemasUnavailable) -> None:
        """Wait a moment before the next call to a schema registry that does not answer."""
        self.registry.failed(error)
        time.sleep(RETRY_S)

    def added_partitions(self, positions: Positions) -> list[RecordBatch]:
        """Empty batches for partitions that the topic has got since, looked for every few seconds.

        A step with them makes the engine take the partitions over, and the journal names the step.
        """
        now = self._clock()
        if now < self._partitions_due:
            return []
        self._partitions_due = now + _PARTITIONS_EVERY_S
        try:
            count = self._log.partition_count(self._topic, current=True)
        except LogUnavailable as exc:
            logger.warning("number of partitions: %s; asking again", exc)
            return []
        added = range(len(positions), count)
        if added:
            logger.warning(
                "%s has %d partitions now, %d before: the new ones are read from their begin; users "
                "keep their histories",
                self._topic,
                count,
                len(positions),
            )
        return [RecordBatch(self._topic, partition, [], [], [], [], [], 0) for partition in added]

    def name_misplaced(self, count: int) -> None:
        """Say once that events were in another partition than their user's."""
        if count and not self._misplaced_named:
            self._misplaced_named = True
            logger.info(
                "%s: %d events so far were in another partition than their user's: the worker repartitions by user",
                self._topic,
                count,
            )

    def skip_control_records(self, batches: list[RecordBatch]) -> None:
        """Read on behind batches that hold no record."""
        self._control_record_ends |= {batch.partition: batch.next_offset for batch in batches}

    def control_records(self, positions: Positions) -> list[RecordBatch]:
        """Batches without a record, for the offsets that `skip_control_records` passed: marks of transactions.

        A step takes them like records, only later: retention may remove them, and a position before them would then
        look like lost input.
        """
        read = self.read_positions(positions)
        passed = {partition: offset for partition, offset in read.items() if offset > positions[partition]}
        return [
            RecordBatch(self._topic, partition, [], [], [], [], [], offset)
            for partition, offset in sorted(passed.items())
        ]

    def read_positions(self, positions: Positions) -> dict[int, int]:
        """Where to read on: behind the engine's positions when only marks of transactions come next."""
        return {p: max(offset, self._control_record_ends.get(p, 0)) for p, offset in positions.items()}

    def after_lost_input(self, positions: Positions, error: OffsetOutOfRange) -> dict[int, int]:
        """Where to go on, by partition, when the records that came next are gone.

        Raises
        ------
        JournalError
            `engine.on_truncated_input` is `fail`.
        """
        policy = self._config.on_truncated_input
        if policy == "fail":
            raise JournalError(
                f'{error}: set `engine.on_truncated_input` to "earliest" or "latest" to go on without these records'
            ) from error
        self._control_record_ends.clear()
        begins, ends = self._log.begin_offsets(self._topic), self._log.end_offsets(self._topic)
        targets = begins if policy == "earliest" else ends
        lost = [p for p, offset in positions.items() if not begins[p] <= offset <= ends[p]]
        for partition in lost:
            logger.warning("%s: going on at %s[%d] offset %d", error, self._topic, partition, targets[partition])
        return {partition: targets[partition] for partition in lost}

    def refresh_ends(self) -> None:
        """Read the input's end offsets, at most twice a second; never between records and their answer."""
        now = self._clock()
        if now < self._ends_due:
            return
        self._ends_due = now + _ENDS_EVERY_S
        try:
            self._ends = self._log.end_offsets(self._topic)
        except LogUnavailable as exc:
            logger.warning("lag: %s; the last figure stands", exc)

    def lag(self, positions: Positions) -> dict[str, int]:
        """Records that wait, by partition, as of the newest `refresh_ends`."""
        read = sorted(self.read_positions(positions).items())
        return {str(p): max(0, end - offset) for (p, offset), end in zip(read, self._ends, strict=False)}


__all__ = ["RETRY_S", "EventInput", "Positions"]
