"""State folders of this release and of earlier formats: what must survive does, the rest starts anew in one line."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from intentstream.config import Config, load_config
from learner.online.persistence import StoredLearner, read
from state.checkpoints import CheckpointStore
from state.manifest import MANIFEST, Manifest, list_files
from stream.engine import migrations
from stream.engine.engine import Engine
from stream.engine.migrations import CONVERTERS, STATE_FORMAT, StoredState
from stream.errors import StateMismatch
from stream.log import open_log
from stream.schema import topics
from stream.worker.journal import journal_end
from stream.worker.verify import verify
from stream.worker.worker import Worker
from tests.data.state import make
from tests.unit.stream.streams import as_messages, events
from tests.unit.stream.worker.test_worker import drain

FOLDERS = sorted(make.HERE.glob("format-*.tar.gz"))
NEWEST = make.HERE / f"format-{STATE_FORMAT}.tar.gz"


def unpacked(archive: Path, folder: Path) -> tuple[Config, dict[str, Any]]:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    config = load_config(folder / "config.toml", log_url=f"file://{folder}/log")
    return config, json.loads((folder / "expected.json").read_text())


def survivors(found: dict[str, Any]) -> dict[str, Any]:
    """Without the counters, of which a release may have more, and what the ranking says."""
    return {name: value for name, value in found.items() if name not in ("counters", "popular")}


def change_newest_checkpoint(
    state: Path, values: Callable[[dict[str, Any]], None], learner: Callable[[StoredLearner], None] = lambda _: None
) -> None:
    """Write other values and other learner files into the checkpoint, with checksums that fit."""
    checkpoint = CheckpointStore(state / "checkpoints").peek()
    assert checkpoint is not None
    folder, stored, manifest = checkpoint.path, read(checkpoint.path / "learner"), dict(checkpoint.manifest)
    values(manifest)
    learner(stored)
    torch.save(stored.tensors, folder / "learner" / "network.pt")
    np.savez(folder / "learner" / "arrays.npz", allow_pickle=False, **stored.arrays)
    (folder / "learner" / "learner.json").write_text(json.dumps(stored.small))
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).write_bytes(Manifest(checkpoint.step, manifest, list_files(folder, {})).encode())


def test_this_release_has_its_folder() -> None:
    assert NEWEST in FOLDERS
    assert all(archive.stat().st_size < 300_000 for archive in FOLDERS)


@pytest.mark.parametrize("archive", FOLDERS, ids=lambda path: path.name)
def test_a_state_folder_of_every_format_is_opened_and_goes_on(archive: Path, tmp_path: Path) -> None:
    config, expected = unpacked(archive, tmp_path)
    checkpoint = CheckpointStore(tmp_path / "state" / "checkpoints").latest()
    engine = Engine(config, tmp_path / "apart", CheckpointStore(tmp_path / "none"), checkpoint)
    assert survivors(make.known(engine)) == survivors(expected["checkpoint"])
    engine.close()
    with open_log(config.log.url) as log:
        worker = Worker(config, log, tmp_path / "state")
        assert worker.recover() == 1
        found = make.known(worker.engine)
        assert {name: user["items"] for name, user in found["users"].items()} == {
            name: user["items"] for name, user in expected["journal"]["users"].items()
        }
        assert found["items"] == expected["journal"]["items"]
        assert found["clocks"] == expected["journal"]["clocks"]
        log.append(as_messages(events(200, seed=1, users=20, items=40)))
        drain(worker, log)
        assert worker.engine.learner.size > expected["journal"]["items"]
        worker.checkpoint()
        digest = worker.engine.digest()
        worker.close()
        again = Worker(config, log, tmp_path / "state")
        assert again.recover() == 0 and again.engine.digest() == digest
        again.close()
        compared = verify(config, log, tmp_path / "state", tmp_path / "scratch")
        assert compared.checkpoint_step == again.engine.step_number
        assert journal_end(log) >= compared.steps


def to_an_older_format(values: dict[str, Any]) -> None:
    """As if the release before had another name for the step."""
    values["engine"]["format"] = STATE_FORMAT - 1
    values["engine"]["step_number"] = values["engine"].pop("step")


def test_converters_lead_from_an_older_format_to_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, expected = unpacked(NEWEST, tmp_path)
    change_newest_checkpoint(tmp_path / "state", to_an_older_format)
    with pytest.raises(StateMismatch, match=f"state format {STATE_FORMAT - 1}, the oldest that this release reads is"):
        Engine.open(config, tmp_path / "state")

    def convert(stored: StoredState) -> None:
        stored.engine["step"] = stored.engine.pop("step_number")

    monkeypatch.setitem(CONVERTERS, STATE_FORMAT - 1, convert)
    engine = Engine.open(config, tmp_path / "state")
    assert survivors(make.known(engine)) == survivors(expected["checkpoint"])
    engine.close()


def test_converters_follow_each_other_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def convert(stored: StoredState) -> None:
        stored.engine["seen"].append(stored.engine["format"])

    for number in (STATE_FORMAT - 2, STATE_FORMAT - 1):
        monkeypatch.setitem(CONVERTERS, number, convert)
    learner = StoredLearner(tmp_path, {}, {}, {})
    first = STATE_FORMAT - 2
    stored = migrations.migrated(StoredState(tmp_path, first, {"format": first, "seen": []}, {}, learner))
    assert stored.engine == {"format": STATE_FORMAT, "seen": [STATE_FORMAT - 2, STATE_FORMAT - 1]}


@pytest.mark.parametrize("number", [STATE_FORMAT + 1, 10**9])
def test_a_newer_format_is_refused_with_what_to_do(number: int, tmp_path: Path) -> None:
    config, _ = unpacked(NEWEST, tmp_path)
    change_newest_checkpoint(tmp_path / "state", lambda values: values["engine"].update(format=number))
    with pytest.raises(StateMismatch, match=f"state format {number}, this release reads up to {STATE_FORMAT}: run"):
        Engine.open(config, tmp_path / "state")


@pytest.mark.parametrize("number", [None, "5", -1, 0])
def test_a_format_that_no_release_had_is_refused(number: Any, tmp_path: Path) -> None:
    config, _ = unpacked(NEWEST, tmp_path)
    change_newest_checkpoint(tmp_path / "state", lambda values: values["engine"].update(format=number))
    with pytest.raises(StateMismatch, match="the oldest that this release reads"):
        Engine.open(config, tmp_path / "state")


def widen_centers(stored: StoredLearner) -> None:
    name = next(name for name in stored.tensors if name.startswith("centers."))
    stored.tensors[name] = torch.cat([stored.tensors[name], stored.tensors[name]])


def rename_a_layer(stored: StoredLearner) -> None:
    name = next(name for name in sorted(stored.tensors) if name.startswith("encoder."))
    stored.tensors[f"{name}_of_before"] = stored.tensors.pop(name)


def narrow_items(stored: StoredLearner) -> None:
    stored.tensors["table"] = stored.tensors["table"][:, :8].clone()


def other_ranking(stored: StoredLearner) -> None:
    name = next(name for name in sorted(stored.arrays) if name.startswith("mix.") and stored.arrays[name].ndim == 2)
    stored.arrays[name] = stored.arrays[name][:, :-1]


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (widen_centers, "centers."),
        (rename_a_layer, "encoder."),
        (narrow_items, "table"),
        (other_ranking, "weights of the ranking"),
    ],
)
def test_a_part_of_the_network_that_does_not_fit_starts_anew_and_everything_else_goes_on(
    harm: Callable[[StoredLearner], None], named: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, expected = unpacked(NEWEST, tmp_path)
    change_newest_checkpoint(tmp_path / "state", lambda _: None, harm)
    with open_log(config.log.url) as log:
        worker = Worker(config, log, tmp_path / "state")
        assert survivors(make.known(worker.engine)) == survivors(expected["checkpoint"])
        told = [record.getMessage() for record in caplog.records if "start anew" in record.getMessage()]
        assert len(told) == 1 and named in told[0]
        worker.recover()
        log.append(as_messages(events(100, seed=1, users=20, items=40)))
        drain(worker, log)
        worker.checkpoint()
        digest = worker.engine.digest()
        worker.close()
        caplog.clear()
        again = Worker(config, log, tmp_path / "state")
        assert again.engine.digest() == digest
        assert "start anew" not in caplog.text
        again.close()


def test_intents_that_end_with_their_centers_are_taken_off_the_catalog_and_their_ids_never_come_again(
    tmp_path: Path,
) -> None:
    config, _ = unpacked(NEWEST, tmp_path)
    before = Engine.open(config, tmp_path / "state")
    old = {info.intent for info in before.learner.catalog()}
    before.close()
    change_newest_checkpoint(tmp_path / "state", lambda _: None, widen_centers)
    engine = Engine.open(config, tmp_path / "state")
    assert old and not old & {info.intent for info in engine.learner.catalog()}
    messages = engine.intents.catalog(engine.event_number, 0, 1)
    assert {int(m.key or b"") for m in messages if m.topic == topics.INTENT_CATALOG and m.value is None} >= old
    engine.close()


def test_the_network_of_an_older_format_may_have_another_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Defaults change from release to release; within one, another shape is a mistake and refused."""
    config, expected = unpacked(NEWEST, tmp_path)
    replace = msgspec.structs.replace
    encoder = replace(config.learner.encoder, hidden=32)
    other = replace(config, learner=replace(config.learner, encoder=encoder))
    with pytest.raises(StateMismatch, match="made with learner.encoder.hidden = 16"):
        Engine.open(other, tmp_path / "state")
    monkeypatch.setitem(CONVERTERS, STATE_FORMAT - 1, lambda stored: None)
    change_newest_checkpoint(tmp_path / "state", lambda values: values["engine"].update(format=STATE_FORMAT - 1))
    engine = Engine.open(other, tmp_path / "state")
    assert survivors(make.known(engine)) == survivors(expected["checkpoint"])
    assert caplog.text.count("start anew") == 1
    engine.close()
