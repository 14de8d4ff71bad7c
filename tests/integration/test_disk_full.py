"""A disk that is full for real: the embedded log waits, loses nothing and goes on by itself."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.log import LogUnavailable, Message, TopicPartition, TopicSpec, open_log
from tests.contracts.log_checks import messages_of, starts, take, values

pytestmark = pytest.mark.integration
SPEC = TopicSpec("events", 1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    path = folder / "full"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(handle, bytes(4096))
    except OSError:
        os.close(handle)
    return path


@pytest.mark.parametrize("beside", [False, True], ids=["the writer appends", "a producer appends through the spool"])
def test_a_log_on_a_full_disk_waits_and_goes_on_by_itself(small_disk: Path, beside: bool) -> None:
    url = str(small_disk / "log")
    with open_log(url) as owner:
        owner.create_topics([SPEC])
    sent = 0
    with open_log(url, mode="producer" if beside else "owner") as log:
        full = fill(small_disk)
        with pytest.raises(LogUnavailable, match="free some space"):
            for _ in range(100):
                log.append([Message("events", b"k", b"%d" % sent + os.urandom(3_000), 0)], idempotency_key=b"%d" % sent)
                sent += 1
        assert log.end_offsets("events") == [0 if beside else sent]
        full.unlink()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                log.append([Message("events", b"k", b"%d" % sent + bytes(3_000), 0)], idempotency_key=b"%d" % sent)
                break
            except LogUnavailable:
                time.sleep(0.05)
    assert not any(name.startswith(".") for name in os.listdir(small_disk / "log" / "spool"))
    with open_log(url) as log:
        log.claim("w")
        log.commit(messages_of("events", 1), {TopicPartition("events", 0): 1})
        assert log.end_offsets("events") == [sent + 2]
        found = values(take(log, starts(SPEC), sent + 2))
        assert all(value is not None and value.startswith(b"%d" % i) for i, value in enumerate(found[:-1]))
