"""`fit` and `evaluate` as typed: files in, figures out, refusals in one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from intentstream import config_file
from intentstream.cli.app import app
from intentstream.cli.app import main as run_main
from intentstream.config import load_config
from learner.errors import LearnerError
from learner.offline.init_learner import start_from
from learner.offline.presets import MODERN
from learner.online.learner import Learner
from stream.errors import ConfigError
from tests.unit.intentstream.commands import run_command

FIGURES = {"hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20", "users", "intents.active", "intents.effective"}
TINY = """
device = "cpu"
epochs = 3
batch_users = 8
[model]
max_len = 8
[model.encoder]
hidden = 8
[model.intents]
count = 3
"""


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


@pytest.fixture
def main(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., str]]:
    """The whole command line, for words that it refuses: exit status 2 and what it says, one line."""

    def refused(*words: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["intentstream", *map(str, words), "--threads", "1"])
        with pytest.raises(SystemExit) as stopped:
            run_main()
        told = capsys.readouterr().err
        assert stopped.value.code == 2
        assert told.startswith("intentstream: ") and told.count("\n") == 1 and told.endswith("\n")
        return told

    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    yield refused
    torch.set_num_threads(threads)


def run(*words: str | Path) -> str:
    return run_command(app, *words, "--threads", "1")


def test_fit_then_evaluate(tmp_path: Path, data: Path, settings: Path) -> None:
    out, fitted, tested = tmp_path / "model", tmp_path / "fit.json", tmp_path / "test.json"
    shown = run("fit", data, "--out", out, "--config", settings, "--report", fitted)
    report = json.loads(fitted.read_text())
    assert report["epochs"] == 3 and {"epoch_seconds", "peak_rss_mb"} < set(report)
    assert set(report["validation"]) == set(report["test"]) == FIGURES
    lines = [line for line in shown.splitlines() if line.startswith("network 1 of 1, epoch ")]
    assert len(lines) == 3 and "epoch 3 of at most 3: loss " in lines[2] and "validation NDCG@20" in lines[2]
    assert "3 epochs" in shown and f"{report['test']['ndcg@5']:.4f}" in shown
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")
    run("evaluate", out, data, "--report", tested)
    again = json.loads(tested.read_text())
    assert set(again) == FIGURES | {"seconds"}
    assert {name: again[name] for name in FIGURES} == report["test"]


def test_the_next_command_is_one_that_works(tmp_path: Path, data: Path, settings: Path) -> None:
    out = tmp_path / "model"
    shown = run("fit", data, "--out", out, "--config", settings)
    *_, init, _, config = shown.splitlines()[-1].split()
    assert shown.splitlines()[-1].startswith("next: intentstream worker --init ")
    chosen = load_config(Path(config))
    assert (chosen.learner.max_len, chosen.learner.intents.count) == (8, 3)
    learner = Learner(chosen.learner, chosen.actions.weights())
    assert start_from(learner, Path(init)) == learner.size == 9


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
        ("epochs = 0", "epochs = 0: expected `int` >= 1"),
        ("epoch = 3", "epoch = 3: no such key; the nearest valid one is epochs"),
        ("[model.encoder]\nheads = 3\nhidden = 8", "heads = 3 must divide"),
        ("epochs = [", "fit.toml"),
    ],
)
def test_wrong_settings_name_the_key(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "fit.toml"
    path.write_text(content)
    with pytest.raises(ConfigError) as error:
        config_file.load(path, MODERN)
    assert said in str(error.value) and "fit.toml" in str(error.value)


@pytest.mark.parametrize("option", [("--seed", 2**63), ("--epochs", 200_000)])
def test_options_keep_the_limits_of_the_settings(tmp_path: Path, data: Path, option: tuple[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"--epochs, --seed: Expected `int` <= \d+ - at"):
        run("fit", data, "--out", tmp_path / "model", *map(str, option))


def test_settings_lie_over_the_presets(settings: Path) -> None:
    config = config_file.load(settings, MODERN)
    assert (config.epochs, config.model.encoder.hidden, config.model.encoder.positions) == (3, 8, "relative")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a graphics card here")
def test_a_device_asked_for_lies_over_the_settings(
    tmp_path: Path, data: Path, settings: Path, main: Callable[..., str]
) -> None:
    told = main("fit", data, "--out", tmp_path / "model", "--config", settings, "--device", "cuda")
    assert "device = 'cuda', but torch sees no graphics card here; take 'cpu' or 'auto'" in told


def test_paths_must_fit_the_kind_of_model(data: Path) -> None:
    with pytest.raises(ConfigError, match="evaluate got 1 paths, expected DIR DATA"):
        run("evaluate", data)
    with pytest.raises(ConfigError, match="expected DATA alone beside --checkpoint"):
        run("evaluate", data, data, "--checkpoint", data)


class Code:
    """Runs something when it is unpickled, which nothing here may do."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("executed"),))


def authors(items: int = 9) -> dict[str, torch.Tensor]:
    """Weights with the authors' keys and sizes, without layers."""
    return {
        "item_embeddings.weight": torch.zeros(items + 2, 4),
        "position_embeddings.weight": torch.zeros(50, 4),
        "LayerNorm.weight": torch.ones(4),
        "LayerNorm.bias": torch.zeros(4),
        "cluster_centers": torch.ones(3, 4),
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a 1 2 3 4\n\nb 1 2 3\n", "data.txt, line 2: empty; expected `user item item ...`"),
        (b"a 1 2 3 4\nb 1 0 3\n", "data.txt, line 2: user 'b' has item 0; items are numbered from 1"),
        (b"a 1 2\nb 3\n", "no user with 3 items or more (2 with fewer)"),
        (b"a 1 2 3\n", "no user has 4 items or more"),
        (b"\x80\x02", "data.txt: no user with 3 items or more"),
    ],
)
def test_bad_data_end_in_one_line(
    tmp_path: Path, data: Path, main: Callable[..., str], content: bytes, said: str
) -> None:
    data.write_bytes(content)
    assert said in main("fit", data, "--out", tmp_path / "model")
    assert not (tmp_path / "model" / "model.json").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (authors(items=7), "'item_embeddings.weight' has 9 rows, expected 11: the data's items and two more"),
        ({**authors(), "cluster_centers": torch.ones(3)}, "'cluster_centers' has shape 3, expected two dimensions"),
        ({**authors(), "extra": torch.ones(1)}, "key 'extra' is not one of the authors'"),
        ({"weight": torch.ones(1)}, "key 'item_embeddings.weight' is missing; expected the authors' keys"),
        ({**authors(), "hook": Code()}, "refused, it holds more than tensors"),
        (Code(), "refused, it holds more than tensors"),
        (b"no weights", "it is no weights file"),
        (b"", "not a weights file"),
    ],
)
def test_a_wrong_checkpoint_ends_in_one_line_and_executes_nothing(
    tmp_path: Path, data: Path, main: Callable[..., str], content: Any, said: str
) -> None:
    checkpoint = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        checkpoint.write_bytes(content)
    else:
        torch.save(content, checkpoint)
    told = main("evaluate", data, "--checkpoint", checkpoint)
    assert said in told and "weights.pt" in told
    assert not (tmp_path / "executed").exists()


def test_a_folder_that_cannot_be_written_is_said_before_the_training(
    tmp_path: Path, data: Path, settings: Path, main: Callable[..., str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    told = main("fit", data, "--out", tmp_path / "file" / "model", "--config", settings)
    assert f"{tmp_path / 'file' / 'model' / 'training.pt'}: cannot be written: Not a directory" in told


def test_a_report_that_cannot_be_written_ends_in_one_line(
    tmp_path: Path, data: Path, settings: Path, main: Callable[..., str]
) -> None:
    told = main("fit", data, "--out", tmp_path / "model", "--config", settings, "--report", data / "fit.json")
    assert f"{data / 'fit.json'}: cannot be written: File exists" in told
    assert (tmp_path / "model" / "model.json").exists()  # the training is not lost
