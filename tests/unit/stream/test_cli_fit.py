"""`fit` and `evaluate` as typed: files in, figures out, refusals in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from learner.errors import LearnerError
from learner.presets import MODERN
from stream.cli_fit import load_fit_config, register
from stream.errors import ConfigError

FIGURES = {"hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20", "users", "intents.active", "intents.effective"}
TINY = """
epochs = 3
batch_users = 8
[model]
max_len = 8
[model.encoder]
hidden = 8
[model.intents]
count = 3
"""

app = typer.Typer()
register(app)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.txt"
    path.write_text("".join(f"u{n} {' '.join(str((n + i) % 9 + 1) for i in range(4 + n % 4))}\n" for n in range(30)))
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "fit.toml"
    path.write_text(TINY)
    return path


def run(*words: str | Path) -> str:
    threads = torch.get_num_threads()
    result = CliRunner().invoke(app, [str(word) for word in words] + ["--threads", "1"])
    torch.set_num_threads(threads)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_fit_then_evaluate(tmp_path: Path, data: Path, settings: Path) -> None:
    out, fitted, tested = tmp_path / "model", tmp_path / "fit.json", tmp_path / "test.json"
    shown = run("fit", data, "--out", out, "--config", settings, "--report", fitted)
    report = json.loads(fitted.read_text())
    assert report["epochs"] == 3 and {"epoch_seconds", "peak_rss_mb"} < set(report)
    assert set(report["validation"]) == set(report["test"]) == FIGURES
    assert "3 epochs" in shown and f"{report['test']['ndcg@5']:.4f}" in shown
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")
    run("evaluate", out, data, "--report", tested)
    again = json.loads(tested.read_text())
    assert set(again) == FIGURES | {"seconds"}
    assert {name: again[name] for name in FIGURES} == report["test"]


def test_a_finished_fit_is_not_trained_again(tmp_path: Path, data: Path, settings: Path) -> None:
    run("fit", data, "--out", tmp_path / "model", "--config", settings)
    before = (tmp_path / "model" / "training.pt").stat().st_mtime_ns
    run("fit", data, "--out", tmp_path / "model", "--config", settings)
    assert (tmp_path / "model" / "training.pt").stat().st_mtime_ns == before


def test_users_left_out_are_counted(tmp_path: Path, data: Path, settings: Path) -> None:
    data.write_text(data.read_text() + "short 1 2\n")
    assert "1 users with fewer than 3 items left out" in run(
        "fit", data, "--out", tmp_path / "model", "--config", settings
    )


def test_evaluating_other_data_is_refused(tmp_path: Path, data: Path, settings: Path) -> None:
    run("fit", data, "--out", tmp_path / "model", "--config", settings)
    data.write_text("a 1 2 3 70\n")
    with pytest.raises(LearnerError, match="fitted on 9 items, the data have 70"):
        run("evaluate", tmp_path / "model", data)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("epochs = 0", "Expected `int` >= 1 - at `$.epochs`"),
        ("epoch = 3", "unknown field `epoch`"),
        ("[model.encoder]\nheads = 3\nhidden = 8", "heads = 3 must divide"),
        ("epochs = [", "fit.toml"),
    ],
)
def test_wrong_settings_name_the_key(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "fit.toml"
    path.write_text(content)
    with pytest.raises(ConfigError) as error:
        load_fit_config(path, MODERN)
    assert said in str(error.value) and "fit.toml" in str(error.value)


def test_settings_lie_over_the_presets(settings: Path) -> None:
    config = load_fit_config(settings, MODERN)
    assert (config.epochs, config.model.encoder.hidden, config.model.encoder.positions) == (3, 8, "relative")


def test_paths_must_fit_the_kind_of_model(data: Path) -> None:
    with pytest.raises(ConfigError, match="evaluate got 1 paths, expected DIR DATA"):
        run("evaluate", data)
    with pytest.raises(ConfigError, match="expected DATA alone beside --checkpoint"):
        run("evaluate", data, data, "--checkpoint", data)
