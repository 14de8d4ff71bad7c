"""What starting costs: the modules that a process has imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from intentstream.cli.app import COMMANDS, load
from tests.unit.stream.streams import events

HEAVY = {"fastapi", "kafka", "matplotlib", "nicegui", "polars", "river", "scipy", "torch", "uvicorn"}


def imported(code: str, *words: str | Path) -> set[str]:
    """Top-level modules, and sub-packages of torch, that a fresh process has imported after `code`."""
    shown = f"""
import sys
try:
    {code}
finally:
    print(*{{".".join(name.split(".")[: 2 if name.startswith("torch.") else 1]) for name in sys.modules}})
"""
    command = [sys.executable, "-c", shown, *map(str, words)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in ran.stderr, ran.stderr
    return set(ran.stdout.splitlines()[-1].split())


def imported_by_command(*words: str | Path) -> set[str]:
    return imported("from intentstream.cli.app import main; main()", *words)


def test_a_configuration_is_read_without_torch() -> None:
    assert imported("from intentstream.config import Config; Config()") & HEAVY == set()


@pytest.mark.parametrize("words", ["--help", "config", "topics --create", "status", "dead-letters list"])
def test_a_command_that_does_not_learn_starts_without_what_learning_needs(words: str, tmp_path: Path) -> None:
    log = [] if words in ("--help", "config") else ["--log", str(tmp_path / "log")]
    if words.startswith(("status", "dead")):
        imported_by_command("topics", "--create", *log)
    found = imported_by_command(*words.split(), *log)
    assert found & HEAVY == set()
    if not log:
        assert "numpy" not in found


def test_a_replay_does_not_load_torch_s_compiler(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"\n".join(events(600)) + b"\n")
    found = imported_by_command("replay", file, "--step-records", "64")
    assert "torch.nn" in found
    assert found & {"torch._dynamo", "torch._inductor"} == set()


def test_the_help_of_all_commands_says_what_the_help_of_each_says() -> None:
    for name, command in COMMANDS.items():
        assert load(name).help.splitlines()[0] == command.summary
