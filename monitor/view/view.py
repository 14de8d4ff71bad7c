"""Topics → the current view, in RocksDB; a restart goes on where the view was.

The records of a batch and the positions after them are one write batch, so a crash at any moment leaves a view that is
exactly some earlier one; the records after it are read again. What is kept per user is on disk only; in memory are
rings of a fixed length, the workers' reports and the catalog.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from rocksdict import WriteBatch

from monitor.view import records
from monitor.view.catalog import Catalog
from monitor.view.db import Ring, ViewDb, user_hash
from monitor.view.records import DeadLetterView, Episode
from monitor.view.reports import WorkerReports
from monitor.view.users import UserRecords, precedes
from stream.log.base import RecordBatch, TopicPartition
from stream.mapping.config import EventsConfig
from stream.schema import topics
from stream.schema.dead_letters import decode_headers, is_mark
from stream.schema.events import ActionsConfig
from stream.schema.messages import DriftAlert, ErasureReceipt

logger = logging.getLogger(__name__)

MAX_REASONS: Final = 32
_NEWEST: Final = 500  # shifts, alerts, dead letters in memory
_FEED: Final = 40  # newest lists of all users


def wall_clock_ms() -> int:
    """Now, epoch milliseconds."""
    return time.time_ns() // 1_000_000


class View:
    """What the topics say now. One thread writes, any thread reads.

    Parameters
    ----------
    history_len
        Newest events and shifts kept per user.
    history_days
        Event time, before the stream's clock, after which a user's events and shifts are removed.
    series_points
        Reports of the worker kept at full resolution; minutes are kept for two days beside them.
    actions
        The worker's actions: the worker refuses an event with another one, so no history holds it.
    events
        The topic of the events, and the shape of its records.
    """

    def __init__(
        self,
        path: Path,
        *,
        history_len: int = 50,
        history_days: float = 30.0,
        series_points: int = 2000,
        actions: ActionsConfig | None = None,
        events: EventsConfig | None = None,
        clock_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self._db = ViewDb(path)
        self.topics = ((events or EventsConfig()).topic, *topics.OUTPUTS)
        self.users = UserRecords(
            self._db,
            history_len=history_len,
            history_days=history_days,
            actions=actions or ActionsConfig(),
            events=events or EventsConfig(),
        )
        self.reports = WorkerReports(self._db, series_points, clock_ms)
        self.catalog = Catalog(self._db)
        self.shifts = Ring(self._db, b"S", _NEWEST)
        self.alerts = Ring(self._db, b"a", _NEWEST)
        self.dead_letters = Ring(self._db, b"d", _NEWEST)
        self.feed = Ring(self._db, b"f", _FEED)
        self.reasons: dict[str, int] = {}
        self.positions: dict[TopicPartition, int] = {}
        self.totals: dict[str, int] = {}
        self.revision = dict.fromkeys(self.topics, 0)
        self._apply: dict[str, Callable[[WriteBatch, RecordBatch], None]] = {
            self.topics[0]: self.users.apply_events,
            topics.RECOMMENDATIONS: self._recommendations,
            topics.INTENT_SHIFTS: self._intent_shifts,
            topics.INTENT_CATALOG: self._catalog,
            topics.DRIFT_ALERTS: self._drift_alerts,
            topics.METRICS: self._metrics,
            topics.ERASURES: self._erasures,
            topics.DEAD_LETTERS: self._dead_letters,
        }
        self._load()

    # -- durable ----------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        self.reports.load()
        self.catalog.load()
        self.shifts.load(records.decode_shift)
        self.alerts.load(records.decode_alert)
        self.dead_letters.load(records.decode_dead_letter)
        self.feed.load(records.decode_recommendations)
        for key, raw in self._db.scan(b"p"):
            position = TopicPartition(key[3:].decode(), int.from_bytes(key[1:3], "big"))
            self.positions[position] = int.from_bytes(raw, "big")
        counts = self._db.get(b"n")
        if counts is not None:
            self.reasons, self.totals, event_ts = msgspec.msgpack.decode(
                counts, type=tuple[dict[str, int], dict[str, int], int]
            )
            self.users.clock.restore(event_ts)

    def apply(self, batches: Sequence[RecordBatch]) -> int:
        """Apply the records and the positions after them, all or nothing; returns the number of records."""
        write = WriteBatch(raw_mode=True)
        count = 0
        self.users.begin_batches()
        # Erasures first: what the other topics say of the user from before is then not taken at all.
        for batch in sorted(batches, key=lambda one: one.topic != topics.ERASURES):
            if len(batch):
                self._apply[batch.topic](write, batch)
                self.totals[batch.topic] = self.totals.get(batch.topic, 0) + len(batch)
                self.revision[batch.topic] += 1
                count += len(batch)
            self._move(write, TopicPartition(batch.topic, batch.partition), batch.next_offset)
        if count:
            write.put(b"n", records.pack((self.reasons, self.totals, self.users.clock.now_ms)))
        if batches:
            self._db.write(write)
        return count

    def seek(self, positions: dict[TopicPartition, int]) -> None:
        """Go on at other positions: the first start, or where retention has removed records."""
        write = WriteBatch(raw_mode=True)
        for tp, offset in positions.items():
            self._move(write, tp, offset)
        self._db.write(write)

    def reset(self) -> None:
        """Forget everything: the log is another one than before."""
        self._db.clear()
        self._clear_memory()

    def recover(self) -> None:
        """Go on after a failed write, with the earlier view that the folder holds; `ViewError` when it fails too."""
        self._db.reopen()
        self._clear_memory()
        self._load()

    def _clear_memory(self) -> None:
        for kept in (self.reports, self.catalog, self.shifts, self.alerts, self.dead_letters, self.feed):
            kept.clear()
        for counts in (self.reasons, self.positions, self.totals):
            counts.clear()
        self.users.clock.restore(0)
        for topic in self.revision:
            self.revision[topic] += 1

    def _move(self, write: WriteBatch, tp: TopicPartition, offset: int) -> None:
        self.positions[tp] = offset
        write.put(b"p" + tp.partition.to_bytes(2, "big") + tp.topic.encode(), offset.to_bytes(8, "big"))

    def close(self) -> None:
        """Release the folder; a second call does nothing."""
        self._db.close()

    # -- records of the topics --------------------------------------------------------------------------------------

    def _recommendations(self, write: WriteBatch, batch: RecordBatch) -> None:
        withdrawn = set()
        for key, value in zip(batch.keys, batch.values, strict=True):
            self.users.put_list(write, key or b"", value)
            if value is None and key:
                withdrawn.add(key.decode("utf-8", "replace"))
        for value in batch.values[-3:]:
            if value is not None:
                found = self._decoded(records.decode_recommendations, value, batch)
                if found is not None:
                    self.feed.append(write, found, value)
        if withdrawn:
            self.feed.remove(write, lambda one: one.user in withdrawn)

    def _intent_shifts(self, write: WriteBatch, batch: RecordBatch) -> None:
        for value in batch.values:
            shift = self._decoded(records.decode_shift, value, batch)
            if shift is not None and value is not None and self.users.put_shift(write, shift, value):
                self.shifts.append(write, shift, value)

    def _catalog(self, write: WriteBatch, batch: RecordBatch) -> None:
        for key, value in zip(batch.keys, batch.values, strict=True):
            if value is None:
                self.catalog.remove(write, key or b"")
                continue
            intent = self._decoded(records.decode_intent, value, batch)
            if intent is not None:
                self.catalog.put(write, intent, value)

    def _drift_alerts(self, write: WriteBatch, batch: RecordBatch) -> None:
        for value in batch.values:
            alert = self._decoded(records.decode_alert, value, batch)
            if alert is not None and value is not None:
                self.alerts.append(write, alert, value)

    def _metrics(self, write: WriteBatch, batch: RecordBatch) -> None:
        for value in batch.values:
            report = self._decoded(records.decode_report, value, batch)
            if report is not None and value is not None:
                self.reports.put(write, report, value)

    def _erasures(self, write: WriteBatch, batch: RecordBatch) -> None:
        for value in batch.values:
            receipt = self._decoded(records.decode_receipt, value, batch)
            if receipt is not None and value is not None:
                self.users.erase(write, receipt, value)
                self._forget(write, receipt)

    def _forget(self, write: WriteBatch, receipt: ErasureReceipt) -> None:
        name = receipt.user
        self.shifts.remove(write, lambda one: one.user == name and precedes(one, receipt))
        self.dead_letters.remove(write, lambda one: one.key == name)

    def _dead_letters(self, write: WriteBatch, batch: RecordBatch) -> None:
        rows = zip(batch.offsets, batch.keys, batch.values, batch.timestamps_ms, batch.headers, strict=True)
        for offset, key, value, ts, headers in rows:
            if is_mark(headers):
                continue
            letter = records.dead_letter_view(offset, key, value, ts, headers)
            reason = letter.reason if letter.reason in self.reasons or len(self.reasons) < MAX_REASONS else "other"
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
            origin = decode_headers(headers)
            if not self.users.erased_after(user_hash(key or b""), origin.partition, origin.offset):
                self.dead_letters.append(write, letter, records.pack(letter))

    def _decoded(self, decode: Callable[[bytes], Any], value: bytes | None, batch: RecordBatch) -> Any:
        """The message, None when this version cannot read it: counted, never an end of the monitor."""
        try:
            return None if value is None else decode(value)
        except msgspec.MsgspecError as exc:
            self.totals["undecodable"] = self.totals.get("undecodable", 0) + 1
            logger.warning("%s[%d]: a message cannot be read: %s", batch.topic, batch.partition, exc)
            return None

    # -- queries ----------------------------------------------------------------------------------------------------

    def episodes(self) -> list[Episode]:
        """Drift episodes, newest first."""
        by_number: dict[int, Episode] = {}
        alert: DriftAlert
        for alert in self.alerts.newest():
            episode = by_number.get(alert.episode)
            if alert.state == "opened":
                closed = None if episode is None else episode.closed
                by_number[alert.episode] = Episode(opened=alert, closed=closed)
            else:
                opened = alert if episode is None else episode.opened
                by_number[alert.episode] = Episode(opened=opened, closed=alert)
        return [by_number[number] for number in sorted(by_number, reverse=True)]

    def newest_dead_letters(self, reason: str | None, limit: int) -> list[DeadLetterView]:
        """The newest dead letters, newest first."""
        found = [one for one in reversed(self.dead_letters.newest()) if reason is None or one.reason == reason]
        return found[:limit]
