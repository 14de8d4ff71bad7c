"""`tune` as typed: a file of events in, a configuration file out that `--config` reads; always bounded."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from intentstream import config_file
from intentstream.cli import tune
from intentstream.cli.app import app
from intentstream.cli.tune import record
from intentstream.config import Config, load_config
from learner.offline.tuning import MOST_TRIALS
from stream.errors import ConfigError, SourceError
from stream.sources.files.event_file import EventFile
from tests.unit.intentstream.commands import run_command
from tests.unit.stream.streams import START_MS, events, small_config


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join(events(400)) + b"\n")
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    config = small_config()
    threads = msgspec.structs.replace(config.learner, threads=1)
    path.write_text(config_file.render(msgspec.structs.replace(config, learner=threads)))
    return path


def run(*words: str | Path) -> str:
    return run_command(app, "tune", *words)


def test_what_is_written_is_a_configuration(tmp_path: Path, file: Path, settings: Path) -> None:
    out = tmp_path / "tuned.toml"
    shown = run(file, "--out", out, "--config", settings, "--trials", "4")
    base, found = load_config(settings), load_config(out)
    assert msgspec.structs.replace(found, learner=base.learner) == base
    kept = [line for line in shown.splitlines() if "kept" in line]
    assert len(kept) >= 1 and "defaults" in kept[0]
    assert (found.learner == base.learner) == (len(kept) == 1)
    assert "after 4 runs" in out.read_text() and f"written: {out}" in shown


def test_the_same_search_finds_the_same(tmp_path: Path, file: Path, settings: Path) -> None:
    texts = []
    for name in ("a.toml", "b.toml"):
        run(file, "--out", tmp_path / name, "--config", settings, "--trials", "3")
        texts.append((tmp_path / name).read_text())
    assert texts[0] == texts[1]


def test_the_limit_bounds_what_is_read(tmp_path: Path, file: Path, settings: Path) -> None:
    run(file, "--out", tmp_path / "tuned.toml", "--config", settings, "--trials", "1", "--limit", "200")
    events_used = int((tmp_path / "tuned.toml").read_text().split("Tuned on ")[1].split()[0])
    assert 150 < events_used < 200


def test_time_ends_the_search_with_what_was_found(
    tmp_path: Path, file: Path, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: float(next(now)))  # one second per step of 256 events
    monkeypatch.setattr(tune, "time", clock)
    shown = run(file, "--out", tmp_path / "tuned.toml", "--config", settings, "--seconds", "3")
    assert "after 1 runs" in (tmp_path / "tuned.toml").read_text() and "defaults" in shown
    now = itertools.count()
    with pytest.raises(ConfigError, match="--seconds 1: not enough for one run over .* or lower --limit"):
        run(file, "--out", tmp_path / "none.toml", "--config", settings, "--seconds", "1")
    assert not (tmp_path / "none.toml").exists()


def test_events_come_in_order_of_time_without_dislikes(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    rows = [f"u{n % 7},i{n % 13},{START_MS - n * 1000},{'dislike' if n % 10 == 0 else 'cart'}" for n in range(150)]
    path.write_text("user,item,ts,action\n" + "\n".join(rows) + "\nbroken\n")
    stream, said = record(EventFile(path), Config())
    assert len(stream) == 135 and (np.diff(stream.ts) > 0).all()
    assert stream.ts[-1] == START_MS - 1000 and set(stream.weights.tolist()) == {2.0}
    assert "135 events of 7 users on 13 items; left out: 1 bad records, 15 dislikes" in said


def test_what_cannot_be_tuned_on_is_refused(tmp_path: Path, file: Path, settings: Path) -> None:
    with pytest.raises(SourceError, match=r"18 events to tune on \(1 bad records\), expected 100 or more"):
        run(file, "--out", tmp_path / "t.toml", "--limit", "20")
    with pytest.raises(SourceError, match="limit 0: must be at least 1"):
        run(file, "--out", tmp_path / "t.toml", "--limit", "0")
    with pytest.raises(ConfigError, match="no folder .*away: make it"):
        run(file, "--out", tmp_path / "away" / "t.toml")
    with pytest.raises(ConfigError, match="is a folder: name a file in it"):
        run(file, "--out", tmp_path)
    small = tmp_path / "tight.toml"
    small.write_text("[learner]\ncapacity = 5\n")
    with pytest.raises(ConfigError, match="items, learner.capacity is 5: raise it, or lower --limit"):
        run(file, "--out", tmp_path / "t.toml", "--config", small)


def test_trials_are_bounded(file: Path) -> None:
    result = CliRunner().invoke(app, ["tune", str(file), "--trials", str(MOST_TRIALS + 1)])
    assert result.exit_code == 2


def test_a_file_is_read_by_the_options_of_replay(tmp_path: Path, settings: Path) -> None:
    path = tmp_path / "log.csv"
    rows = [f"c{n % 7},p{n % 13},{START_MS + n * 1000},{'minus' if n % 10 == 0 else 'plus'}" for n in range(200)]
    path.write_text("who,what,when,did\n" + "\n".join(rows) + "\n")
    out = tmp_path / "tuned.toml"
    common = (path, "--out", out, "--config", settings, "--trials", "1")
    with pytest.raises(SourceError, match="no column for user"):
        run(*common)
    columns = "user=who,item=what,ts=when,action=did"
    words = run(*common, "--columns", columns, "--actions", "plus=view,minus=dislike").split()
    shown = " ".join(words)
    assert "180 events of 7 users on 13 items" in shown and "20 dislikes" in shown
