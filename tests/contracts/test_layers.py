"""Which package may import which, no import cycles, no file that is too long to read, small public surfaces."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
LONGEST_FILE, MEDIAN_FILE, LONGEST_FUNCTION = 400, 150, 60  # lines

_INPUT: Final = {"stream", "stream.log", "stream.schema", "stream.mapping", "stream.sources"}

# A package with what lies below it, as far as that has no entry of its own; it may import itself and these.
# Every package may import `config`: the modules of that name, which hold nothing but structs.
PACKAGES: Final[dict[str, set[str]]] = {
    "config": {"learner", "stream", "stream.log", "stream.schema"},
    "state": set(),
    "learner": set(),  # errors, metrics, settings of the process
    "learner.model": {"learner"},
    "learner.intents": {"learner", "learner.model"},
    "learner.drift": {"learner"},
    "learner.online": {"learner", "learner.model", "learner.intents", "learner.drift"},
    "learner.offline": {"learner", "learner.model", "learner.intents", "learner.drift", "learner.online"},
    "stream": set(),  # errors
    "stream.log": {"stream"},
    "stream.schema": {"stream", "stream.log"},
    "stream.mapping": {"stream", "stream.schema"},
    "stream.sources": {"stream", "stream.log", "stream.schema", "stream.mapping"},
    "stream.engine": {"learner.*", "state", *_INPUT},
    "stream.worker": {"learner.*", "state", *_INPUT, "stream.engine"},
    "stream.replay": {"learner.*", "state", *_INPUT, "stream.engine"},
    "stream.serving": {"learner.*", "state", *_INPUT, "stream.engine"},
    "monitor": {"stream", "stream.log", "stream.schema", "stream.mapping"},
    "intentstream": {"learner.*", "monitor", "state", "stream.*"},  # the only one that sees everything
}


def modules() -> dict[str, Path]:
    found = {}
    for top in sorted({package.split(".")[0] for package in PACKAGES} - {"config"}):
        for path in sorted((ROOT / top).rglob("*.py")):
            found[".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


MODULES: Final = modules()
TREES: Final = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def package_of(module: str) -> str:
    """The innermost package that a module is in."""
    parts = module.split(".")
    if parts[-1] == "config" and parts[0] in ("learner", "stream"):
        return "config"
    return next(".".join(parts[:n]) for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in PACKAGES)


def may_import(package: str, other: str) -> bool:
    allowed = PACKAGES[package] | {package, "config"}
    return other in allowed or any(name.endswith(".*") and f"{other}.".startswith(name[:-1]) for name in allowed)


def imports(module: str) -> Iterator[tuple[str, str]]:
    """Modules of ours that a module imports, wherever it does, with the name imported from each."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            assert not node.level, f"{module}: relative import"
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                yield (below, "") if below in MODULES else (str(node.module), alias.name)


def outside(module: str) -> set[str]:
    """Packages, ours or not, that a module imports."""
    names: set[str] = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def import_cycles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of nodes from each of which all the others of the group can be reached."""
    reach = {node: set(others) for node, others in graph.items()}
    for middle in graph:
        for node in graph:
            if middle in reach[node]:
                reach[node] |= reach[middle]
    groups = {tuple(sorted(x for x in graph if x in reach[node] and node in reach[x])) for node in graph}
    return [list(group) for group in sorted(groups) if len(group) > 1]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    wrong = {
        f"{module} -> {other}"
        for module in MODULES
        if package_of(module) == package
        for other, _ in imports(module)
        if not may_import(package, package_of(other))
    }
    assert wrong == set()


def test_the_two_logs_know_nothing_of_each_other() -> None:
    for module in MODULES:
        for one, other in (("embedded", "kafka"), ("kafka", "embedded")):
            if module.startswith(f"stream.log.{one}."):
                assert [name for name, _ in imports(module) if name.startswith(f"stream.log.{other}.")] == [], module


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {module: {other for other, _ in imports(module)} - {module} for module in MODULES}
    assert import_cycles(graph) == []


def test_no_room_imports_itself_by_way_of_others() -> None:
    graph: dict[str, set[str]] = {package: set() for package in PACKAGES if package != "config"}
    for module in MODULES:
        for other, _ in imports(module):
            if package_of(module) != "config" != package_of(other):
                graph[package_of(module)] |= {package_of(other)} - {package_of(module)}
    assert import_cycles(graph) == []


def test_no_module_imports_a_private_name() -> None:
    private = {
        f"{module}: {other}.{name}" for module in MODULES for other, name in imports(module) if name.startswith("_")
    }
    assert private == set()


def test_no_file_is_too_long() -> None:
    lengths = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert {module for module, lines in lengths.items() if lines > LONGEST_FILE} == set()
    assert median(lengths.values()) <= MEDIAN_FILE


def test_no_function_is_too_long() -> None:
    long = {
        f"{module}.{node.name}"
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > LONGEST_FUNCTION
    }
    assert long == set()


def test_learner_knows_no_log_and_state_knows_no_torch() -> None:
    for module in MODULES:
        if module.startswith("learner"):
            assert not outside(module) & {"kafka", "rocksdict"}, module
        if module.startswith("state"):
            assert "torch" not in outside(module), module


@pytest.mark.parametrize("package", ["intentstream", "monitor", "stream.log"])
def test_public_names_are_sorted_and_exist(package: str) -> None:
    module = importlib.import_module(package)
    names: list[str] = module.__all__
    assert names == sorted(names)
    assert [name for name in names if not hasattr(module, name)] == []


def test_no_wall_clock_or_global_randomness_in_the_deterministic_core() -> None:
    for module in MODULES:
        if module.startswith(("stream.engine", "state", "learner")) and not module.startswith("learner.offline"):
            assert not outside(module) & {"time", "random", "datetime"}, module
