"""Files as people have them: `tests/data/formats/cases.json` holds the arguments and the right counts of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars
import pytest

from stream.errors import SourceError
from stream.schema.decoder import decode_events
from stream.schema.events import ActionsConfig
from stream.sources.files.event_file import EventFile
from stream.sources.files.options import parse_options
from tests.data.formats import make
from tests.unit.intentstream.commands import run_command

DATA = Path(__file__).parents[3] / "data" / "formats"
CASES: list[dict[str, Any]] = json.loads((DATA / "cases.json").read_text())


def opened(case: dict[str, Any]) -> EventFile:
    pairs = zip(case["args"][::2], case["args"][1::2], strict=True)
    options = {name.removeprefix("--").replace("-", "_"): value for name, value in pairs}
    return EventFile(DATA / case["file"], options=parse_options(ActionsConfig().names(), **options))


@pytest.mark.parametrize("case", [c for c in CASES if c["expect"]["rc"] == 0], ids=lambda case: str(case["file"]))
def test_a_file_as_people_have_it_gives_the_right_events(case: dict[str, Any]) -> None:
    file = opened(case)
    decoded = [decode_events(chunk.values, chunk.keys) for chunk in file]
    found = {
        "events": sum(len(part.events) for part in decoded),
        "users": len({user for part in decoded for user in part.events.users}),
        "items": len({item for part in decoded for item in part.events.items}),
        "dead_letters": sum(len(part.rejections) for part in decoded),
    }
    assert found == {name: case["expect"][name] for name in found}
    assert case["expect"].get("says", "") in str(file.format)


@pytest.mark.parametrize("case", [c for c in CASES if c["expect"]["rc"] != 0], ids=lambda case: str(case["file"]))
def test_a_file_that_cannot_be_read_for_sure_is_refused_in_one_line(case: dict[str, Any]) -> None:
    with pytest.raises(SourceError) as caught:
        opened(case)
    assert "\n" not in str(caught.value) and case["expect"]["says"] in str(caught.value)


def test_a_column_of_events_is_the_action_so_dislikes_are_not_scored(tmp_path: Path) -> None:
    from intentstream.cli.app import app

    report = tmp_path / "report.json"
    run_command(app, "replay", DATA / "dislikes_in_event.csv", "--no-baselines", "--report", report)
    found = json.loads(report.read_text())
    assert found["events"] == 60 and found["prequential"]["n"] == 0


def test_dropped_values_are_reported(tmp_path: Path) -> None:
    from intentstream.cli.app import app

    report = tmp_path / "report.json"
    shown = run_command(app, "replay", DATA / "decimal_comma.csv", "--no-baselines", "--report", report)
    assert "values dropped 60" in " ".join(shown.split())
    assert json.loads(report.read_text())["values_dropped"] == 60


def test_the_files_are_what_their_script_writes() -> None:
    made = make.text_files() | make.packed_files()
    frames = make.parquet_frames()
    assert {path.name for path in DATA.iterdir() if path.suffix not in (".py", ".json") and path.is_file()} == {
        *made,
        *frames,
    }
    assert [name for name, data in made.items() if (DATA / name).read_bytes() != data] == []
    assert [name for name, frame in frames.items() if not polars.read_parquet(DATA / name).equals(frame)] == []
    assert {case["file"] for case in CASES} == {*made, *frames}
