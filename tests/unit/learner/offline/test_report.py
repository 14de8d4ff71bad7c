from __future__ import annotations

import json
from pathlib import Path

import pytest

from learner.errors import ModelFileError
from learner.offline.report import draw_curve, write_report
from learner.offline.trainer import EpochLog


def entry(epoch: int, eval_model: bool) -> EpochLog:
    validation = {"ndcg@5": 0.1 * epoch, "ndcg@20": 0.2 * epoch} if eval_model else None
    return EpochLog(epoch=epoch, seconds=1.0, loss=1 / epoch, parts={}, validation=validation)


def test_a_report_is_json_and_its_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.json"
    write_report(path, {"hr@5": 0.5, "nested": {"users": 3}})
    assert json.loads(path.read_text()) == {"hr@5": 0.5, "nested": {"users": 3}}
    assert [file.name for file in path.parent.iterdir()] == ["report.json"]


def test_a_report_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_report(path, {"users": 1})
    with pytest.raises(TypeError):
        write_report(path, {"users": object()})
    assert json.loads(path.read_text()) == {"users": 1}
    with pytest.raises(ModelFileError, match="cannot be written"):
        write_report(path / "below.json", {})


@pytest.mark.parametrize("log", [[], [entry(1, False)], [entry(1, False), entry(2, True), entry(3, True)]])
def test_a_curve_is_drawn_of_any_length(tmp_path: Path, log: list[EpochLog]) -> None:
    path = tmp_path / "curve.png"
    draw_curve(path, log, "a training")
    assert path.read_bytes().startswith(b"\x89PNG")
