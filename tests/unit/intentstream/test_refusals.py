"""What a terminal, or whoever collects the output, sees of a refusal: one line."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest


def refusal(*words: str | Path) -> str:
    """The one line on standard error of a command that fails."""
    command = [sys.executable, "-c", "from intentstream.cli.app import main; main()", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("intentstream: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_brokers_that_cannot_be_reached_are_one_line(tmp_path: Path) -> None:
    config = tmp_path / "short.toml"
    config.write_text("[log.kafka]\nrequest_timeout_ms = 1000\ncommit_timeout_ms = 1000\n")
    said = refusal("topics", "--log", "kafka://127.0.0.1:1", "--config", config)
    assert said.count("KafkaTimeoutError") == 1
    assert "is the broker running" in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("topics", "there is no log in this folder"),
        ("status", "there is no log in this folder"),
        ("recommend ann", "no checkpoint in it yet"),
        ("replay none.csv", "none.csv: cannot be read: No such file or directory"),
        ("config --all --shop", "give one of them"),
    ],
)
def test_a_folder_with_nothing_in_it_is_one_line(
    words: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    monkeypatch.chdir(tmp_path)
    assert expected in refusal(*words.split())


def test_a_log_message_is_one_line_where_there_is_no_terminal() -> None:
    code = """
import logging, sys
from intentstream.cli import app
app._options(verbose=False)
logging.getLogger("x").warning("word " * 100)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.count("\n") == 1
    assert logging.getLevelName(logging.WARNING) in done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("replay a.csv --report a.csv", "--report a.csv: the command reads it"),
        ("replay a.csv --intents linked.csv", "--intents linked.csv: the command reads it"),
        ("replay a.csv --intents hard.csv", "--intents hard.csv: the command reads it"),
        ("replay a.csv --items i.csv --report ./i.csv", "--report i.csv: the command reads it"),
        ("replay a.csv --report new.json --intents new.json", "--intents new.json: --report writes it"),
        ("tune a.csv --out a.csv", "--out a.csv: the command reads it"),
        ("fit a.csv --out model --curve a.csv", "--curve a.csv: the command reads it"),
        ("evaluate model a.csv --report a.csv", "--report a.csv: the command reads it"),
        ("simulate --truth new.json --keep new.json", "--keep new.json: --truth writes it"),
    ],
)
def test_a_result_never_takes_the_place_of_a_file_that_is_read(
    words: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    monkeypatch.chdir(tmp_path)
    data = b"user,item,ts\nu,a,1506826800\nu,b,1506826801\n"
    (tmp_path / "a.csv").write_bytes(data)
    (tmp_path / "i.csv").write_text("item,title\na,Lamp\n")
    (tmp_path / "linked.csv").symlink_to("a.csv")
    (tmp_path / "hard.csv").hardlink_to(tmp_path / "a.csv")
    assert expected in refusal(*words.split())
    assert (tmp_path / "a.csv").read_bytes() == data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "hard.csv", "i.csv", "linked.csv"]
