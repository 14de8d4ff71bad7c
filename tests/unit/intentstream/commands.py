"""Commands as typed."""

from __future__ import annotations

from pathlib import Path

import torch
import typer
from typer.testing import CliRunner, Result


def invoke(app: typer.Typer, *words: str | Path) -> Result:
    """The outcome of the command. Torch's settings are afterwards what they were."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)
    return result


def run_command(app: typer.Typer, *words: str | Path) -> str:
    """What the command shows; raises what it does not handle."""
    result = invoke(app, *words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output
