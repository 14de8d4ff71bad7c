"""How the code is built: modules, their length, import cycles, imports against the layers, reaches into private names.

    python -m benchmarks.structure [--root DIR]

Counts the product code of a checkout (this one by default), without tests and benchmarks. The last line is JSON.
"""

from __future__ import annotations

import argparse
import ast
import json
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# a package, and those that it may import; `intentstream` is what users import and run
LAYERS = {
    "state": set[str](),
    "learner": set[str](),
    "stream": {"state", "learner"},
    "monitor": {"stream"},
    "intentstream": {"state", "learner", "stream", "monitor"},
}
LONGEST_FUNCTION = 60  # lines


def modules(root: Path) -> dict[str, Path]:
    """Product modules of a checkout by name."""
    found = {}
    for package in LAYERS:
        for path in sorted((root / package).rglob("*.py")):
            found[".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def imports(tree: ast.Module, known: Mapping[str, Path]) -> Iterator[str]:
    """Known modules that a module imports anywhere in its code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                yield below if below in known else str(node.module)


def import_cycles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Largest groups of nodes that all reach each other."""
    reach = {node: set(others) for node, others in graph.items()}
    for middle in graph:
        for node in graph:
            if middle in reach[node]:
                reach[node] |= reach[middle]
    groups = {tuple(sorted(x for x in graph if x in reach[node] and node in reach[x])) for node in graph}
    return [list(group) for group in sorted(groups) if len(group) > 1]


def long_functions(name: str, tree: ast.Module) -> Iterator[str]:
    """Functions of more than `LONGEST_FUNCTION` lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > LONGEST_FUNCTION:
                yield f"{name}.{node.name} ({lines})"


def measure(root: Path) -> dict[str, Any]:
    """All figures of a checkout."""
    paths = modules(root)
    texts = {name: path.read_text(encoding="utf-8") for name, path in paths.items()}
    trees = {name: ast.parse(text) for name, text in texts.items()}
    lines = {name: len(text.splitlines()) for name, text in texts.items()}
    graph = {name: set(imports(tree, paths)) - {name} for name, tree in trees.items()}
    packages: dict[str, set[str]] = {package: set() for package in LAYERS}
    against = []
    for name, others in graph.items():
        own = name.split(".")[0]
        for other in sorted(others):
            package = other.split(".")[0]
            packages[own] |= {package} - {own}
            if package != own and package not in LAYERS[own]:
                against.append(f"{name} -> {other}")
    longest = max(lines, key=lambda name: lines[name])
    return {
        "modules": len(lines),
        "median_lines": statistics.median(lines.values()),
        "longest": [longest, lines[longest]],
        "above_400_lines": sorted(name for name, count in lines.items() if count > 400),
        "long_functions": [function for name, tree in trees.items() for function in long_functions(name, tree)],
        "module_cycles": import_cycles(graph),
        "package_cycles": import_cycles(packages),
        "against_the_layers": against,
        "private_reaches": {name: n for name, text in texts.items() if (n := text.count("noqa: SLF001"))},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="a checkout of the repository")
    found = measure(parser.parse_args().root)
    print(f"modules                     {found['modules']}, median {found['median_lines']} lines")
    print(f"longest module              {found['longest'][0]}, {found['longest'][1]} lines")
    for title, key in (
        ("modules above 400 lines", "above_400_lines"),
        (f"functions above {LONGEST_FUNCTION} lines", "long_functions"),
        ("import cycles of modules", "module_cycles"),
        ("import cycles of packages", "package_cycles"),
        ("imports against the layers", "against_the_layers"),
    ):
        print(f"{title:<28}{len(found[key])}")
        for entry in found[key]:
            print(f"    {entry if isinstance(entry, str) else ' <-> '.join(entry)}")
    reaches = found["private_reaches"]
    print(f"reaches into private names  {sum(reaches.values())}, in {len(reaches)} modules")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
