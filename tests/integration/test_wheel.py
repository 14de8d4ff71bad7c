"""The wheel, built and installed in an environment of its own: what is in it, the commands, the five lines of Python.

The environment shares the dependencies that are installed already, not the project: torch is not fetched again.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.unit.stream.streams import events

ROOT = Path(__file__).parents[2]
PACKAGES = {"intentstream", "learner", "monitor", "state", "stream"}


def run(*words: str | Path, cwd: Path) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([*map(str, words)], cwd=cwd, env=clean, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return done.stdout


def source_files() -> set[str]:
    """Files of the packages, relative to the root, that an installation needs."""
    found = [path for top in PACKAGES for path in (ROOT / top).rglob("*") if path.is_file()]
    return {str(path.relative_to(ROOT)) for path in found if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source / name)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out, source, cwd=source)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def binaries(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of executables of an environment with the wheel."""
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment)
    python = environment / "bin" / "python"
    install = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index")
    run(*install, wheel, cwd=environment)
    (packages,) = environment.glob("lib/python*/site-packages")
    # A folder on a .pth file does not have its own .pth files read, so the project itself is not found in it.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment / "bin"


def test_the_wheel_has_our_packages_with_their_data_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in names} == PACKAGES
    assert names == source_files()
    assert {f"{package}/py.typed" for package in PACKAGES} <= names


def test_the_commands_run(binaries: Path, tmp_path: Path) -> None:
    where = run(binaries / "python", "-c", "import intentstream; print(intentstream.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(binaries.parent)
    assert "recommend" in run(binaries / "intentstream", "--help", cwd=tmp_path)
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(events(200)) + b"\n")
    assert "intentstream" in run(binaries / "intentstream", "replay", "events.jsonl", cwd=tmp_path)


def test_the_five_lines_of_the_readme_recommend(binaries: Path, tmp_path: Path) -> None:
    found = re.search(r"```python\n(.+?)```", (ROOT / "README.md").read_text(), re.S)
    assert found is not None
    *lines, recommend, intent = found[1].splitlines()
    shown = "\n".join([*lines, f"print({recommend}, {intent} is not None)"])
    assert run(binaries / "python", "-c", shown, cwd=tmp_path) == "['cup'] True\n"
