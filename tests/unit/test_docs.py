"""The documentation: links, anchors, named files and commands exist; its words are those of the glossary."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from intentstream.cli.app import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
HISTORY = {"CHANGELOG.md", "decisions.md"}  # tell of earlier names too
FOLDERS = ("benchmarks", "deploy", "docs", "examples", "intentstream", "learner", "monitor", "state", "stream", "tests")


def prose(page: Path) -> str:
    """The text without code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """GitHub's anchors of the headings of a page."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), flags=re.M):
        text = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading).replace("`", "").strip().lower()
        found.add(re.sub(r"[^\w\- ]", "", text).replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_anchors_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page: Path) -> None:
    for name in re.findall(r"`((?:" + "|".join(FOLDERS) + r")/[\w./-]*)`", prose(page)):
        if page.name not in HISTORY:
            assert (ROOT / name).exists(), name
    for module in re.findall(r"python -m (benchmarks\.\w+)", page.read_text()):
        importlib.import_module(module)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in HISTORY], ids=lambda page: page.name)
def test_words_are_those_of_the_glossary(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`|\"\w+\"", "", prose(page))
    old = r"\b([Cc]entres?|[Bb]ehaviour\w*|[Cc]atalogues?|[Cc]olours?|[Cc]uts?|[Ss]tand-ins?|[Mm]emories)\b"
    assert re.findall(old, text) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_begins_with_a_title_and_says_what_it_is_for(page: Path) -> None:
    title, _, first, *_ = page.read_text().splitlines()
    assert title.startswith("# ")
    assert len(first) > 30 and first[0].isalpha()


def test_no_sentence_is_there_twice() -> None:
    seen: dict[str, str] = {}
    for page in PAGES:
        if page.name in HISTORY | {"configuration.md", "topics.md"}:
            continue
        lines = [line for line in prose(page).splitlines() if not line.startswith(("|", "#", "    "))]
        for sentence in re.split(r"(?<=[.!?])\s+", " ".join(" ".join(lines).split())):
            if len(sentence) > 60:
                assert sentence not in seen, (page.name, seen.get(sentence), sentence)
                seen[sentence] = page.name


def test_commands_and_targets_of_the_readme_exist() -> None:
    text = prose(ROOT / "README.md")
    named = {
        name for code in re.findall(r"`([^`\n]+)`", text) for name in re.findall(r"\bintentstream ([a-z][a-z-]*)", code)
    }
    commands = set(COMMANDS)
    assert named and named <= commands, named - commands
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.M))
    assert set(re.findall(r"\bmake ([a-z]+)", text)) <= targets


def test_the_python_of_the_readme_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 (our own five lines)


def test_the_producers_in_the_documentation_are_those_of_the_examples() -> None:
    shown = re.findall(r"^```\w+\n(.*?)^```", (ROOT / "docs/kafka.md").read_text(), flags=re.M | re.S)
    producers = sorted((ROOT / "examples/producers").iterdir())
    assert len(producers) == 5
    for path in producers:
        assert path.read_text() in shown, path.name


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs/README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index, page.name
