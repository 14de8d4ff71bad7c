from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import state.checkpoints
import state.files
from state.checkpoints import CheckpointStore
from state.errors import (
    CheckpointFormatUnknown,
    CheckpointInProgress,
    StateCorrupted,
    StateError,
    StorageFailed,
    StorageFull,
    StorageReadOnly,
)
from state.manifest import MANIFEST, Manifest, check_files


def save(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "learner").mkdir()
        (folder / "learner" / "weights.bin").write_bytes(text.encode() * 1000)
        (folder / "users").mkdir()
        (folder / "users" / "000010.sst").write_bytes(b"same in all" * 1000)
        (folder / "empty").write_bytes(b"")

    return write


def fill(checkpoints: CheckpointStore, *steps: int) -> None:
    for step in steps:
        checkpoints.write(step, {"positions": {"0": step * 10}, "loss": 0.1}, save(f"step {step} "))


def newest(checkpoints: CheckpointStore) -> int | None:
    checkpoint = checkpoints.latest()
    return None if checkpoint is None else checkpoint.step


def flip(path: Path, at: int = -3) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_the_newest_checkpoint_comes_back_with_its_files_and_values(tmp_path: Path) -> None:
    fill(CheckpointStore(tmp_path), 5, 12)
    checkpoint = CheckpointStore(tmp_path).latest()
    assert (
        checkpoint is not None
        and checkpoint.step == 12
        and checkpoint.manifest == {"positions": {"0": 120}, "loss": 0.1}
    )
    assert (checkpoint.path / "learner" / "weights.bin").read_bytes().startswith(b"step 12")


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "new" / "checkpoints").latest() is None


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(tmp_path, keep=2)
    fill(checkpoints, 1, 2, 3, 4)
    assert checkpoints.steps() == [3, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000000003", "000000000004"]


def test_keep_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep must be at least 1, got 0"):
        CheckpointStore(tmp_path, keep=0)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])  # of a manifest the last byte is a line end, which means nothing


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


@pytest.mark.parametrize("name", ["learner/weights.bin", "users/000010.sst", MANIFEST])
@pytest.mark.parametrize(
    "damage", [flip, _truncate, _append, Path.unlink], ids=["flip", "truncate", "append", "remove"]
)
def test_a_corrupt_checkpoint_is_skipped_with_a_warning(
    tmp_path: Path, name: str, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = CheckpointStore(tmp_path)
    fill(checkpoints, 1, 2)
    damage(tmp_path / "000000000002" / name)
    with caplog.at_level(logging.WARNING):
        assert newest(CheckpointStore(tmp_path)) == 1
    assert "000000000002" in caplog.text and "trying the one before it" in caplog.text


def test_every_flipped_bit_of_a_manifest_is_noticed(tmp_path: Path) -> None:
    fill(CheckpointStore(tmp_path), 1)
    path = tmp_path / "000000000001" / MANIFEST
    good = path.read_bytes()
    for at in range(len(good) - 1):  # the last byte is a line end, which means nothing
        data = bytearray(good)
        data[at] ^= 1
        try:
            changed = Manifest.decode(bytes(data), path)
        except StateError:
            continue
        assert changed == Manifest.decode(good, path), f"byte {at}"


@pytest.mark.parametrize("step", [True, -1, 10**20, 1.0, "1", None])
def test_a_manifest_of_an_impossible_step_is_corrupt(step: object) -> None:
    data = Manifest(step, {}, {}).encode()  # type: ignore[arg-type]
    with pytest.raises(StateCorrupted, match="the manifest has step"):
        Manifest.decode(data, "x")


@pytest.mark.parametrize("values", [None, [], "x", 1])
def test_a_manifest_whose_values_are_no_object_is_corrupt(values: object) -> None:
    data = Manifest(1, values, {}).encode()  # type: ignore[arg-type]
    with pytest.raises(StateCorrupted, match="the manifest has no values"):
        Manifest.decode(data, "x")


def test_a_file_that_does_not_belong_there_spoils_a_checkpoint(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(tmp_path)
    fill(checkpoints, 1)
    (tmp_path / "000000000001" / "users" / "000011.sst").write_bytes(b"")
    assert newest(checkpoints) is None


def test_all_corrupt_says_so_and_gives_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = CheckpointStore(tmp_path)
    fill(checkpoints, 1)
    flip(tmp_path / "000000000001" / "learner" / "weights.bin")
    assert checkpoints.latest() is None
    assert "no checkpoint in" in caplog.text and "beginning of the journal" in caplog.text


def test_going_back_before_a_corrupt_checkpoint_replaces_it_and_its_successors(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(tmp_path, keep=3)
    fill(checkpoints, 10, 20, 30)
    for step in (20, 30):
        flip(tmp_path / f"{step:012d}" / "learner" / "weights.bin")
    assert newest(checkpoints) == 10
    fill(checkpoints, 20)
    assert checkpoints.steps() == [10, 20] and newest(checkpoints) == 20


def test_the_same_step_checkpoint_twice_holds_the_second(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(tmp_path)
    fill(checkpoints, 7)
    checkpoints.write(7, {"second": True}, save("again "))
    checkpoint = checkpoints.latest()
    assert checkpoint is not None and checkpoint.manifest == {"second": True} and checkpoints.steps() == [7]


def test_leftovers_of_crashes_are_removed(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(tmp_path)
    fill(checkpoints, 1)
    shutil.copytree(tmp_path / "000000000001", tmp_path / "000000000002.partial")
    shutil.copytree(tmp_path / "000000000001", tmp_path / "000000000000.removed")
    assert newest(CheckpointStore(tmp_path)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["000000000001"]


@pytest.mark.parametrize("name", ["000000000009", "000000000009.partial", "000000000000.removed", "000000000010"])
@pytest.mark.parametrize("target", ["elsewhere", "nothing"])
def test_a_link_in_place_of_a_checkpoint_holds_up_nothing_and_its_target_stays(
    tmp_path: Path, name: str, target: str
) -> None:
    root, precious = tmp_path / "checkpoints", tmp_path / "elsewhere"
    fill(CheckpointStore(root), 1)
    precious.mkdir()
    (precious / "file").write_text("data")
    (root / name).symlink_to(tmp_path / target)
    checkpoints = CheckpointStore(root, keep=2)
    assert newest(checkpoints) == 1
    fill(checkpoints, 8, 9, 10, 11)
    assert newest(checkpoints) == 11
    assert sorted(path.name for path in root.iterdir()) == ["000000000010", "000000000011"]
    assert (precious / "file").read_text() == "data"


def test_a_folder_without_a_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(tmp_path)
    fill(checkpoints, 1)
    (tmp_path / "000000000002").mkdir()
    (tmp_path / "000000000002" / "half").write_bytes(b"half")
    assert newest(checkpoints) == 1


def test_a_checkpoint_renamed_by_hand_is_refused(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(tmp_path)
    fill(checkpoints, 1)
    (tmp_path / "000000000001").rename(tmp_path / "000000000009")
    assert newest(checkpoints) is None


def test_a_newer_format_is_refused_with_what_to_do(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(tmp_path)
    fill(checkpoints, 1, 2)
    path = tmp_path / "000000000002" / MANIFEST
    path.write_bytes(path.read_bytes().replace(b'"format":1', b'"format":2'))
    with pytest.raises(
        CheckpointFormatUnknown, match="has format 2, this version reads up to 1: run the version that wrote it"
    ):
        checkpoints.latest()


def test_half_a_checkpoint_is_no_checkpoint_and_finishing_it_makes_it_one(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(tmp_path)
    written = threading.Event()

    def begin(folder: Path) -> Callable[[], None]:
        (folder / "linked").write_bytes(b"1")

        def later() -> None:
            (folder / "copied").write_bytes(b"2")
            written.set()

        return later

    pending = checkpoints.begin(3, {}, begin)
    assert checkpoints.steps() == [] and not pending.done and not written.is_set()
    with pytest.raises(CheckpointInProgress, match="checkpoint 4 .* while checkpoint 3 was not finished"):
        checkpoints.begin(4, {}, begin)
    thread = threading.Thread(target=pending.finish)
    thread.start()
    thread.join()
    assert pending.done and newest(checkpoints) == 3
    assert sorted(path.name for path in (tmp_path / "000000000003").iterdir()) == ["copied", "linked", MANIFEST]


def test_a_crash_at_any_call_to_the_system_leaves_the_older_or_the_newer_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fsync, rename, removal and write of a checkpoint in turn is the last one that happens."""

    class Crash(BaseException):
        pass

    budget = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal budget
            budget -= 1
            if budget < 0:
                raise Crash
            return real(*args, **kwargs)

        return call

    monkeypatch.setattr(os, "fsync", counted(os.fsync))
    monkeypatch.setattr(os, "rename", counted(os.rename))
    monkeypatch.setattr(os, "replace", counted(os.replace))
    monkeypatch.setattr(Path, "rename", counted(Path.rename))
    monkeypatch.setattr(state.checkpoints, "write_durably", counted(state.files.write_durably))
    monkeypatch.setattr(state.checkpoints, "_abandon", lambda folder: None)  # a dead process cleans nothing up
    seen = set()
    for calls in range(100):
        root = tmp_path / str(calls)
        checkpoints = CheckpointStore(root, keep=1)
        budget = 10**9
        fill(checkpoints, 1)
        budget = calls
        finished = True
        try:
            fill(checkpoints, 2)
        except Crash:
            finished = False
        budget = 10**9
        found = newest(CheckpointStore(root, keep=1))
        assert found in (1, 2) and (found == 2 or not finished), f"after {calls} calls"
        seen.add((found, finished))
        if finished:
            break
    assert seen == {(1, False), (2, False), (2, True)}


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EROFS, StorageReadOnly),
        (errno.EACCES, StorageReadOnly),
        (errno.EIO, StorageFailed),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "rename", "save", "later"])
def test_a_failing_disk_gives_one_line_and_leaves_the_older_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[StateError], call: str
) -> None:
    checkpoints = CheckpointStore(tmp_path)
    fill(checkpoints, 1)

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number), "disk")

    if call in ("fsync", "rename"):
        monkeypatch.setattr(os, call, fail)
    begin = {"save": fail, "later": lambda folder: lambda: fail()}.get(call, save("new "))
    with pytest.raises(expected) as error:
        checkpoints.write(2, {}, begin)  # type: ignore[arg-type]  # a mixture of callables
    assert "\n" not in str(error.value) and os.strerror(number) in str(error.value)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["000000000001"]
    fill(checkpoints, 2)
    assert newest(checkpoints) == 2


def test_a_root_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StateError, match="making the folder of the checkpoints in .* failed: .*[Nn]ot a directory"):
        CheckpointStore(tmp_path / "file" / "checkpoints")


def test_files_beyond_the_budget_are_compared_by_size_and_edges(tmp_path: Path) -> None:
    def large(folder: Path) -> None:
        (folder / "large.sst").write_bytes(bytes(1_000_000))
        (folder / "small").write_bytes(b"small")

    folder = CheckpointStore(tmp_path).write(1, {}, large)
    files = Manifest.decode((folder / MANIFEST).read_bytes(), folder).files
    flip(folder / "large.sst", 500_000)
    check_files(folder, files, full_bytes=1000)
    with pytest.raises(StateError, match=r"checksum of large\.sst"):
        check_files(folder, files, full_bytes=2_000_000)
    flip(folder / "large.sst", 500_000)
    flip(folder / "large.sst", 999_000)
    with pytest.raises(StateError, match=r"checksum of large\.sst"):
        check_files(folder, files, full_bytes=1000)


def test_linked_data_files_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = CheckpointStore(tmp_path)
    fill(checkpoints, 1)
    read: list[str] = []
    real = state.files.file_digest

    def spy(path: Path) -> str:
        read.append(path.name)
        return real(path)

    monkeypatch.setattr("state.manifest.file_digest", spy)

    def link(folder: Path) -> None:
        os.link(tmp_path / "000000000001" / "users" / "000010.sst", folder / "000010.sst")
        (folder / "new.sst").write_bytes(b"new")
        os.link(tmp_path / "000000000001" / "learner" / "weights.bin", folder / "weights.bin")

    checkpoints.write(2, {}, link)
    assert sorted(read) == ["new.sst", "weights.bin"]
    assert newest(checkpoints) == 2
