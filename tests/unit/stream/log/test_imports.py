"""What the log loads, and when: the store or the client of a log that is opened, nothing before."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"kafka", "rocksdict", "torch"}


def loaded_after(code: str) -> set[str]:
    """The heavy packages that a fresh process has loaded after this code."""
    program = f"import sys\n{code}\nprint(*({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("code", "loaded"),
    [
        ("import stream.log.base", set()),
        ("from stream.log import open_log", set()),
        ("import stream.log.embedded.log", {"rocksdict"}),
        ("import stream.log.kafka.log", {"kafka"}),
    ],
)
def test_only_what_is_used_is_loaded(code: str, loaded: set[str]) -> None:
    assert loaded_after(code) == loaded
