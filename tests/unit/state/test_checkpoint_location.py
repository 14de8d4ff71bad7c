from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from state import CutStore, StateError
from tests.unit.state.test_checkpoints import fill, flip, newest


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield f"file://{tmp_path}/remote/worker-0"
    else:
        yield "memory://cuts/worker-0"
        fsspec.filesystem("memory").store.clear()


def remote_names(url: str) -> dict[str, list[str]]:
    fs, root = fsspec.core.url_to_fs(url)
    fs.invalidate_cache()
    return {
        kind: sorted(name.rsplit("/", 1)[-1] for name in fs.ls(f"{root}/{kind}", detail=False))
        for kind in ("cuts", "files")
    }


def spoil(url: str, kind: str) -> None:
    """Flip a bit in the newest (by name the last) object of a kind, or in all of the files."""
    fs, root = fsspec.core.url_to_fs(url)
    names = sorted(fs.ls(f"{root}/{kind}", detail=False))
    for name in names[-1:] if kind == "cuts" else names:
        data = bytearray(fs.cat_file(name))
        if data:
            data[len(data) // 2] ^= 1
        fs.pipe_file(name, bytes(data))


def test_a_lost_disk_gets_its_newest_cut_back(tmp_path: Path, url: str) -> None:
    root = tmp_path / "cuts"
    cuts = CutStore(root, location=url)
    fill(cuts, 1, 2)
    assert cuts.copied_step == 2
    newest_files = {path.name: path.read_bytes() for path in (root / "000000000002").rglob("*") if path.is_file()}
    shutil.rmtree(root)
    again = CutStore(root, location=url)
    cut = again.latest()
    assert cut is not None and cut.step == 2 and cut.manifest["positions"] == {"0": 20}
    assert {path.name: path.read_bytes() for path in cut.path.rglob("*") if path.is_file()} == newest_files
    assert newest(CutStore(root)) == 2, "what was fetched is a cut like any other"


def test_shared_files_are_sent_once_and_removed_with_the_last_cut(tmp_path: Path, url: str) -> None:
    cuts = CutStore(tmp_path / "cuts", keep=2, location=url)
    fill(cuts, 1, 2, 3)
    names = remote_names(url)
    assert names["cuts"] == ["000000000002.json", "000000000003.json"]
    assert len(names["files"]) == 4  # two weights, one shared data file, one empty file


def test_what_is_here_is_not_fetched(tmp_path: Path, url: str) -> None:
    fill(CutStore(tmp_path / "other", location=url), 50)
    cuts = CutStore(tmp_path / "cuts", location=url)
    local = CutStore(tmp_path / "cuts")
    fill(local, 3)
    assert newest(cuts) == 3


def test_a_corrupt_only_cut_here_is_fetched_again(tmp_path: Path, url: str) -> None:
    cuts = CutStore(tmp_path / "cuts", location=url)
    fill(cuts, 3)
    flip(tmp_path / "cuts" / "000000000003" / "learner" / "weights.bin")
    assert newest(cuts) == 3 and newest(CutStore(tmp_path / "cuts")) == 3


def test_a_corrupt_copy_is_skipped(tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture) -> None:
    fill(CutStore(tmp_path / "cuts", location=url), 1, 2)
    spoil(url, "cuts")
    assert newest(CutStore(tmp_path / "new", location=url)) == 1
    assert "copied cut skipped" in caplog.text
    fill(CutStore(tmp_path / "cuts", location=url), 3)  # the corrupt one is no reason not to go on
    assert remote_names(url)["cuts"] == ["000000000001.json", "000000000003.json"]
    spoil(url, "files")
    assert newest(CutStore(tmp_path / "newer", location=url)) is None
    assert not list((tmp_path / "newer").iterdir())


def test_a_half_sent_file_is_sent_again(tmp_path: Path, url: str) -> None:
    fill(CutStore(tmp_path / "cuts", location=url), 1)
    fs, root = fsspec.core.url_to_fs(url)
    for name in fs.ls(f"{root}/files", detail=False):
        fs.pipe_file(name, fs.cat_file(name)[:-1])
    fill(CutStore(tmp_path / "cuts", location=url), 1)
    assert newest(CutStore(tmp_path / "new", location=url)) == 1


def test_an_unreachable_location_fails_no_cut_but_an_empty_start(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cuts = CutStore(tmp_path / "cuts", location=url)
    fs, _ = fsspec.core.url_to_fs(url)

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("nobody there")

    monkeypatch.setattr(type(fs), "ls", fail)
    with caplog.at_level(logging.ERROR):
        fill(cuts, 1)
    assert newest(cuts) == 1 and cuts.copied_step is None
    assert "not at the cut location" in caplog.text and "nobody there" in caplog.text
    with pytest.raises(StateError, match="listing the cuts in .* failed: nobody there"):
        CutStore(tmp_path / "new", location=url).latest()


def test_an_unknown_protocol_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="opening the cut location in nonsense://x failed"):
        CutStore(tmp_path, location="nonsense://x")
