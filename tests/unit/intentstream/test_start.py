"""What starting costs: the modules that a process has imported."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {"fastapi", "kafka", "matplotlib", "nicegui", "polars", "river", "scipy", "torch", "uvicorn"}


def imported(code: str) -> set[str]:
    """Top-level modules in a fresh process after `code`."""
    shown = f"{code}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    ran = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True, timeout=120)
    return set(ran.stdout.split("\n")[-2].split())


def test_a_configuration_is_read_without_torch() -> None:
    assert imported("from intentstream.config import Config; Config()") & HEAVY == set()
