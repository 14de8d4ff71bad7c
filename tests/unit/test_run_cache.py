"""What `--keep` of the benchmarks promises: no run is made twice, none is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.run_cache import Kept
from learner.offline.presets import MODERN, PRESETS


class Runs:
    """Counts what was made."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> dict[str, Any]:
        self.made += 1
        return {"figure": self.made / 10}


def test_a_run_is_made_once_for_its_settings(tmp_path: Path) -> None:
    run = Runs()
    for _ in range(2):
        kept = Kept(tmp_path / "runs.jsonl")
        assert kept.of(("Beauty.txt", MODERN), run) == {"figure": 0.1}
        assert kept.of(("Beauty.txt", PRESETS["beauty"]), run) == {"figure": 0.2}
    assert run.made == 2


def test_a_line_that_was_not_written_to_its_end_is_made_again_and_the_others_stay(tmp_path: Path) -> None:
    file, run = tmp_path / "runs.jsonl", Runs()
    kept = Kept(file)
    kept.of("one", run)
    whole = file.read_bytes()
    kept.of("two", run)
    file.write_bytes(file.read_bytes()[:-3])
    again = Kept(file)
    assert file.read_bytes() == whole
    assert again.of("one", run) == {"figure": 0.1} and again.of("two", run) == {"figure": 0.3}
    assert Kept(file).of("two", run) == {"figure": 0.3}


def test_a_file_that_cannot_be_written_is_refused_before_the_first_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"runs\.jsonl"):
        Kept(tmp_path / "nowhere" / "runs.jsonl")


def test_without_a_file_nothing_is_kept_beyond_the_process() -> None:
    run = Runs()
    assert Kept(None).of("one", run) != Kept(None).of("one", run)
