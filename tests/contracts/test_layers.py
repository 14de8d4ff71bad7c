"""Who may import whom, and small public surfaces."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED: dict[str, set[str]] = {
    "state": set(),
    "learner": set(),
    "stream": {"learner", "state"},
    "monitor": {"stream"},
    "intentstream": {"learner", "monitor", "state", "stream"},
}


def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("layer", ALLOWED)
def test_a_layer_imports_only_what_it_may(layer: str) -> None:
    for path in sorted((ROOT / layer).rglob("*.py")):
        allowed = ALLOWED[layer] | {layer}
        foreign = _imported(path) & ALLOWED.keys() - allowed
        assert not foreign, f"{path.relative_to(ROOT)} imports {sorted(foreign)}"


def test_learner_knows_no_log_and_state_knows_no_torch() -> None:
    for path in sorted((ROOT / "learner").rglob("*.py")):
        assert not _imported(path) & {"kafka", "rocksdict"}, path
    for path in sorted((ROOT / "state").rglob("*.py")):
        assert "torch" not in _imported(path), path


@pytest.mark.parametrize("package", ["state", "learner", "monitor", "stream.log"])
def test_public_names_are_sorted_and_exist(package: str) -> None:
    module = importlib.import_module(package)
    names: list[str] = module.__all__
    assert names == sorted(names)
    assert [name for name in names if not hasattr(module, name)] == []


def test_no_wall_clock_or_global_randomness_in_the_deterministic_core() -> None:
    core = [*(ROOT / "stream/engine").rglob("*.py"), *(ROOT / "state").rglob("*.py")]
    core += [path for path in (ROOT / "learner").rglob("*.py") if "offline" not in path.parts]
    for path in sorted(core):
        assert not _imported(path) & {"time", "random", "datetime"}, path
