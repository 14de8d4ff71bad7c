from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

import state.checkpoint_location
from state.checkpoints import CheckpointStore
from state.errors import StateCorrupted, StateError, StorageFull
from state.manifest import FileEntry, Manifest
from tests.unit.state.test_checkpoints import fill, flip, newest


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield f"file://{tmp_path}/remote/worker-0"
    else:
        yield "memory://checkpoints/worker-0"
        fsspec.filesystem("memory").store.clear()


def remote_names(url: str) -> dict[str, list[str]]:
    fs, root = fsspec.core.url_to_fs(url)
    fs.invalidate_cache()
    return {
        kind: sorted(name.rsplit("/", 1)[-1] for name in fs.ls(f"{root}/{kind}", detail=False))
        for kind in ("checkpoints", "files")
    }


def spoil(url: str, kind: str) -> None:
    """Flip a bit in the newest (by name the last) object of a kind, or in all of the files."""
    fs, root = fsspec.core.url_to_fs(url)
    names = sorted(fs.ls(f"{root}/{kind}", detail=False))
    for name in names[-1:] if kind == "checkpoints" else names:
        data = bytearray(fs.cat_file(name))
        if data:
            data[len(data) // 2] ^= 1
        fs.pipe_file(name, bytes(data))


def tampered_manifest(url: str, step: int, change: Callable[[dict[str, FileEntry]], dict[str, FileEntry]]) -> None:
    """Write another manifest over that of a step, with a checksum that fits."""
    fs, root = fsspec.core.url_to_fs(url)
    path = f"{root}/checkpoints/{step:012d}.json"
    manifest = Manifest.decode(fs.cat_file(path), path)
    fs.pipe_file(path, replace(manifest, files=change(manifest.files)).encode())


def test_a_lost_disk_gets_its_newest_checkpoint_back(tmp_path: Path, url: str) -> None:
    root = tmp_path / "checkpoints"
    checkpoints = CheckpointStore(root, location=url)
    fill(checkpoints, 1, 2)
    assert checkpoints.copied_step == 2
    newest_files = {path.name: path.read_bytes() for path in (root / "000000000002").rglob("*") if path.is_file()}
    shutil.rmtree(root)
    again = CheckpointStore(root, location=url)
    checkpoint = again.latest()
    assert checkpoint is not None and checkpoint.step == 2 and checkpoint.manifest["positions"] == {"0": 20}
    assert {path.name: path.read_bytes() for path in checkpoint.path.rglob("*") if path.is_file()} == newest_files
    assert newest(CheckpointStore(root)) == 2, "what was fetched is a checkpoint like any other"


def test_shared_files_are_sent_once_and_removed_with_the_last_checkpoint(tmp_path: Path, url: str) -> None:
    checkpoints = CheckpointStore(tmp_path / "checkpoints", keep=2, location=url)
    fill(checkpoints, 1, 2, 3)
    names = remote_names(url)
    assert names["checkpoints"] == ["000000000002.json", "000000000003.json"]
    assert len(names["files"]) == 4  # two weights, one shared data file, one empty file


def test_what_is_here_is_not_fetched(tmp_path: Path, url: str) -> None:
    fill(CheckpointStore(tmp_path / "other", location=url), 50)
    checkpoints = CheckpointStore(tmp_path / "checkpoints", location=url)
    local = CheckpointStore(tmp_path / "checkpoints")
    fill(local, 3)
    assert newest(checkpoints) == 3


def test_a_corrupt_only_checkpoint_here_is_fetched_again(tmp_path: Path, url: str) -> None:
    checkpoints = CheckpointStore(tmp_path / "checkpoints", location=url)
    fill(checkpoints, 3)
    flip(tmp_path / "checkpoints" / "000000000003" / "learner" / "weights.bin")
    assert newest(checkpoints) == 3 and newest(CheckpointStore(tmp_path / "checkpoints")) == 3


def test_a_corrupt_copy_is_skipped(tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture) -> None:
    fill(CheckpointStore(tmp_path / "checkpoints", location=url), 1, 2)
    spoil(url, "checkpoints")
    assert newest(CheckpointStore(tmp_path / "new", location=url)) == 1
    assert "copied checkpoint skipped" in caplog.text
    fill(CheckpointStore(tmp_path / "checkpoints", location=url), 3)  # the corrupt one is no reason not to go on
    assert remote_names(url)["checkpoints"] == ["000000000001.json", "000000000003.json"]
    spoil(url, "files")
    assert newest(CheckpointStore(tmp_path / "newer", location=url)) is None
    assert not list((tmp_path / "newer").iterdir())


def test_a_half_sent_file_is_sent_again(tmp_path: Path, url: str) -> None:
    fill(CheckpointStore(tmp_path / "checkpoints", location=url), 1)
    fs, root = fsspec.core.url_to_fs(url)
    for name in fs.ls(f"{root}/files", detail=False):
        fs.pipe_file(name, fs.cat_file(name)[:-1])
    fill(CheckpointStore(tmp_path / "checkpoints", location=url), 1)
    assert newest(CheckpointStore(tmp_path / "new", location=url)) == 1


@pytest.mark.parametrize(
    "name", ["../../../../escaped", "/escaped", "learner/../../escaped", "learner/.hidden", "", "a//b", "manifest.json"]
)
def test_a_tampered_manifest_writes_no_file_outside_the_checkpoint(tmp_path: Path, url: str, name: str) -> None:
    """Whoever can write to the location can also make all checksums right."""
    fill(CheckpointStore(tmp_path / "checkpoints", location=url), 1, 2)
    tampered_manifest(url, 2, lambda files: {**files, name: next(iter(files.values()))})
    before = {path for path in tmp_path.rglob("*") if "remote" not in path.parts}
    assert newest(CheckpointStore(tmp_path / "a" / "b" / "c" / "new", location=url)) == 1
    written = {path for path in tmp_path.rglob("*") if "remote" not in path.parts} - before
    assert all(tmp_path / "a" in (path, *path.parents) for path in written)
    assert not Path("/escaped").exists()


@pytest.mark.parametrize(
    "entry",
    [FileEntry(1, "../../secret", "0" * 32), FileEntry(-1, "0" * 32, "0" * 32), FileEntry(1 << 60, "0" * 32, "0" * 32)],
)
def test_a_tampered_manifest_reads_no_other_file_and_no_size_beyond_all_disks(
    tmp_path: Path, url: str, entry: FileEntry
) -> None:
    fill(CheckpointStore(tmp_path / "checkpoints", location=url), 1, 2)
    tampered_manifest(url, 2, lambda files: {**files, "extra": entry})
    assert newest(CheckpointStore(tmp_path / "new", location=url)) == 1
    assert not list((tmp_path / "new").rglob("extra"))


def test_a_copy_with_other_sizes_than_its_manifest_is_not_fetched(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(CheckpointStore(tmp_path / "checkpoints", location=url), 1)
    fs, root = fsspec.core.url_to_fs(url)
    for name in fs.ls(f"{root}/files", detail=False):
        fs.pipe_file(name, fs.cat_file(name) + b"more")
    monkeypatch.setattr(type(fs), "get_file", lambda *_, **__: pytest.fail("fetched"))
    assert newest(CheckpointStore(tmp_path / "new", location=url)) is None


def test_a_copy_larger_than_the_disk_is_refused_before_it_is_fetched(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(CheckpointStore(tmp_path / "checkpoints", location=url), 1)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(state.checkpoint_location.shutil, "disk_usage", lambda _: usage._replace(free=3))  # type: ignore[attr-defined]
    with pytest.raises(StorageFull, match="has 3 free"):
        CheckpointStore(tmp_path / "new", location=url).latest()


def test_a_manifest_of_another_step_is_no_checkpoint(tmp_path: Path, url: str) -> None:
    fill(CheckpointStore(tmp_path / "checkpoints", location=url), 1)
    fs, root = fsspec.core.url_to_fs(url)
    for name in ("000000000009", "0000000000²³", "9" * 5000):
        if len(name) < 200 or "memory" in url:
            fs.pipe_file(f"{root}/checkpoints/{name}.json", fs.cat_file(f"{root}/checkpoints/000000000001.json"))
    assert newest(CheckpointStore(tmp_path / "new", location=url)) == 1


def test_an_unreachable_location_fails_no_checkpoint_but_an_empty_start(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = CheckpointStore(tmp_path / "checkpoints", location=url)
    fs, _ = fsspec.core.url_to_fs(url)

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("nobody there")

    monkeypatch.setattr(type(fs), "ls", fail)
    with caplog.at_level(logging.ERROR):
        fill(checkpoints, 1)
    assert newest(checkpoints) == 1 and checkpoints.copied_step is None
    assert "not at the checkpoint location" in caplog.text and "nobody there" in caplog.text
    with pytest.raises(StateError, match="listing the checkpoints in .* failed: nobody there"):
        CheckpointStore(tmp_path / "new", location=url).latest()


def test_an_unknown_protocol_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="opening the checkpoint location in nonsense://x failed"):
        CheckpointStore(tmp_path, location="nonsense://x")


@pytest.mark.parametrize("opening", [b"[", b'{"body":'])
def test_a_manifest_nested_without_end_is_corrupt(opening: bytes) -> None:
    with pytest.raises(StateCorrupted, match="not readable"):
        Manifest.decode(opening * 100_000, "here")
