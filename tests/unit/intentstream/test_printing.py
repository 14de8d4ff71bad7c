"""Ids that a terminal could obey: shown as they are, in every command that shows ids."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from intentstream.cli.app import app
from intentstream.printing import open_console
from intentstream.terminal import LiveView
from tests.unit.intentstream.commands import invoke

USERS = ("[/b]ann", "b\x1b[2Job", ":tea:")
ITEMS = ("[/x]", "[red]tea", "t\x1b[31mcup", "nut", "oil")


def events() -> bytes:
    """Three users take five items in turn; one record is refused, for a time that looks like markup."""
    records = [{"user": USERS[n % 3], "item": ITEMS[n * 7 % 5], "ts": 1_700_000_000_000 + 1000 * n} for n in range(150)]
    return b"\n".join(json.dumps(record).encode() for record in [*records, {**records[0], "ts": "[/z]\x1b[2J"}])


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("printing")
    (folder / "[/events].jsonl").parent.mkdir()
    (folder / "[/events].jsonl").write_bytes(events())
    done = invoke(app, "replay", folder / "[/events].jsonl", "--state", folder / "state", "--no-baselines")
    assert done.exit_code == 0, done.output
    assert "[/events].jsonl: " in done.output
    assert "ts = [/z]" in done.output
    assert "\x1b[2J" not in done.output
    return folder / "state"


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("command", ["recommend", "why"])
def test_a_list_shows_ids_as_they_are(command: str, user: str, state: Path) -> None:
    done = invoke(app, command, user, "--state", state)
    assert done.exit_code == 0, done.output
    assert user.replace("\x1b", "\\x1b") in done.output
    assert "\x1b" not in done.output
    if command == "why":
        assert all(item.replace("\x1b", "\\x1b") in done.output for item in ITEMS)


def test_the_live_view_takes_its_title_as_it_is() -> None:
    out = Console(file=io.StringIO(), width=100, markup=open_console()._markup)
    out.print(LiveView(out, "kafka://[/x]:9092").render())
    assert isinstance(out.file, io.StringIO)
    assert "intentstream kafka://[/x]:9092" in out.file.getvalue()
