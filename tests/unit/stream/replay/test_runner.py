"""What a replay does around the engine: going on, refusing, reporting."""

from __future__ import annotations

import gzip
import io
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from intentstream import config_file
from intentstream.cli.app import app
from intentstream.cli.replay import report_table
from state.errors import StateError, StateInUse
from stream.errors import EngineError, SourceError
from stream.log import open_log
from stream.log.base import Message
from stream.replay.report import RejectionCounts
from stream.replay.runner import FileTruncated, NoEvents, replay
from stream.schema import topics
from stream.sources.files.event_file import EventFile
from stream.worker.worker import Worker
from tests.unit.intentstream.commands import run_command
from tests.unit.stream.streams import START_MS, as_messages, events, small_config

STEP = 64


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of 400 records: six whole steps and a short one."""
    return written(tmp_path / "events.jsonl", events(400))


def written(path: Path, records: list[bytes]) -> Path:
    path.write_bytes(b"\n".join(records) + b"\n")
    return path


def run(file: Path, state: Path, limit: int | None = None, **more: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {"keep": True, "step_records": STEP, "baselines": False} | more
    return replay(asked.pop("config", small_config(1)), EventFile(file, limit), state, **asked)


@pytest.mark.parametrize("limits", [(100, None), (20, 30, 300, None), (64, None), (None, None)])
def test_runs_one_after_the_other_give_the_bits_of_one(tmp_path: Path, file: Path, limits: tuple[int | None]) -> None:
    whole = run(file, tmp_path / "whole")
    for limit in limits:
        part = run(file, tmp_path / "parts", limit)
        assert part["digest"] == run(file, tmp_path / f"fresh{limit}", limit)["digest"]
    for name in ("events", "duplicates", "dead_letters", "digest"):
        assert part[name] == whole[name]


def test_a_damaged_checkpoint_before_a_short_step_is_passed_over(tmp_path: Path, file: Path) -> None:
    run(file, tmp_path / "state", 260)  # checkpoints after 3, 4 and, short, 5 steps
    (tmp_path / "state" / "checkpoints" / "000000000004" / "manifest.json").unlink()
    assert run(file, tmp_path / "state")["digest"] == run(file, tmp_path / "whole")["digest"]


def test_a_folder_is_one_replay_s_at_a_time(tmp_path: Path, file: Path) -> None:
    def second() -> bool:
        with pytest.raises(StateInUse, match="another folder"):
            run(file, tmp_path / "state")
        return True

    run(file, tmp_path / "state", stop=second)
    run(file, tmp_path / "state")


def test_a_worker_s_folder_is_refused_untouched(tmp_path: Path, file: Path) -> None:
    config = small_config(1, url=str(tmp_path / "log"))
    with open_log(config.log.url) as log:
        log.create_topics(topics.topic_specs(1))
        log.append(as_messages(events(20)))
        worker = Worker(config, log, tmp_path / "state")
        worker.run(iter([False, True]).__next__)
        worker.close()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SourceError, match="belongs to a worker"):
        run(file, tmp_path / "state")
    assert sorted(tmp_path.rglob("*")) == before


def test_another_file_with_the_same_beginning_is_refused(tmp_path: Path) -> None:
    records = events(800)
    state = tmp_path / "state"
    run(written(tmp_path / "a.jsonl", records[:700]), state)
    changed = [*records[:600], records[0], *records[601:]]
    for other in (changed, records[:200]):
        with pytest.raises(SourceError, match="640 records of another file"):
            run(written(tmp_path / "b.jsonl", other), state)
    with pytest.raises(SourceError, match="holds 640 records already: give a larger --limit"):
        run(tmp_path / "a.jsonl", state, 300)
    with pytest.raises(SourceError, match="in steps of 64 records, not 32"):
        run(tmp_path / "a.jsonl", state, step_records=32)
    assert max(path.name for path in (state / "checkpoints").iterdir()) == "000000000011"  # refusing took nothing away
    grown = tmp_path / "grown.jsonl.gz"
    grown.write_bytes(gzip.compress(b"\n".join(records)))
    assert run(grown, state)["digest"] == run(grown, tmp_path / "whole")["digest"]


@pytest.mark.parametrize("damage", [b"", b"{", b'{"head": "1", "step_records": 64}'])
def test_a_damaged_mark_is_said(tmp_path: Path, file: Path, damage: bytes) -> None:
    run(file, tmp_path / "state", 64)
    (tmp_path / "state" / "replay.json").write_bytes(damage)
    with pytest.raises(SourceError, match="replay.json: is damaged, or of an earlier version"):
        run(file, tmp_path / "state")


def test_a_folder_that_cannot_be_is_said(tmp_path: Path, file: Path) -> None:
    for state in (file, file / "below"):
        with pytest.raises(StateInUse, match="cannot be written"):
            run(file, state)
    (tmp_path / "state" / "replay.json.part").mkdir(parents=True)
    with pytest.raises(StateError, match=r"writing the mark .* Is a directory"):
        run(file, tmp_path / "state")


def test_what_can_be_read_of_a_broken_file_is_kept_and_reported(tmp_path: Path) -> None:
    records, state = events(400), tmp_path / "state"
    file = tmp_path / "events.jsonl.gz"
    whole = gzip.compress(b"\n".join(records) + b"\n")
    file.write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.raises(
        FileTruncated, match=r"cannot be read on after record \d+: .*; the figures are of the part"
    ) as checkpoint:
        run(file, state)
    taken = checkpoint.value.report["records"]
    assert 200 < taken < 400
    plain = written(tmp_path / "plain.jsonl", records[:taken])
    assert checkpoint.value.report["digest"] == run(plain, tmp_path / "part")["digest"]
    file.write_bytes(whole[: len(whole) // 4])
    with pytest.raises(SourceError, match="cannot be read on"):
        run(file, state)
    file.write_bytes(whole)
    assert run(file, state)["digest"] == run(file, tmp_path / "whole")["digest"]


@pytest.mark.parametrize("every", [0, 1, 3])
def test_the_baselines_are_compared_on_the_events_of_the_model(tmp_path: Path, file: Path, every: int) -> None:
    report = run(file, tmp_path / "state", config=small_config(1, evaluate_every=every), baselines=True)
    for figures in report["baselines"].values():
        assert figures["n"] == report["prequential"]["n"]
    assert (report["prequential"]["n"] > 0) == (every > 0)
    assert [cell for cell in table_row(report, "popular") if cell == "-"] == ["-"] * (0 if every else 6)


def table_row(report: dict[str, Any], name: str) -> list[str]:
    console = Console(file=io.StringIO(), width=200, record=True)
    console.print(report_table(report))
    return next(line for line in console.export_text().splitlines() if name in line).replace("│", " ").split()


def test_dead_letters_are_told_by_reason_with_the_first(tmp_path: Path) -> None:
    records = [record for record in events(200) if b'"item": ""' not in record]
    records[10] = b'{"user": "u1", "item": "i1", "ts": "[red]monday"}'
    records[20] = b'{"user": "", "item": "i1", "ts": 1700000000000}'
    records[-1] = b"no JSON"
    file = written(tmp_path / "a.jsonl", records)
    run(file, tmp_path / "state", 100)
    for state in ("state", "fresh"):  # going on tells the same: the report is of the whole file
        report = run(file, tmp_path / state)
        assert sum(report["dead_letters_by_reason"].values()) == report["dead_letters"] == 3
        assert report["dead_letters_by_reason"]["bad_id"] == 1
        assert report["first_dead_letter"]["record"] == 10
        assert report["first_dead_letter"]["field"] == "ts"
        assert report["first_dead_letter"]["line"] == records[10].decode()
        row = " ".join(table_row(report, "the first is record 10"))
        assert "bad_id 1" in row and "[red]monday" in row and report["first_dead_letter"]["rule"] in row
    good = run(written(tmp_path / "b.jsonl", records[:10]), tmp_path / "good")
    assert good["dead_letters_by_reason"] == {} and good["first_dead_letter"] is None


def test_a_dead_letter_of_a_file_holds_the_bytes_of_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    letters: list[Message] = []
    monkeypatch.setattr(RejectionCounts, "count", lambda self, messages: letters.extend(messages))
    lines = [b'{"user_id":"u%d","item_id":"i1","time":%d}' % (n, 1_700_000_000 + n) for n in range(20)]
    lines[3] = b'{"user_id":"", "item_id":"i1",  "time":1700000000, "colour":1}'
    lines[9] = b'{"user_id":"u1", "item_id":"i1", "time":1700000000, "colour":1}'
    lines[12] = b'{"user_id":"u1", "item_id":"i1", "time":"monday"}'
    rows = [b"user,item,ts"] + [b"u%d,i1,%d" % (n, 1_700_000_000 + n) for n in range(20)]
    rows[5], rows[7], rows[9] = b",i1,1700000000", b"u1,i1,monday", b'"u1,i1'
    for name, records, expected in (("a.jsonl", lines, [3, 12]), ("a.csv", rows, [5, 7, 9])):
        letters.clear()
        report = run(written(tmp_path / name, records), tmp_path / name[2:])
        values = [letter.value for letter in letters if letter.topic == topics.DEAD_LETTERS]
        assert values == [records[place] for place in expected]
        assert report["unknown_fields"] == (1 if name == "a.jsonl" else 0)
        assert ("unknown fields 1" in " ".join(table_row(report, "dead letters"))) == (name == "a.jsonl")


@pytest.mark.parametrize(
    ("name", "lines", "rule"),
    [
        ("a.csv", [b"user,item,ts", b"u1,i1,1700000000", b"u1"], "3 cells separated by commas"),
        ("a.tsv", [b"user\titem\tts", b"u1\ti1\t1700000000", b"u\t1\t2\t3"], "3 cells separated by tabs"),
        ("r.dat", [b"1::2::3::1700000000"] * 3 + [b"1::2"], "4 cells separated by double colons"),
        ("e.txt", [b"1 2 3", b"2 3", b"7"], "a user and at least one item, separated by blanks"),
        ("a.jsonl", [b'{"user":1,"item":2,"ts":1700000000000}', b"[1]"], "a JSON object"),
    ],
)
def test_a_line_that_is_no_row_is_told_by_what_it_must_be(
    tmp_path: Path, name: str, lines: list[bytes], rule: str
) -> None:
    first = run(written(tmp_path / name, lines), tmp_path / "state")["first_dead_letter"]
    assert (first["line"], first["rule"]) == (lines[-1].decode(), rule)


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("a.csv", [b"user,item,ts,action", *(b"u%d,i1,%d," % (n, START_MS) for n in range(3)), b"u1,,,erase"]),
        (
            "a.jsonl",
            [*(b'{"uid":%d,"item":"a","ts":%d}' % (n, START_MS) for n in range(3)), b'{"uid":1,"action":"erase"}'],
        ),
    ],
)
def test_a_file_may_ask_to_erase_a_user(tmp_path: Path, name: str, lines: list[bytes]) -> None:
    report = run(written(tmp_path / name, lines), tmp_path / "state", step_records=3)
    assert (report["events"], report["erased"], report["dead_letters"]) == (3, 1, 0)
    assert "erased 1" in " ".join(table_row(report, "dead letters"))


def test_the_baselines_forget_whom_the_model_forgets(tmp_path: Path) -> None:
    """The first twenty events come again when their users are forgotten: no duplicates then."""
    day = 24 * 3600 * 1000
    config = small_config(1)
    config = msgspec.structs.replace(config, state=msgspec.structs.replace(config.state, history_ttl_ms=day))
    records = [b'{"user":"u%d","item":"i1","ts":%d}' % (n, START_MS + n) for n in range(20)]
    records += [b'{"user":"v%d","item":"i%d","ts":%d}' % (n % 50, n % 60, START_MS + 4 * day + n) for n in range(600)]
    file = written(tmp_path / "a.jsonl", records + records[:20])
    report = run(file, tmp_path / "state", config=config, step_records=512, baselines=True)
    assert report["duplicates"] == 0
    assert report["baselines"]["popular"]["n"] == report["prequential"]["n"]


def test_a_full_vocabulary_is_told(tmp_path: Path, file: Path) -> None:
    config = small_config(1)
    small = msgspec.structs.replace(config, learner=msgspec.structs.replace(config.learner, capacity=30))
    report = run(file, tmp_path / "small", config=small)
    assert report["items"] == 30 and report["items_recycled"] > 100
    row = " ".join(table_row(report, "recycled"))
    assert row == f"items recycled {report['items_recycled']}: learner.capacity holds 30 at a time"
    assert run(file, tmp_path / "large")["items_recycled"] == 0


# -- from the command line --------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration file with a small model."""
    for module in ("replay", "run", "user", "worker"):  # threads are of this process, which runs other tests too
        monkeypatch.setattr(f"intentstream.cli.{module}.set_threads", lambda count: None)
    path = tmp_path / "small.toml"
    path.write_text(config_file.render(small_config(1)))
    return path


def test_a_report_is_also_written_of_a_part(
    tmp_path: Path, small: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.json"
    words: list[str | Path] = ["--step-records", str(STEP), "--config", small]
    broken = tmp_path / "broken.gz"
    broken.write_bytes(gzip.compress(file.read_bytes())[:-1000])
    with pytest.raises(FileTruncated):
        run_command(app, "replay", broken, "--report", report, *words)
    assert 0 < json.loads(report.read_text())["records"] < 400
    monkeypatch.setattr("intentstream.cli.replay.stop_on_signals", lambda: lambda: True)
    shown = run_command(app, "replay", file, *words)
    assert "stopped at record 64: the figures are of the part before" in shown
    shown = run_command(app, "replay", file, "--state", tmp_path / "state", *words)
    assert "stopped at record 64: the same command goes on" in shown
    monkeypatch.setattr("intentstream.cli.replay.stop_on_signals", lambda: lambda: False)
    assert "stopped at" not in run_command(app, "replay", file, "--limit", "20", *words)


def test_files_that_cannot_be_written_stop_the_command_before_anything_is_done(tmp_path: Path, file: Path) -> None:
    for path in (tmp_path, file / "below", tmp_path / "none" / "report.json"):
        with pytest.raises(SourceError, match="cannot be written"):
            run_command(app, "replay", file, "--state", tmp_path / "state", "--report", path)
        with pytest.raises(SourceError, match="cannot be written"):
            run_command(app, "simulate", "--log", tmp_path / "log", "--limit", "10", "--truth", path)
    assert sorted(tmp_path.iterdir()) == [file]


def test_a_worker_begins_on_a_folder_that_is_not_there_yet(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intentstream.cli.worker.stop_on_signals", lambda: lambda: True)
    log = f"file://{tmp_path}/log"
    assert "stopped after step 0" in run_command(
        app, "worker", "--log", log, "--state", tmp_path / "state", "--config", small
    )


def test_recommend_answers_from_a_replay_s_folder_whatever_the_partitions(
    tmp_path: Path, small: Path, file: Path
) -> None:
    small.write_text(config_file.render(small_config(4)))
    run_command(app, "replay", file, "--state", tmp_path / "state", "--config", small)
    words = ("--state", tmp_path / "state", "--config", small)
    assert "u1: intent" in run_command(app, "recommend", "u1", *words)
    with pytest.raises(EngineError, match=r"user id 'u\\udcff': is not UTF-8"):
        run_command(app, "recommend", "u\udcff", *words)


def test_a_limit_of_nothing_is_refused_in_one_line(tmp_path: Path, file: Path) -> None:
    for words in (("simulate", "--log", tmp_path / "log"), ("replay", file)):
        with pytest.raises(SourceError, match="limit 0: must be at least 1"):
            run_command(app, *words, "--limit", "0")


def test_run_without_a_terminal_says_where_the_page_is(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("intentstream.cli.run.stop_on_signals", lambda: lambda: True)
    monkeypatch.setattr("intentstream.cli.run.serve_page", lambda chosen, folder: nullcontext("http://127.0.0.1:8050"))
    shown = run_command(app, "run", "--dir", tmp_path / "var", "--config", small)
    assert "the page and the HTTP API: http://127.0.0.1:8050\n" in shown


def test_a_replay_forgets_nobody_unless_told(tmp_path: Path, small: Path) -> None:
    """The events lie 116 days apart: the 90 days of a live stream would leave nothing to score."""
    file = written(tmp_path / "a.csv", [b"user,item,ts", b"b,y,1599999999", b"a,x,1600000000", b"a,y,1610000000"])
    report = tmp_path / "report.json"
    words: list[str | Path] = [file, "--config", small, "--step-records", "1", "--report", report]
    run_command(app, "replay", *words, "--state", tmp_path / "state")
    assert json.loads(report.read_text())["prequential"]["n"] == 1
    assert "a: intent" in run_command(app, "recommend", "a", "--state", tmp_path / "state", "--config", small)
    run_command(app, "replay", *words, "--ttl", "90")
    found = json.loads(report.read_text())
    assert found["prequential"]["n"] == 0
    assert found["users"] == 2  # a comes back after being forgotten, and is one user
    with pytest.raises(SourceError, match="holds a replay with another --ttl: leave --ttl out, or --state another"):
        run_command(app, "replay", *words, "--ttl", "90", "--state", tmp_path / "state")


def test_a_replay_without_any_event_is_an_error_with_a_report(tmp_path: Path) -> None:
    records = [b'{"user":"","item":"i%d","ts":1700000000000}' % n for n in range(21)]
    file = written(tmp_path / "a.jsonl", records)
    with pytest.raises(
        NoEvents, match=r"a.jsonl: none of its 21 records is an event: user = '': 1 to 256 bytes"
    ) as caught:
        run(file, tmp_path / "state")
    assert caught.value.report["dead_letters"] == 21


def test_an_event_of_the_future_is_a_dead_letter(tmp_path: Path) -> None:
    """One such event would make the later ones late."""
    now, hour = START_MS + 1_000_000, 3_600_000
    times = [START_MS, now + 23 * hour, now + 25 * hour, START_MS + 1]
    records = [b'{"user":"u%d","item":"i1","ts":%d}' % (n, ts) for n, ts in enumerate(times)]
    report = run(written(tmp_path / "a.jsonl", records), tmp_path / "state", now_ms=now, baselines=True)
    assert (report["events"], report["dead_letters_by_reason"]) == (3, {"bad_ts": 1})
    assert report["first_dead_letter"]["record"] == 2
    assert run(tmp_path / "a.jsonl", tmp_path / "unbounded")["events"] == 4
    far = written(tmp_path / "b.csv", [b"user,item,ts", b"a,x,1700000000", b"a,y,4070908800"])
    found = tmp_path / "report.json"
    run_command(app, "replay", far, "--no-baselines", "--report", found)
    assert json.loads(found.read_text())["dead_letters_by_reason"] == {"bad_ts": 1}
