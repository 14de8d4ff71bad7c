"""The way through kafka-python: fast for the versions that the tests know, public for any other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import kafka
import pytest

import stream.log.kafka
from stream.log.base import LogError
from stream.log.kafka.client_path import KNOWN_VERSIONS, OVERRIDE, client_path

FOLDER = Path(next(iter(stream.log.kafka.__path__)))


def test_the_installed_version_takes_the_fast_path() -> None:
    assert kafka.__version__ in KNOWN_VERSIONS
    assert client_path().name == "fast"


@pytest.mark.parametrize("version", ["3.0.11", "3.0.13", "3.1.0", "3.99"])
def test_a_version_that_no_test_knows_takes_the_public_path(version: str) -> None:
    assert client_path(version).name == "public"


def test_an_override_that_names_neither_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OVERRIDE, "slow")
    with pytest.raises(LogError, match="slow"):
        client_path()


def test_only_the_fast_path_reaches_inside_the_client() -> None:
    inside = re.compile(
        r"noqa: SLF001|import kafka\.(?:net|producer|consumer|record)|from kafka\.(?:net|producer|consumer|record)"
    )
    found = [path.relative_to(FOLDER) for path in FOLDER.rglob("*.py") if inside.search(path.read_text())]
    assert {path.parts[0] for path in found} == {"fast"}


def test_the_public_path_loads_nothing_of_the_fast_one() -> None:
    code = (
        "import sys; from stream.log.kafka.client_path import client_path; import stream.log.kafka.log\n"
        "client_path('3.99'); print(*[name for name in sys.modules if name.startswith('stream.log.kafka.fast')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
