"""The embedded log: damaged files, other formats, folders that are none."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from stream.log import (
    LogDamaged,
    LogError,
    Message,
    OffsetRange,
    TopicPartition,
    TopicSpec,
    open_log,
)
from stream.log.embedded.layout import entry_key
from stream.log.embedded.log import EmbeddedLog
from tests.contracts.log_checks import flip
from tests.unit.stream.log.other_process import (
    fill,
)


def log_of_three_files(path: Path) -> list[Path]:
    """A log whose first file holds records that retention has deleted, all or nearly all."""
    for start in range(0, 12_000, 4_000):
        with EmbeddedLog(path) as log:
            log.create_topics([TopicSpec("t", 1, retention_records=3_000)])
            for i in range(start, start + 4_000, 50):
                log.append([Message("t", b"k", os.urandom(100) + b"%d" % j, 0) for j in range(i, i + 50)])
    with EmbeddedLog(path) as log:
        assert log.begin_offsets("t")[0] > 8_000
    return sorted(path.glob("db/*.sst"))


def test_a_flipped_bit_is_found_wherever_it_is_also_in_what_no_reader_reaches(tmp_path: Path) -> None:
    files = log_of_three_files(tmp_path / "log")
    assert len(files) >= 3
    before = {path: path.read_bytes() for path in files}
    with EmbeddedLog(tmp_path / "log", "reader") as log:
        assert log.verify_files() == len(files)
        tp = TopicPartition("t", 0)
        for path in files:
            for part in (0.1, 0.6, 0.999):
                flip(path, int(part * path.stat().st_size))
                with pytest.raises(LogDamaged, match=rf"1 of {len(files)} files are damaged: db/{path.name}"):
                    log.verify_files()
                path.write_bytes(before[path])
        flip(files[0], files[0].stat().st_size // 3)
        assert len(log.poll({tp: log.begin_offsets("t")[0]}, 100, 0)[0]) == 100  # as if nothing was wrong
        files[0].write_bytes(before[files[0]])
        assert log.verify_files() == len(files)
    assert {path: path.read_bytes() for path in sorted((tmp_path / "log").glob("db/*.sst"))} == before


def test_records_that_a_damaged_block_hides_are_an_error_and_never_passed_over(tmp_path: Path) -> None:
    files = log_of_three_files(tmp_path / "log")
    tp = TopicPartition("t", 0)
    with EmbeddedLog(tmp_path / "log") as log:
        begin, end = log.begin_offsets("t")[0], log.end_offsets("t")[0]
    flip(files[2], files[2].stat().st_size // 2)
    with EmbeddedLog(tmp_path / "log", "reader") as log:
        with pytest.raises(LogDamaged, match="t\\[0\\]"):
            log.read(OffsetRange("t", 0, begin, end))
        with pytest.raises(LogDamaged, match="t\\[0\\]"):
            log.poll({tp: begin}, 100_000, 0)


def test_an_entry_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path / "log") as log:
        log.create_topics([TopicSpec("t", 1)])
        fill(log, 5)
        store: Any = log._store
        del store._db[entry_key(1, 0, 20)]
        with pytest.raises(LogDamaged, match="intentstream verify"):
            log.poll({TopicPartition("t", 0): 0}, 100, 0)
        with pytest.raises(LogDamaged, match="intentstream verify"):
            log.read(OffsetRange("t", 0, 0, 50))
        assert len(log.read(OffsetRange("t", 0, 30, 50))) == 20


# Folders


def test_a_newer_format_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "log"
    EmbeddedLog(path).close()
    (path / "format.json").write_text(json.dumps({"kind": "intentstream-log", "format": 99}))
    for mode in ("owner", "reader", "producer"):
        with pytest.raises(LogError, match="format 99.*update intentstream"):
            open_log(str(path), mode=mode)


def test_another_folder_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(LogError, match="not empty and not a log"):
        EmbeddedLog(tmp_path)
    assert os.listdir(tmp_path) == ["letter.txt"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("")
    with pytest.raises(LogError, match="give a folder"):
        EmbeddedLog(tmp_path / "log")


def test_a_reader_of_no_log(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="topics --create"):
        EmbeddedLog(tmp_path / "none", "reader")
    assert not (tmp_path / "none").exists()


def test_a_folder_that_cannot_be_written() -> None:
    with pytest.raises(LogError, match="cannot open it for writing: ") as caught:
        EmbeddedLog(Path("/proc/self/log"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "text"),
    [("file://host/x", "three slashes"), ("amqp://x", "unknown scheme"), ("", "no folder"), ("kafka://", "host:port")],
)
def test_urls_that_are_wrong(url: str, text: str) -> None:
    with pytest.raises(LogError, match=text):
        open_log(url)
