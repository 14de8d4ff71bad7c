"""A stream that begins with a fitted model (`--init`): goes on learning, and survives a crash at any moment."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from typer.testing import CliRunner

from intentstream import config_file
from intentstream.cli.app import app
from intentstream.config import Config
from learner.errors import ModelFileError
from learner.model.config import EncoderConfig, IntentConfig, ModelConfig
from learner.model.elcrec import ELCRec
from learner.offline.files import Fitted, save_fitted
from state.errors import StateError
from stream.engine.engine import Engine
from stream.engine.init_model import keep_model, kept_model
from stream.errors import JournalError
from stream.log import EventLog, open_log
from stream.replay.runner import replay
from stream.schema import topics
from stream.sources.files.event_file import EventFile
from stream.worker.verify import verify
from stream.worker.worker import Worker
from tests.unit.stream.streams import as_batches, as_messages, events, small_config

ITEMS = tuple(str(item) for item in range(1, 51))  # the events know ten more


def records(count: int = 300) -> list[bytes]:
    """Events whose items are numbers as text, as a fitted model's are."""
    return [record.replace(b'"i', b'"').replace(b'"tem"', b'"item"') for record in events(count)]


def fitted(folder: Path, seed: int = 3, hidden: int = 16) -> Path:
    model = ModelConfig(
        max_len=10,
        encoder=EncoderConfig(hidden=hidden, layers=1, heads=2),
        intents=IntentConfig(count=4, queue=16),
    )
    made = ELCRec(model, len(ITEMS), torch.Generator().manual_seed(seed)).eval()
    save_fitted(folder, Fitted(made, ITEMS, None, {}))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return fitted(tmp_path / "model")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return small_config(url=f"file://{tmp_path / 'log'}", checkpoint_every_steps=4)


@pytest.fixture
def log(config: Config) -> Iterator[EventLog]:
    with open_log(config.log.url) as opened:
        opened.create_topics(topics.topic_specs(config.log.partitions))
        opened.append(as_messages(records(600)))
        yield opened


def work(config: Config, log: EventLog, state: Path, steps: int, init: Path | None = None) -> str:
    """A worker that vanishes after so many steps; the digest that it had."""
    worker = Worker(config, log, state, init=init)
    try:
        worker.recover()
        for _ in range(steps):
            worker.turn()
        return worker.engine.digest()
    finally:
        worker.close()


def test_the_model_is_where_the_stream_begins(tmp_path: Path, config: Config, model: Path) -> None:
    engine = Engine.open(config, tmp_path / "state", init=model)
    empty = Engine.open(config, tmp_path / "empty")
    try:
        assert engine.gauges()["items"] == len(ITEMS) and empty.gauges()["items"] == 0
        for step, batches in enumerate(as_batches(records(), config.log.partitions, 64), start=1):
            result = engine.step(batches)
            assert ("init" in result.notes) == (step == 1)
            engine.learn(1)
        assert engine.counters["items_admitted"] == engine.gauges()["items"] - len(ITEMS) > 0
        assert engine.model_step > 0
    finally:
        engine.close()
        empty.close()


@pytest.mark.parametrize("steps", [0, 2, 5])
def test_a_worker_that_vanished_needs_no_model_any_more(
    tmp_path: Path, config: Config, log: EventLog, model: Path, steps: int
) -> None:
    digest = work(config, log, tmp_path / "state", steps, model)  # before and after the first checkpoint
    shutil.rmtree(model)
    assert work(config, log, tmp_path / "state", 0) == digest
    work(config, log, tmp_path / "state", 3, model)
    found = verify(config, log, tmp_path / "state", tmp_path / "scratch")
    assert found.difference == "" and found.steps == steps + 3


def test_a_clean_stop_before_the_first_event_keeps_the_beginning(
    tmp_path: Path, config: Config, log: EventLog, model: Path
) -> None:
    worker = Worker(config, log, tmp_path / "state", init=model)
    worker.run(lambda: True)
    worker.close()
    digest = work(config, log, tmp_path / "state", 2)
    assert work(config, log, tmp_path / "other", 0, model) == digest  # rebuilt from the journal and the model


def test_a_lost_state_folder_wants_the_same_model_again(
    tmp_path: Path, config: Config, log: EventLog, model: Path
) -> None:
    digest = work(config, log, tmp_path / "state", 2, model)
    with pytest.raises(JournalError, match=r"begins with the fitted model \w{16}, this is an empty one: give --init"):
        work(config, log, tmp_path / "other", 0)
    with pytest.raises(JournalError, match=r"begins with the fitted model \w{16}, this is \w{16}: give --init"):
        work(config, log, tmp_path / "other", 0, fitted(tmp_path / "second", seed=4))
    with pytest.raises(JournalError, match="give --init the folder"):
        verify(config, log, tmp_path / "other", tmp_path / "scratch")
    assert work(config, log, tmp_path / "other", 0, model) == digest


def test_a_stream_that_began_without_a_model_cannot_get_one(
    tmp_path: Path, config: Config, log: EventLog, model: Path
) -> None:
    digest = work(config, log, tmp_path / "state", 2)
    with pytest.raises(JournalError, match="the journal begins without a fitted model: leave --init out"):
        work(config, log, tmp_path / "state", 0, model)
    assert work(config, log, tmp_path / "state", 0) == digest  # the refusal left nothing behind


def test_another_model_for_a_stream_that_goes_on_is_said_to_be_ignored(
    tmp_path: Path, config: Config, log: EventLog, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        digest = work(config, log, tmp_path / "state", 5, model)
        assert work(config, log, tmp_path / "state", 0, model) == digest
        assert "--init" not in caplog.text
        assert work(config, log, tmp_path / "state", 0, fitted(tmp_path / "second", seed=4)) == digest
    assert "goes on where it was; --init" in caplog.text


def test_a_crash_while_the_model_is_copied_leaves_none(tmp_path: Path, model: Path) -> None:
    state = tmp_path / "state"
    (state / "init.part").mkdir(parents=True)
    (state / "init.part" / "weights.pt").write_bytes(b"half")
    assert kept_model(state) is None
    keep_model(model, state)
    kept = kept_model(state)
    assert kept is not None and not (state / "init.part").exists()
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == {
        path.name: path.read_bytes() for path in model.iterdir()
    }


def test_a_copy_that_cannot_be_made_is_an_error_of_the_state(tmp_path: Path, model: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StateError, match="copying the fitted model"):
        keep_model(model, tmp_path / "state")


def test_a_model_of_another_shape_is_refused_and_leaves_nothing(tmp_path: Path, config: Config, log: EventLog) -> None:
    wide = fitted(tmp_path / "wide", hidden=8)
    with pytest.raises(ModelFileError, match=r"another shape than the configuration: set learner.encoder.hidden = 8$"):
        work(config, log, tmp_path / "state", 0, wide)
    with pytest.raises(ModelFileError, match="no fitted model"):
        work(config, log, tmp_path / "state", 0, tmp_path / "nowhere")
    assert kept_model(tmp_path / "state") is None
    work(config, log, tmp_path / "state", 1)  # the folder is free again, and empty


def test_a_replay_begins_with_it_and_is_continued(tmp_path: Path, config: Config, model: Path) -> None:
    config = replace(config, log=replace(config.log, partitions=1))
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join(records()) + b"\n")

    def run(state: str, after: int | None, init: Path | None) -> dict[str, object]:
        steps = iter(range(1, 10**6))
        return replay(
            config,
            EventFile(path),
            tmp_path / state,
            keep=True,
            step_records=64,
            baselines=False,
            init=init,
            stop=lambda: next(steps) == after,
        )

    whole = run("whole", None, model)
    assert run("broken", 2, model)["digest"] != whole["digest"]
    assert run("broken", None, None)["digest"] == whole["digest"]
    assert run("empty", None, None)["digest"] != whole["digest"]


def test_both_commands_take_it(
    tmp_path: Path, config: Config, log: EventLog, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.close()
    for module in ("replay", "worker"):
        monkeypatch.setattr(f"intentstream.cli.{module}.stop_on_signals", lambda: lambda: True)
        # threads are of this process, which runs other tests too
        monkeypatch.setattr(f"intentstream.cli.{module}.set_threads", lambda count: None)
    settings, path = tmp_path / "small.toml", tmp_path / "events.jsonl"
    settings.write_text(config_file.render(config))
    path.write_bytes(b"\n".join(records(40)) + b"\n")
    for words in (
        ["replay", str(path), "--state", str(tmp_path / "replayed")],
        ["worker", "--state", str(tmp_path / "worked")],
    ):
        done = CliRunner().invoke(app, [*words, "--init", str(model), "--config", str(settings)])
        assert done.exit_code == 0, done.output
        assert kept_model(Path(words[-1])) is not None
