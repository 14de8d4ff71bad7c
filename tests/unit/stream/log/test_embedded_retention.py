"""The embedded log: what retention and compaction keep."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.log import (
    Message,
    OffsetOutOfRange,
    TopicPartition,
    TopicSpec,
)
from stream.log.embedded.log import EmbeddedLog
from tests.unit.stream.log.other_process import (
    Clock,
    fill,
    poll_all,
)


def test_retention_by_count_keeps_at_least_that_many(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path / "log") as log:
        log.create_topics([TopicSpec("t", 1, retention_records=95)])
        fill(log, 130)
        begin = log.begin_offsets("t")[0]
        assert begin >= 10 * 64 - 95 - 10  # by the upkeep after 64 appends at the latest
        found = poll_all(log)
        assert found == [b"value-%d" % i for i in range(begin, 1300)]
        assert len(found) >= 95
        with pytest.raises(OffsetOutOfRange, match=str(begin)):
            log.poll({TopicPartition("t", 0): begin - 1}, 1, 0)
    with EmbeddedLog(tmp_path / "log") as log:
        assert log.begin_offsets("t") == [begin]
        assert log.end_offsets("t") == [1300]


def test_retention_by_bytes(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path / "log") as log:
        log.create_topics([TopicSpec("t", 1, retention_bytes=20_000)])
        for i in range(128):
            log.append([Message("t", b"k", bytes(1000), i)])
        kept = len(poll_all(log))
        assert 18 <= kept <= 22


def test_retention_by_age_counts_from_the_append(tmp_path: Path) -> None:
    clock = Clock()
    with EmbeddedLog(tmp_path / "log", clock_ms=clock) as log:
        log.create_topics([TopicSpec("t", 1, retention_ms=100_000)])
        log.append([Message("t", b"k", b"old", 0)])  # the message's own time is long ago: it does not count
        clock.now += 99_000
        log.append([Message("t", b"k", b"young", 0)])
        assert poll_all(log) == [b"old", b"young"]
        clock.now += 61_000
        assert poll_all(log) == [b"young"]
        clock.now += 1_000_000
        assert poll_all(log) == []
        assert log.begin_offsets("t") == log.end_offsets("t") == [2]
        log.append([Message("t", b"k", b"new", 0)])
        assert poll_all(log) == [b"new"]


# Compaction


def test_compaction_keeps_the_newest_of_each_key(tmp_path: Path) -> None:
    clock = Clock()
    with EmbeddedLog(tmp_path / "log", clock_ms=clock) as log:
        log.create_topics([TopicSpec("t", 1, cleanup="compact")])
        log.append([Message("t", b"once", b"first", 0, (("h", b"1"),))])
        log.append([Message("t", b"gone", b"x", 0), Message("t", b"gone", None, 0)])
        for i in range(1000):
            log.append([Message("t", b"user-%d" % (j % 50), b"%d-%d" % (i, j), 0) for j in range(10)])
        end = log.end_offsets("t")[0]
        assert end == 10_003
        tp = TopicPartition("t", 0)
        batches = log.poll({tp: 0}, 100_000, 0)
        assert log.begin_offsets("t") == [0]
        assert sum(map(len, batches)) < 5000
        assert batches[-1].next_offset == end
        offsets = [o for b in batches for o in b.offsets]
        assert offsets == sorted(set(offsets))
        newest = {k: v for b in batches for k, v in zip(b.keys, b.values, strict=True)}
        expected: dict[bytes | None, bytes | None] = {b"once": b"first", b"gone": None}
        for i in range(1000):
            expected |= {b"user-%d" % (j % 50): b"%d-%d" % (i, j) for j in range(10)}
        assert newest == expected
        assert next(h for b in batches for k, h in zip(b.keys, b.headers, strict=True) if k == b"once") == (
            ("h", b"1"),
        )
        # Any position inside is a good one to read from.
        for start in range(0, end, 997):
            part = log.poll({tp: start}, 5, 0)
            assert [o for b in part for o in b.offsets] == [o for o in offsets if o >= start][:5]


def test_compaction_forgets_tombstones_after_a_day(tmp_path: Path) -> None:
    clock = Clock()
    with EmbeddedLog(tmp_path / "log", clock_ms=clock) as log:
        log.create_topics([TopicSpec("t", 1, cleanup="compact")])
        log.append([Message("t", b"gone", b"secret", 0)])
        log.append([Message("t", b"gone", None, 0)])
        clock.now += 25 * 3600 * 1000
        for i in range(400):
            log.append([Message("t", b"u%d" % (j % 20), b"%d" % i, 0) for j in range(20)])
        keys = [k for b in log.poll({TopicPartition("t", 0): 0}, 100_000, 0) for k in b.keys]
        assert b"gone" not in keys
        assert len(set(keys)) == 20


def test_compaction_survives_a_reopen_in_the_middle(tmp_path: Path) -> None:
    expected: dict[bytes | None, bytes | None] = {}
    for round_ in range(8):
        with EmbeddedLog(tmp_path / "log") as log:
            log.create_topics([TopicSpec("t", 1, cleanup="compact")])
            for i in range(70):
                sent = [Message("t", b"k%d" % ((i * 7 + j) % 33), b"%d-%d-%d" % (round_, i, j), 0) for j in range(40)]
                log.append(sent)
                expected |= {m.key: m.value for m in sent}
            batches = log.poll({TopicPartition("t", 0): 0}, 100_000, 0)
            assert {k: v for b in batches for k, v in zip(b.keys, b.values, strict=True)} == expected
    assert sum(map(len, batches)) < 12_000


# Other processes
