"""The figures of `benchmarks/structure.py` on a small tree; this checkout has no import cycle and no wrong import."""

from __future__ import annotations

from pathlib import Path

from benchmarks.structure import measure


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_import_cycles_wrong_imports_and_lengths_are_found(tmp_path: Path) -> None:
    long = "def long() -> None:\n" + "    pass\n" * 60
    write(
        tmp_path,
        {
            "stream/__init__.py": "",
            "stream/a.py": "from stream import b\nfrom state.c import value\n",
            "stream/b.py": "def late() -> None:\n    import stream.a\n",
            "state/c.py": "from stream.b import late\nvalue = late._x  # noqa: " + "SLF001\n",
            "learner/d.py": long,
        },
    )
    found = measure(tmp_path)
    assert (found["modules"], found["median_lines"], found["longest"]) == (5, 2, ["learner.d", 61])
    assert found["long_functions"] == ["learner.d.long (61)"]
    assert found["module_cycles"] == [["state.c", "stream.a", "stream.b"]]
    assert found["package_cycles"] == [["state", "stream"]]
    assert found["against_the_layers"] == ["state.c -> stream.b"]
    assert found["private_reaches"] == {"state.c": 1}


def test_this_checkout_has_no_circle_and_no_import_against_the_layers() -> None:
    found = measure(Path(__file__).parents[2])
    assert found["module_cycles"] == found["package_cycles"] == found["against_the_layers"] == []
