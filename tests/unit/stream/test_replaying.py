"""What a replay does around the engine: going on, refusing, reporting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stream.replaying import replay
from stream.sources.replay import EventFile
from tests.unit.stream.streams import events, small_config

STEP = 64


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of 400 records: six whole steps and a short one."""
    return written(tmp_path / "events.jsonl", events(400))


def written(path: Path, records: list[bytes]) -> Path:
    path.write_bytes(b"\n".join(records) + b"\n")
    return path


def run(file: Path, state: Path, limit: int | None = None, **more: Any) -> dict[str, Any]:
    more = {"config": small_config(1), "keep": True, "step_events": STEP, "baselines": False} | more
    return replay(more.pop("config"), EventFile(file, limit), state, **more)


@pytest.mark.parametrize("limits", [(100, None), (20, 30, 300, None), (64, None), (None, None)])
def test_runs_one_after_the_other_give_the_bits_of_one(tmp_path: Path, file: Path, limits: tuple[int | None]) -> None:
    whole = run(file, tmp_path / "whole")
    for limit in limits:
        part = run(file, tmp_path / "parts", limit)
        assert part["digest"] == run(file, tmp_path / f"fresh{limit}", limit)["digest"]
    for name in ("events", "duplicates", "dead_letters", "digest"):
        assert part[name] == whole[name]
