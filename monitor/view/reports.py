"""The workers' reports: the newest of each worker, and a curve of the older ones."""

from __future__ import annotations

from typing import Final

from rocksdict import WriteBatch

from monitor.view import records
from monitor.view.db import Ring, ViewDb, user_hash
from monitor.view.records import Point
from stream.schema.messages import StreamMetrics

MAX_WORKERS: Final = 64
_DAY_MS: Final = 86_400_000
_COARSE_MS: Final = 60_000
_COARSE_POINTS: Final = 2880  # two days of minutes


class WorkerReports:
    """Newest report by worker, in memory and on disk.

    Parameters
    ----------
    series_points
        Reports kept at full resolution; beside them one a minute is kept for two days.
    """

    def __init__(self, db: ViewDb, series_points: int) -> None:
        self._db = db
        self.points = Ring(db, b"m", series_points)
        self.coarse = Ring(db, b"M", _COARSE_POINTS)
        self.workers: dict[str, StreamMetrics] = {}

    def load(self) -> None:
        """Read what the view holds."""
        self.points.load(records.decode_point)
        self.coarse.load(records.decode_point)
        reports = (records.decode_report(raw) for _, raw in self._db.scan(b"w"))
        self.workers = {report.worker: report for report in reports}

    def clear(self) -> None:
        """Forget what is in memory."""
        self.points.clear()
        self.coarse.clear()
        self.workers = {}

    def put(self, write: WriteBatch, report: StreamMetrics, value: bytes) -> None:
        """Keep a report."""
        if report.worker not in self.workers and not self._make_room(write, report):
            return
        self.workers = self.workers | {report.worker: report}
        write.put(b"w" + user_hash(report.worker.encode()), value)
        point = Point(report.ts, report.worker, report.step, report.counters.get("events", 0), report.gauges)
        raw = records.pack(point)
        self.points.append(write, point, raw)
        last: Point | None = self.coarse.last()
        if last is None or point.ts - last.ts >= _COARSE_MS or point.ts < last.ts:
            self.coarse.append(write, point, raw)

    def _make_room(self, write: WriteBatch, report: StreamMetrics) -> bool:
        """Whether one more worker can be kept; a worker that was silent for a day gives way, the oldest first."""
        if len(self.workers) < MAX_WORKERS:
            return True
        oldest = min(self.workers.values(), key=lambda one: one.ts)
        if report.ts - oldest.ts <= _DAY_MS:
            return False
        self.workers = {name: one for name, one in self.workers.items() if one is not oldest}
        write.delete(b"w" + user_hash(oldest.worker.encode()))
        return True

    def series(self, worker: str, since_ms: int) -> list[Point]:
        """Reports of a worker from `since_ms` (wall clock) on: minutes first, then at full resolution."""
        fine = [p for p in self.points.newest() if p.worker == worker]
        begin = fine[0].ts if fine else 1 << 62
        older = [p for p in self.coarse.newest() if p.worker == worker and since_ms <= p.ts < begin]
        return older + [p for p in fine if p.ts >= since_ms]

    def newest(self) -> StreamMetrics | None:
        """The newest report of any worker."""
        return max(self.workers.values(), key=lambda one: one.ts, default=None)
