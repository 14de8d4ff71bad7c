"""Topics → the current view, in RocksDB, restarted from where it was.

Everything of a batch of records and the positions after it is one write batch, so a crash at any moment leaves a view
that is exactly some earlier one; the records after it are read again. Per user there is only what is on the disk; in
memory are rings of a fixed length and the catalogue.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from rocksdict import WriteBatch

from monitor.view import records
from monitor.view.db import Ring, ViewDb, user_hash
from monitor.view.records import DeadLetter, HistoryItem, Point, Sample
from stream.log.base import Headers, RecordBatch, TopicPartition
from stream.schema import topics
from stream.schema.decoder import Decoded, Decoder
from stream.schema.events import ActionsConfig
from stream.schema.messages import DriftAlert, ErasureReceipt, Intent, IntentShift, Recommendations, StreamMetrics
from stream.worker.dead_letters import REPLAYED

logger = logging.getLogger(__name__)

READ: Final = (topics.EVENTS, *topics.OUTPUTS)
MAX_WORKERS: Final = 64
MAX_INTENTS: Final = 4096
MAX_REASONS: Final = 32
_COARSE_MS: Final = 60_000
_COARSE_POINTS: Final = 2880  # two days of minutes
_NEWEST: Final = 500  # shifts, alerts, dead letters in memory
_SAMPLES: Final = 240
_FEED: Final = 40  # newest lists of all users
_DAY_MS: Final = 86_400_000


class View:
    """What the topics say now.

    Parameters
    ----------
    history_len
        Newest events and shifts kept per user.
    history_days
        Event time, before the newest event, after which a user's events and shifts are removed.
    series_points
        Reports of the worker kept at full resolution; minutes are kept for two days beside them.
    actions
        The worker's actions: an event with another one is refused by it, and is in no history.
    """

    def __init__(
        self,
        path: Path,
        *,
        history_len: int = 50,
        history_days: float = 30.0,
        series_points: int = 2000,
        actions: ActionsConfig | None = None,
    ) -> None:
        self._db = ViewDb(path)
        actions = actions or ActionsConfig()
        self._decoder, self._actions = Decoder(actions), actions.names()
        self._history_len = history_len
        self._history_ms = int(history_days * _DAY_MS)
        self.points = Ring(self._db, b"m", series_points)
        self.coarse = Ring(self._db, b"M", _COARSE_POINTS)
        self.samples = Ring(self._db, b"s", _SAMPLES)
        self.shifts = Ring(self._db, b"S", _NEWEST)
        self.alerts = Ring(self._db, b"a", _NEWEST)
        self.dead_letters = Ring(self._db, b"d", _NEWEST)
        self.feed = Ring(self._db, b"f", _FEED)
        self.catalog: dict[int, Intent] = {}
        self.workers: dict[str, StreamMetrics] = {}
        self.reasons: dict[str, int] = {}
        self.positions: dict[TopicPartition, int] = {}
        self.totals: dict[str, int] = {}
        self.revision = dict.fromkeys(READ, 0)
        self._event_ts = 0
        self._cursor = b"h"
        self._forgotten: dict[bytes, tuple[int, int]] = {}  # erasures of the batches at hand, not yet written
        self._apply: dict[str, Callable[[WriteBatch, RecordBatch], None]] = {
            topics.EVENTS: self._events,
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
        decoders: list[tuple[Ring, Callable[[bytes], Any]]] = [
            (self.points, records.point),
            (self.coarse, records.point),
            (self.samples, records.sample),
            (self.shifts, records.shift),
            (self.alerts, records.alert),
            (self.dead_letters, records.dead_letter),
            (self.feed, records.recommendations),
        ]
        for ring, decode in decoders:
            for raw in ring.load():
                ring.restored(decode(raw))
        for key, raw in self._db.scan(b"p"):
            self.positions[TopicPartition(key[3:].decode(), int.from_bytes(key[1:3], "big"))] = int.from_bytes(
                raw, "big"
            )
        for _, raw in self._db.scan(b"c"):
            found = records.intent(raw)
            self.catalog[found.intent] = found
        for _, raw in self._db.scan(b"w"):
            report = records.metrics(raw)
            self.workers[report.worker] = report
        small = self._db.get(b"n")
        if small is not None:
            self.reasons, self.totals, self._event_ts = msgspec.msgpack.decode(
                small, type=tuple[dict[str, int], dict[str, int], int]
            )

    def apply(self, batches: Sequence[RecordBatch]) -> int:
        """Take over the records and the positions after them, all or nothing; returns the number of records."""
        write = WriteBatch(raw_mode=True)
        count = 0
        self._forgotten.clear()
        # Erasures first: what the other topics say of the user from before is then not taken at all.
        for batch in sorted(batches, key=lambda one: one.topic != topics.ERASURES):
            if len(batch):
                self._apply[batch.topic](write, batch)
                self.totals[batch.topic] = self.totals.get(batch.topic, 0) + len(batch)
                self.revision[batch.topic] += 1
                count += len(batch)
            self._move(write, TopicPartition(batch.topic, batch.partition), batch.next_offset)
        if count:
            write.put(b"n", records.pack((self.reasons, self.totals, self._event_ts)))
        if batches:
            self._db.write(write)
        return count

    def seek(self, positions: dict[TopicPartition, int]) -> None:
        """Go on at other positions: the first start, or where retention took records away."""
        write = WriteBatch(raw_mode=True)
        for tp, offset in positions.items():
            self._move(write, tp, offset)
        self._db.write(write)

    def reset(self) -> None:
        """Forget everything: the log is another one than before."""
        self._db.clear()
        for ring in (self.points, self.coarse, self.samples, self.shifts, self.alerts, self.dead_letters, self.feed):
            ring.clear()
        for kept in (self.catalog, self.workers, self.reasons, self.positions, self.totals):
            kept.clear()
        self._event_ts = 0
        for topic in self.revision:
            self.revision[topic] += 1

    def _move(self, write: WriteBatch, tp: TopicPartition, offset: int) -> None:
        self.positions[tp] = offset
        write.put(b"p" + tp.partition.to_bytes(2, "big") + tp.topic.encode(), offset.to_bytes(8, "big"))

    def sweep(self, keys: int) -> int:
        """Look at the next `keys` events and shifts of users and remove those too old or too many; returns how many."""
        write = WriteBatch(raw_mode=True)
        oldest = self._event_ts - self._history_ms
        user, held = b"", list[bytes]()
        seen = removed = 0
        prefix = self._cursor[:1]
        for key, _ in self._db.scan(prefix, self._cursor):
            if key[:17] != user:
                if seen >= keys:
                    self._cursor = key
                    break
                user, held = key[:17], list[bytes]()
            seen += 1
            if int.from_bytes(key[17:25], "big") < oldest:
                write.delete(key)
                removed += 1
                continue
            held.append(key)
            if len(held) > self._history_len:
                write.delete(held.pop(0))
                removed += 1
        else:
            self._cursor = b"s" if prefix == b"h" else b"h"
        if removed:
            self._db.write(write)
        return removed

    def kept(self, prefix: bytes) -> list[bytes]:
        """Values that `keep` put under keys with this first byte."""
        return [raw for _, raw in self._db.scan(prefix)]

    def keep(self, key: bytes, value: bytes) -> None:
        """Keep something small beside the view, at once; any thread."""
        self._db.put(key, value)

    def drop(self, key: bytes) -> None:
        """Remove what `keep` put."""
        self._db.delete(key)

    def close(self) -> None:
        """Release the folder; a second call does nothing."""
        self._db.close()

    # -- topics -----------------------------------------------------------------------------------------------------

    def _events(self, write: WriteBatch, batch: RecordBatch) -> None:
        # What the worker refuses is no part of a history; the dead letter that it makes of it is shown.
        decoded = self._decoder.decode(batch.values, batch.keys)
        begin = 0
        for erasure in decoded.erasures:
            end = int(np.searchsorted(decoded.index, erasure.index))
            self._put_events(write, decoded, begin, end)
            user = user_hash(erasure.user)
            write.delete_range(b"h" + user, b"h" + user + b"\xff" * 16)
            write.put(b"E" + user, batch.timestamps_ms[erasure.index].to_bytes(8, "big", signed=True))
            begin = end
        self._put_events(write, decoded, begin, len(decoded.users))
        if decoded.users:
            # One event with a wrong clock must not make everybody's history look old.
            appended_ms = np.array(batch.timestamps_ms, dtype=np.int64)[decoded.index]
            self._event_ts = max(self._event_ts, int(np.minimum(decoded.ts, appended_ms + _DAY_MS).max()))

    def _put_events(self, write: WriteBatch, decoded: Decoded, begin: int, end: int) -> None:
        part = slice(begin, end)
        rows = zip(
            decoded.users[part],
            decoded.items[part],
            decoded.ts[part].tolist(),
            decoded.actions[part].tolist(),
            strict=True,
        )
        names, pack, put = self._actions, records.pack, write.put
        for user, item, ts, code in rows:
            mark = user_hash(item.encode() + b"\0" + names[code].encode())[:4]
            put(b"h" + user_hash(user) + ts.to_bytes(8, "big") + mark, pack(HistoryItem(item, ts, names[code])))

    def _recommendations(self, write: WriteBatch, batch: RecordBatch) -> None:
        for key, value in zip(batch.keys, batch.values, strict=True):
            if value is None:
                write.delete(b"r" + user_hash(key or b""))
            else:
                write.put(b"r" + user_hash(key or b""), value)
        for value in batch.values[-3:]:
            if value is not None and (found := self._decoded(records.recommendations, value, batch)) is not None:
                self.feed.append(write, found, value)
        gone = {
            key.decode("utf-8", "replace")
            for key, value in zip(batch.keys, batch.values, strict=True)
            if value is None and key
        }
        if gone:
            self.feed.remove(write, lambda one: one.user in gone)

    def _intent_shifts(self, write: WriteBatch, batch: RecordBatch) -> None:
        for value in batch.values:
            shift = self._decoded(records.shift, value, batch)
            if shift is None or value is None:
                continue
            user = user_hash(shift.user.encode())
            if self._erased(user, shift.as_of.partition, shift.as_of.offset):
                continue
            write.put(b"s" + user + shift.as_of.ts.to_bytes(8, "big") + shift.step.to_bytes(8, "big"), value)
            self.shifts.append(write, shift, value)

    def _erased(self, user: bytes, partition: int, offset: int) -> bool:
        """Whether the user was erased after this input record."""
        known = self._forgotten.get(user)
        if known is None:
            raw = self._db.get(b"e" + user)
            if raw is None:
                return False
            as_of = records.receipt(raw).as_of
            known = as_of.partition, as_of.offset
        return known[0] == partition and offset <= known[1]

    def _catalog(self, write: WriteBatch, batch: RecordBatch) -> None:
        for key, value in zip(batch.keys, batch.values, strict=True):
            if value is None:
                try:
                    number = int(key or b"")
                except ValueError:
                    continue
                self.catalog = {id_: one for id_, one in self.catalog.items() if id_ != number}
                write.delete(f"c{number}".encode())
                continue
            found = self._decoded(records.intent, value, batch)
            if found is None or (found.intent not in self.catalog and len(self.catalog) >= MAX_INTENTS):
                continue
            self.catalog[found.intent] = found
            write.put(f"c{found.intent}".encode(), value)
            self._sample(write, found)

    def _sample(self, write: WriteBatch, found: Intent) -> None:
        x, y = (found.position + [0.0, 0.0])[:2]
        entry = {found.intent: (found.share, x, y)}
        last: Sample | None = self.samples.last()
        if last is not None and last.step == found.step:
            sample = Sample(found.step, last.intents | entry)
            self.samples.replace_last(write, sample, records.pack(sample))
        elif last is None or last.step < found.step:
            sample = Sample(found.step, entry)
            self.samples.append(write, sample, records.pack(sample))

    def _drift_alerts(self, write: WriteBatch, batch: RecordBatch) -> None:
        for value in batch.values:
            alert = self._decoded(records.alert, value, batch)
            if alert is not None and value is not None:
                self.alerts.append(write, alert, value)

    def _metrics(self, write: WriteBatch, batch: RecordBatch) -> None:
        for value in batch.values:
            report = self._decoded(records.metrics, value, batch)
            if report is None or value is None:
                continue
            if report.worker not in self.workers and not self._room_for(write, report):
                continue
            self.workers = self.workers | {report.worker: report}
            write.put(b"w" + user_hash(report.worker.encode()), value)
            point = Point(report.ts, report.worker, report.step, report.counters.get("events", 0), report.gauges)
            raw = records.pack(point)
            self.points.append(write, point, raw)
            last: Point | None = self.coarse.last()
            if last is None or point.ts - last.ts >= _COARSE_MS or point.ts < last.ts:
                self.coarse.append(write, point, raw)

    def _room_for(self, write: WriteBatch, report: StreamMetrics) -> bool:
        """Whether one more worker can be kept; the one that was silent for longest gives way after a day."""
        if len(self.workers) < MAX_WORKERS:
            return True
        oldest = min(self.workers.values(), key=lambda one: one.ts)
        if report.ts - oldest.ts <= _DAY_MS:
            return False
        self.workers = {name: one for name, one in self.workers.items() if one is not oldest}
        write.delete(b"w" + user_hash(oldest.worker.encode()))
        return True

    def _erasures(self, write: WriteBatch, batch: RecordBatch) -> None:
        for value in batch.values:
            receipt = self._decoded(records.receipt, value, batch)
            if receipt is None or value is None:
                continue
            user = user_hash(receipt.user.encode())
            self._forgotten[user] = receipt.as_of.partition, receipt.as_of.offset
            write.put(b"e" + user, value)
            for key, raw in self._db.scan(b"s" + user):
                if records.shift(raw).as_of.offset <= receipt.as_of.offset:
                    write.delete(key)
            self._forget(write, receipt)

    def _forget(self, write: WriteBatch, receipt: ErasureReceipt) -> None:
        name, offset = receipt.user, receipt.as_of.offset
        self.shifts.remove(write, lambda one: one.user == name and one.as_of.offset <= offset)
        self.dead_letters.remove(write, lambda one: one.key == name)

    def _dead_letters(self, write: WriteBatch, batch: RecordBatch) -> None:
        rows = zip(batch.offsets, batch.keys, batch.values, batch.timestamps_ms, batch.headers, strict=True)
        for offset, key, value, ts, headers in rows:
            letter = records.letter(offset, key, value, ts, headers)
            if letter.reason == REPLAYED.decode():
                continue  # a mark, which says that letters were sent again
            reason = letter.reason if letter.reason in self.reasons or len(self.reasons) < MAX_REASONS else "other"
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
            if not self._erased(user_hash(key or b""), *_origin(headers)):
                self.dead_letters.append(write, letter, records.pack(letter))

    def _decoded(self, decode: Callable[[bytes], Any], value: bytes | None, batch: RecordBatch) -> Any:
        """The message, None when this version cannot read it: counted, never an end of the monitor."""
        try:
            return None if value is None else decode(value)
        except msgspec.MsgspecError as exc:
            self.totals["undecodable"] = self.totals.get("undecodable", 0) + 1
            logger.warning("%s[%d]: a message cannot be read: %s", batch.topic, batch.partition, exc)
            return None

    # -- answers ----------------------------------------------------------------------------------------------------

    def recommendations(self, user: str) -> Recommendations | None:
        """The newest list of a user."""
        raw = self._db.get(b"r" + user_hash(user.encode()))
        try:
            return None if raw is None else records.recommendations(raw)
        except msgspec.MsgspecError:  # lists are kept as they came: most are never asked for
            return None

    def history(self, user: str) -> list[HistoryItem]:
        """The user's newest events, newest first."""
        found: list[HistoryItem] = []
        for _, raw in self._db.scan_back(b"h" + user_hash(user.encode())):
            found.append(records.taken(raw))
            if len(found) >= self._history_len:
                break
        return found

    def shifts_of(self, user: str) -> list[IntentShift]:
        """The user's newest shifts, newest first."""
        found: list[IntentShift] = []
        for _, raw in self._db.scan_back(b"s" + user_hash(user.encode())):
            found.append(records.shift(raw))
            if len(found) >= self._history_len:
                break
        return found

    def receipt(self, user: str) -> ErasureReceipt | None:
        """The receipt of the user's last erasure."""
        raw = self._db.get(b"e" + user_hash(user.encode()))
        return None if raw is None else records.receipt(raw)

    def erasure_asked_ms(self, user: str) -> int | None:
        """When the user's last erasure was asked for: the time of the record, not of the stream."""
        raw = self._db.get(b"E" + user_hash(user.encode()))
        return None if raw is None else int.from_bytes(raw, "big", signed=True)

    def intents(self) -> list[Intent]:
        """The catalogue, largest share first."""
        return sorted(self.catalog.values(), key=lambda one: (-one.share, one.intent))

    def episodes(self) -> list[tuple[DriftAlert, DriftAlert | None]]:
        """Drift episodes with what opened and what closed each, newest first."""
        opened: dict[int, DriftAlert] = {}
        closed: dict[int, DriftAlert] = {}
        alert: DriftAlert
        for alert in self.alerts.newest():
            (opened if alert.state == "opened" else closed)[alert.episode] = alert
        numbers = sorted(opened.keys() | closed.keys(), reverse=True)
        return [(opened.get(number, closed.get(number)), closed.get(number)) for number in numbers]  # type: ignore[misc]

    def letters(self, reason: str | None, limit: int) -> list[DeadLetter]:
        """The newest dead letters, newest first."""
        found = [one for one in reversed(self.dead_letters.newest()) if reason is None or one.reason == reason]
        return found[:limit]

    def series(self, worker: str, since_ms: int) -> list[Point]:
        """Reports of a worker from `since_ms` (wall clock) on: minutes first, then at full resolution."""
        fine = [p for p in self.points.newest() if p.worker == worker]
        begin = fine[0].ts if fine else 1 << 62
        older = [p for p in self.coarse.newest() if p.worker == worker and since_ms <= p.ts < begin]
        return older + [p for p in fine if p.ts >= since_ms]

    def report(self) -> StreamMetrics | None:
        """The newest report of any worker."""
        return max(self.workers.values(), key=lambda one: one.ts, default=None)


def _origin(headers: Headers) -> tuple[int, int]:
    """Partition and offset of the input record that became a dead letter; -1 where they are not said."""
    said = dict(headers)
    try:
        return int(said["partition"]), int(said["offset"])
    except (KeyError, ValueError):
        return -1, -1


def wall_clock_ms() -> int:
    """Now, epoch milliseconds."""
    return time.time_ns() // 1_000_000
