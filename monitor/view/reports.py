"""The workers' reports: the newest of each worker, and a curve of the older ones."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Final

import msgspec
from rocksdict import WriteBatch

from monitor.view import records
from monitor.view.db import Ring, ViewDb, user_hash
from monitor.view.records import Point
from stream.schema.messages import StreamMetrics

MAX_WORKERS: Final = 64
_DAY_MS: Final = 86_400_000
_COARSE_MS: Final = 60_000
_COARSE_POINTS: Final = 2880  # two days of minutes
_FUTURE_MS: Final = 60_000  # that a worker's clock may be ahead of ours
_INTERVALS: Final = 8  # newest ones, behind the usual interval between two reports


def misplaced_events(report: StreamMetrics) -> int:
    """Events that the worker found on another partition than their user's, since its first start."""
    return report.counters.get("misplaced", 0)


class WorkerReports:
    """Newest report by worker, in memory and on disk.

    Parameters
    ----------
    series_points
        Reports kept at full resolution; beside them one a minute is kept for two days.
    clock_ms
        Wall clock, epoch milliseconds. A report from the future counts as made now: its worker would never be gone.
    """

    def __init__(self, db: ViewDb, series_points: int, clock_ms: Callable[[], int]) -> None:
        self._db = db
        self._clock_ms = clock_ms
        self._misplaced_ms: dict[str, int] = {}
        self.points = Ring(db, b"m", series_points)
        self.coarse = Ring(db, b"M", _COARSE_POINTS)
        self.workers: dict[str, StreamMetrics] = {}

    def load(self) -> None:
        """Read what the view holds."""
        self.points.load(records.decode_point)
        self.coarse.load(records.decode_point)
        reports = [report for _, report in self._db.load(b"w", records.decode_report)]
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
        now_ms = self._clock_ms()
        if report.ts > now_ms + _FUTURE_MS:
            report = msgspec.structs.replace(report, ts=now_ms)
            value = records.to_json(report)
        before = self.workers.get(report.worker)
        if misplaced_events(report) > (0 if before is None else misplaced_events(before)):
            self._misplaced_ms[report.worker] = report.ts
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

    def misplaced_ms(self, worker: str) -> int | None:
        """When the worker last reported more misplaced events than before, None when that was before our start."""
        return self._misplaced_ms.get(worker)

    def interval_ms(self, worker: str) -> int:
        """The usual time between two reports of a worker, 0 while there are too few."""
        times = [p.ts for p in self.points.newest(_INTERVALS * MAX_WORKERS) if p.worker == worker][-_INTERVALS - 1 :]
        intervals = sorted(later - earlier for earlier, later in pairwise(times))
        return intervals[len(intervals) // 2] if len(intervals) >= 3 else 0

    def newest(self) -> StreamMetrics | None:
        """The newest report of any worker."""
        return max(self.workers.values(), key=lambda one: one.ts, default=None)
