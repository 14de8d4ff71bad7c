"""The thread that reads the topics into the view and passes new records to the event streams."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from monitor.errors import ViewError
from monitor.view.view import View
from stream.errors import SchemasUnavailable
from stream.log.base import EventLog, LogError, OffsetOutOfRange, RecordBatch, TopicMismatch, TopicPartition

logger = logging.getLogger(__name__)

_RETRY_S: Final = 1.0
_LAG_EVERY_S: Final = 1.0
_PARTITIONS_EVERY_S: Final = 5.0
_SWEEP_MIN: Final = 200  # keys checked per turn, beside two for each record applied


@dataclass(slots=True)
class Reading:
    """Progress of the reader; replaced as a whole, so any thread may look."""

    lag: dict[str, int] = field(default_factory=dict)  # records not yet read, by topic
    caught_up: bool = False
    problem: str = "the topics have not been read yet"

    @property
    def waiting(self) -> int:
        """Records not yet read."""
        return sum(self.lag.values())


class Reader:
    """Reads in its own thread, which is the only one that touches `log` and writes the view.

    Parameters
    ----------
    on_batches
        Called in that thread with the batches of each read, for the event streams.
    """

    def __init__(
        self,
        log: EventLog,
        view: View,
        *,
        interval_s: float,
        max_records: int,
        on_batches: Callable[[list[RecordBatch]], None] = lambda batches: None,
    ) -> None:
        self._log = log
        self._view = view
        self._interval_s = interval_s
        self._max_records = max_records
        self._on_batches = on_batches
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="monitor-reader", daemon=True)
        self._lag_due = 0.0
        self._partitions_due = 0.0
        self.reading = Reading()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End after the current read, and wait for that."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._place()
                while not self._stop.is_set():
                    if self.turn() < self._max_records:
                        self._stop.wait(self._interval_s)
            except (TopicMismatch, LogError, SchemasUnavailable) as exc:
                if str(exc) != self.reading.problem:
                    logger.warning("reading the topics: %s; trying again", exc)
                self.reading = Reading(problem=str(exc))
                self._stop.wait(_RETRY_S)
            except ViewError as exc:
                self._recover(exc)
            except Exception:
                self.reading = Reading(problem="the monitor's reader failed; its log has the reason")
                logger.exception("the monitor's reader failed")
                return

    def _recover(self, error: ViewError) -> None:
        """Wait until the view can be written again: until the disk has room."""
        logger.warning("%s; the monitor goes on when it can be written again", error)
        while not self._stop.is_set():
            self.reading = Reading(problem=str(error))
            self._stop.wait(_RETRY_S)
            try:
                self._view.recover()
            except ViewError as exc:
                error = exc
            else:
                logger.info("the view can be written again")
                return

    def turn(self) -> int:
        """Read all topics once; returns the number of records."""
        try:
            batches = self._log.poll(self._view.positions, self._max_records, 0)
        except OffsetOutOfRange as exc:
            logger.warning("reading the topics: %s", exc)
            self._place()
            return 0
        for batch in batches:
            if batch.topic == self._view.topics[0]:
                self._view.users.prepare(batch)
        count = self._view.apply(batches)
        if count:
            self._on_batches(batches)
            self._view.users.sweep(_SWEEP_MIN + 2 * count)
        if time.monotonic() >= self._partitions_due:
            self._look_for_partitions()
        if time.monotonic() >= self._lag_due or not self.reading.caught_up:
            self._measure()
        return count

    def _look_for_partitions(self) -> None:
        """Read partitions too that were added while the monitor runs."""
        self._partitions_due = time.monotonic() + _PARTITIONS_EVERY_S
        for topic in self._view.topics:
            newest = TopicPartition(topic, self._log.partition_count(topic, current=True) - 1)
            if newest not in self._view.positions:
                logger.info("%s has %d partitions now", topic, newest.partition + 1)
                self._place()
                return

    def _place(self) -> None:
        """Set a position for every partition: the view's own, or the begin of the topic where the view has none."""
        view = self._view
        moves: dict[TopicPartition, int] = {}
        for topic in self._view.topics:
            begins, ends = self._log.begin_offsets(topic), self._log.end_offsets(topic)
            for partition, (begin, end) in enumerate(zip(begins, ends, strict=True)):
                tp = TopicPartition(topic, partition)
                position = view.positions.get(tp, begin)
                if position > end:
                    logger.warning(
                        "%s ends at %d, the view is at %d: another log; the view begins anew", tp, end, position
                    )
                    view.reset()
                    self._place()
                    return
                if tp not in view.positions or position < begin:
                    moves[tp] = begin
        if moves:
            view.seek(moves)

    def _measure(self) -> None:
        self._lag_due = time.monotonic() + _LAG_EVERY_S
        lag: dict[str, int] = {}
        for topic in self._view.topics:
            ends = self._log.end_offsets(topic)
            lag[topic] = sum(
                max(0, end - self._view.positions.get(TopicPartition(topic, partition), 0))
                for partition, end in enumerate(ends)
            )
        waiting = sum(lag.values())
        self.reading = Reading(lag=lag, caught_up=self.reading.caught_up or waiting <= self._max_records, problem="")
