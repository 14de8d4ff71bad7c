"""The embedded log on a full disk, and what ended processes left behind."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stream.log import (
    AppendRequest,
    CommitOutcomeUnknown,
    LogUnavailable,
    TopicPartition,
    open_log,
)
from stream.log.embedded.log import EmbeddedLog
from stream.log.embedded.spool import SpoolWriter
from tests.contracts.log_checks import messages_of
from tests.unit.stream.log.other_process import (
    ANSWER_S,
    EVENTS,
    Other,
    append_some,
    take_ten,
    take_twenty,
    wanted,
)


class FullDatabase:
    """A RocksDB whose disk is full; what is written reaches the disk or does not."""

    def __init__(self, db: Any, *, writes: bool) -> None:
        self._db, self._writes = db, writes

    def write(self, batch: Any, options: Any = None) -> None:
        if self._writes:
            self._db.write(batch, options)
        raise Exception("IO error: No space left on device: While appending to file: db/000004.log")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


def fill_disk(log: EmbeddedLog, *, writes: bool = False) -> None:
    store: Any = log._store
    store._db = FullDatabase(store._db, writes=writes)


def wait_until_it_goes_on(do: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + ANSWER_S
    while time.monotonic() < deadline:
        try:
            return do()
        except LogUnavailable as exc:
            assert "\n" not in str(exc)
            time.sleep(0.01)
    raise AssertionError("the log does not go on by itself")


@pytest.mark.parametrize("written", [False, True])
def test_an_append_on_a_full_disk_is_made_again_once_there_is_room(tmp_path: Path, written: bool) -> None:
    with EmbeddedLog(tmp_path / "log") as log:
        log.create_topics([EVENTS])
        append_some(log)
        fill_disk(log, writes=written)  # a failed write may have taken effect
        with pytest.raises(LogUnavailable, match="free some space"):
            log.append(messages_of("events", 10, start=10), idempotency_key=b"k")
        assert take_ten(log)[:10] == wanted(10)  # what is there can be read
        again = wait_until_it_goes_on(lambda: log.append(messages_of("events", 10, start=10), idempotency_key=b"k"))
        assert again is not written
        assert take_twenty(log) == wanted(20)
    with EmbeddedLog(tmp_path / "log") as log:
        assert take_twenty(log) == wanted(20)


@pytest.mark.parametrize("written", [False, True])
def test_the_outcome_of_a_commit_on_a_full_disk_is_unknown_until_the_next_claim(tmp_path: Path, written: bool) -> None:
    tp = TopicPartition("events", 0)
    with EmbeddedLog(tmp_path / "log") as log:
        log.create_topics([EVENTS])
        log.claim("w")
        log.commit(messages_of("events", 1), {tp: 1})
        fill_disk(log, writes=written)
        with pytest.raises(CommitOutcomeUnknown, match="No space left"):
            log.commit(messages_of("events", 1, start=1), {tp: 2})
        wait_until_it_goes_on(lambda: log.claim("w"))
        assert log.committed("w") == {tp: 2 if written else 1}
        assert sum(log.end_offsets("events")) == 1 + written
        log.commit(messages_of("events", 1, start=2), {tp: 3})


def test_a_spool_taken_in_on_a_full_disk_is_taken_in_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with EmbeddedLog(path) as log:
        log.create_topics([EVENTS])
        append_some(log)
        SpoolWriter(path).put([AppendRequest(messages_of("events", 10, start=10))])
        fill_disk(log, writes=True)
        assert sum(log.end_offsets("events")) == 10  # a look at the spool is no error of the reader
        wait_until_it_goes_on(log.drain)
        assert sum(log.end_offsets("events")) == 20
    assert list((path / "spool").iterdir()) == []


def test_a_log_that_cannot_be_closed_is_one_line_and_leaves_the_lock(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = EmbeddedLog(tmp_path / "log")
    log.create_topics([EVENTS])
    store: Any = log._store
    db = store._db

    class Unclosable:
        def close(self) -> None:
            db.close()
            raise Exception("IO error: Writer has previous error.; IO error: Writer has previous error.")

    store._db = Unclosable()
    log.close()
    assert caplog.text.count("\n") == 1 and "nothing committed is lost" in caplog.text
    with EmbeddedLog(tmp_path / "log") as log:
        log.check_topics([EVENTS])


def test_a_failed_append_to_the_spool_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    EmbeddedLog(path).close()
    writer = SpoolWriter(path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for _ in range(3):
            with pytest.raises(LogUnavailable, match="free some space"):
                writer.put([AppendRequest(messages_of("events", 10))])
    assert list((path / "spool").iterdir()) == [] and writer.waiting_bytes() == 0
    writer.put([AppendRequest(messages_of("events", 10))])
    assert writer.waiting_bytes() > 0


def test_the_folder_of_a_killed_reader_is_removed_by_the_next_one(
    tmp_path: Path, other: Callable[[str], Other], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # of the other processes
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    EmbeddedLog(tmp_path / "log").close()
    killed, alive = other("reader"), other("reader")
    folders = set(tmp_path.glob("intentstream-reader-*"))
    assert len(folders) == 2
    killed.kill()
    for folder in folders:
        os.utime(folder, (0, 0))
    EmbeddedLog(tmp_path / "log", "reader").close()
    assert len(set(tmp_path.glob("intentstream-reader-*"))) == 1
    alive.close()
    assert not set(tmp_path.glob("intentstream-reader-*"))


def test_what_a_producer_left_unfinished_is_removed_at_the_next_start(tmp_path: Path) -> None:
    spool = tmp_path / "log" / "spool"
    EmbeddedLog(tmp_path / "log").close()
    for mode in ("owner", "producer"):
        old, young = spool / ".0001-dead", spool / ".0002-writes-now"
        for file in (old, young):
            file.write_bytes(b"half")
        os.utime(old, (0, 0))
        open_log(str(tmp_path / "log"), mode=mode).close()
        assert [path.name for path in spool.iterdir()] == [young.name]
        assert SpoolWriter(tmp_path / "log").waiting_bytes() == 0


# A damaged disk
