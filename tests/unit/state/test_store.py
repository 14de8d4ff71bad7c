from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import state.store
from state.checkpoints import CheckpointStore
from state.errors import StateCorrupted, StateError, StateInUse, StorageFull, StorageReadOnly
from state.store import UserStore
from tests.contracts.store_checks import digest, with_events
from tests.contracts.test_store_contract import make_rocks

USERS = [b"%d" % i for i in range(200)]


class Failing:
    """A database that fails at everything, with the words of RocksDB."""

    def __init__(self, text: str) -> None:
        self._text = text

    def _fail(self, *_: Any, **__: Any) -> Any:
        raise Exception(self._text)

    get = write = flush = iter = property_int_value = _fail

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("IO error: No space left on device: While appending to file: /d/000012.sst: No space left", StorageFull),
        ("IO error: While open a file for appending: /d/000012.sst: Read-only file system", StorageReadOnly),
        ("Corruption: block checksum mismatch: stored = 1, computed = 2 in /d/000012.sst", StateCorrupted),
        ("IO error: something else\nin two lines", StateError),
    ],
)
def test_what_rocksdb_says_becomes_one_line_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: type[StateError]
) -> None:
    monkeypatch.setattr(state.store, "_MAX_UNWRITTEN", 0)  # nothing waits in memory for room on the disk
    store = make_rocks(tmp_path)
    assert isinstance(store, UserStore)
    real = store._databases[0]
    store._databases[0] = Failing(text)  # type: ignore[call-overload]  # a stand-in
    calls = [
        lambda: store.read(0, USERS),
        lambda: store.erase(0, USERS),
        lambda: list(store.scan(0)),
        lambda: store.checkpoint(tmp_path / "checkpoint"),
    ]
    for call in calls:
        with pytest.raises(expected) as error:
            call()  # type: ignore[no-untyped-call]  # lambdas of different types
        assert "\n" not in str(error.value) and text.split("\n")[0] in str(error.value)
    store._databases[0] = real
    store.close()


def test_an_open_folder_is_refused_to_a_second_opener(tmp_path: Path) -> None:
    with make_rocks(tmp_path), pytest.raises(StateInUse, match="another process has this state folder open"):
        make_rocks(tmp_path)
    make_rocks(tmp_path).close()


@pytest.fixture
def read_only_folder() -> Iterator[Path]:
    """A folder that this process cannot write, whoever runs the tests: root becomes nobody for a while."""
    folder = Path(tempfile.mkdtemp())
    user = os.geteuid()
    folder.chmod(0o555)
    if user == 0:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if user == 0:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_folder_that_cannot_be_written_is_one_line(read_only_folder: Path) -> None:
    with pytest.raises(StorageReadOnly, match="Permission denied.*must be writable by this process"):
        make_rocks(read_only_folder / "live")
    with pytest.raises(StorageReadOnly, match="making the folder of the checkpoints in .* failed: .*Permission denied"):
        CheckpointStore(read_only_folder / "checkpoints")
    with pytest.raises(StorageReadOnly, match="beginning checkpoint 1 in .* failed: .*Permission denied"):
        CheckpointStore(read_only_folder).write(1, {}, lambda folder: None)


def test_a_full_disk_spares_the_older_checkpoint(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(tmp_path)
    checkpoints.write(1, {}, lambda folder: None)

    def fill(_: Path) -> None:
        with open("/dev/full", "wb") as file:
            file.write(b"x")

    with pytest.raises(StorageFull, match="No space left on device.*newest finished checkpoint still serves"):
        checkpoints.write(2, {}, fill)
    checkpoint = checkpoints.latest()
    assert checkpoint is not None and checkpoint.step == 1


class FullDatabase:
    """A database on a disk that is full, until there is room."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self.full = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def _refuse(self) -> None:
        if self.full:
            raise Exception("IO error: No space left on device: While appending to file: /d/000012.sst")

    def write(self, *arguments: Any) -> None:
        self._refuse()
        self._database.write(*arguments)

    def close(self) -> None:
        self._database.close()
        self._refuse()


def on_a_full_disk(store: Any) -> list[FullDatabase]:
    store._databases = [FullDatabase(database) for database in store._databases]
    found: list[FullDatabase] = store._databases
    return found


def test_a_disk_that_stays_full_stops_in_one_line_and_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(state.store, "_MAX_UNWRITTEN", 10)
    store = make_rocks(tmp_path / "live")
    on_a_full_disk(store)
    with pytest.raises(StorageFull, match="writing users .*newest finished checkpoint still serves"):
        for first in range(0, 100, 5):
            with_events(store, 0, USERS[first : first + 5], 1)
    store.close()
    assert "closing users" in caplog.text


def test_on_a_full_disk_users_wait_in_memory_until_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with make_rocks(tmp_path / "never-full") as store:
        for ts in (1, 2, 3):
            with_events(store, 0, USERS[:50], ts)
        expected = digest(store)
    now = np.zeros(2, dtype=np.int64)
    with make_rocks(tmp_path / "live") as store:
        with_events(store, 0, USERS[:50], 1)
        databases = on_a_full_disk(store)
        for ts in (2, 3):
            with_events(store, 0, USERS[:50], ts)
            assert store.sweep(now, max_users=64) == 0
        assert store.read(0, USERS[:1])["events"].tolist() == [3]
        assert caplog.text.count("going on in memory for a while") == 1
        with pytest.raises(StorageFull):
            store.checkpoint(tmp_path / "checkpoint")
        for database in databases:
            database.full = False
        store.sweep(now, max_users=64)
        assert not any(store._unwritten)  # type: ignore[union-attr]
        assert digest(store) == expected
        store._databases = [database._database for database in databases]  # type: ignore[union-attr]
        store.checkpoint(tmp_path / "checkpoint")
    with make_rocks(tmp_path / "back", restore=tmp_path / "checkpoint") as store:
        assert digest(store) == expected


def test_a_damaged_data_file_is_noticed(tmp_path: Path) -> None:
    with make_rocks(tmp_path / "live") as store:
        with_events(store, 0, USERS, 1)
        store.checkpoint(tmp_path / "checkpoint")
    (path,) = (tmp_path / "checkpoint" / "partition-0000").glob("*.sst")
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with make_rocks(tmp_path / "back", restore=tmp_path / "checkpoint") as store:
        with pytest.raises(StateCorrupted, match=r"reading users in .*partition-0000 failed: Corruption"):
            store.read(0, USERS)
    path.write_bytes(data[:50])
    with pytest.raises(StateCorrupted, match="opening users"):
        make_rocks(tmp_path / "back", restore=tmp_path / "checkpoint")


def test_steps_go_on_while_another_thread_finishes_the_checkpoint(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(tmp_path / "checkpoints")
    expected: dict[int, str] = {}
    with make_rocks(tmp_path / "live") as store:
        ts = 0
        for step in range(1, 6):
            for _ in range(20):
                ts += 1
                with_events(store, ts % 2, USERS[ts % 7 :], ts)
            expected[step] = digest(store)
            pending = checkpoints.begin(step, {}, lambda folder: store.begin_checkpoint(folder / "users"))
            thread = threading.Thread(target=pending.finish)
            thread.start()
            while thread.is_alive():
                ts += 1
                with_events(store, ts % 2, USERS[ts % 7 :], ts)
            thread.join()
        last = digest(store)
    for step in (3, 4, 5):
        with make_rocks(tmp_path / "back", restore=tmp_path / "checkpoints" / f"{step:012d}" / "users") as store:
            assert digest(store) == expected[step]
    assert last != expected[5]


def test_what_is_held_back_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state.store, "_MAX_UNWRITTEN", 150)
    with make_rocks(tmp_path / "live") as store:
        assert isinstance(store, UserStore)
        before = digest(store)
        finish = store.begin_checkpoint(tmp_path / "checkpoint")
        with_events(store, 0, USERS[:100], 1)
        assert sum(map(len, store._unwritten)) == 100 and store.count() == 100
        with_events(store, 1, USERS[:100], 1)
        assert sum(map(len, store._unwritten)) == 0, "the writer made the checkpoint itself"
        finish()
    with make_rocks(tmp_path / "back", restore=tmp_path / "checkpoint") as store:
        assert digest(store) == before


def test_a_failed_checkpoint_fails_the_checkpoint_and_not_the_store(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(tmp_path / "checkpoints")
    with make_rocks(tmp_path / "live") as store:
        with_events(store, 0, USERS, 1)

        def spoil(folder: Path) -> Any:
            later = store.begin_checkpoint(folder / "users")
            (folder / "users" / "partition-0001").mkdir()  # RocksDB refuses to write into a folder that exists
            return later

        pending = checkpoints.begin(1, {}, spoil)
        with_events(store, 0, USERS, 2)
        with pytest.raises(StateError, match="making a checkpoint of the users"):
            pending.finish()
        assert store.read(0, USERS)["events"].tolist() == [2] * 200
        with_events(store, 0, USERS, 3)
        assert checkpoints.latest() is None and store.read(0, USERS)["events"].tolist() == [3] * 200
        checkpoints.write(2, {}, lambda folder: store.begin_checkpoint(folder / "users"))


def test_destroying_nothing_is_harmless(tmp_path: Path) -> None:
    UserStore.destroy(tmp_path / "nothing")


def test_restoring_copies_where_links_are_impossible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with make_rocks(tmp_path / "live") as store:
        with_events(store, 0, USERS, 1)
        store.checkpoint(tmp_path / "checkpoint")
        expected = digest(store)

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    with make_rocks(tmp_path / "back", restore=tmp_path / "checkpoint") as store:
        assert digest(store) == expected
