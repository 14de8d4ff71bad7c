"""Shifts with their cause, the catalogue, episodes and actions as the engine has them; and what a replay tells."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from intentstream.cli.app import app
from intentstream.config import Config
from learner.drift.episodes import ActiveActions
from learner.intents.tracker import IntentView
from learner.online.trial import Trial
from stream.engine.engine import Engine, StepResult
from stream.log import open_log
from stream.replay.runner import replay
from stream.schema import topics
from stream.schema.messages import IntentShift
from stream.sources.files.event_file import EventFile
from stream.worker.worker import Worker
from tests.unit.stream.streams import START_MS, as_batches, as_messages, events, small_config

ACTIONS = ["more_steps", "higher_rate", "fresh_replay", "faster_decay", "fade_followers", "more_followers", "reseed"]


def acting_config(**drift: Any) -> Config:
    """A configuration in which an episode opens a few hundred records after the change that `changing` makes."""
    config = small_config(1)
    settings: dict[str, Any] = {
        "signals": {"new_items": "page_hinkley", "dead_letters": "page_hinkley"},
        "actions": {"new_items": ACTIONS},
        "bin_events": 32,
        "warm_up": 20,
        "quiet_events": 320,
        "cooldown_events": 64,
        "action_events": 200,
        "longest_events": 2000,
    }
    return msgspec.structs.replace(config, drift=msgspec.structs.replace(config.drift, **(settings | drift)))


def changing(before: int = 800, after: int = 700) -> list[bytes]:
    """Records of a shop in which many items are new from `before` on."""
    records = [record for record in events(before) if b'"item": ""' not in record]
    for number in range(after):
        item = f"new{number}" if number < 600 and number % 2 else f"i{number % 60}"
        ts = START_MS + 10_000_000 + number * 1000
        records.append(json.dumps({"user": f"u{number % 40}", "item": item, "ts": ts}).encode())
    return records


def steps(engine: Engine, records: list[bytes], step: int = 32) -> Iterator[StepResult]:
    for batches in as_batches(records, engine.config.log.partitions, step):
        result = engine.step(batches)
        yield result
        engine.learn(engine.plan_learning(result.records, 0))


def alerts(results: list[StepResult]) -> list[dict[str, Any]]:
    messages = [m for result in results for m in result.messages if m.topic == topics.DRIFT_ALERTS]
    return [json.loads(message.value or b"") for message in messages]


def test_an_episode_is_one_alert_at_its_start_and_one_at_its_end(tmp_path: Path) -> None:
    engine = Engine.open(acting_config(), tmp_path)
    results, accepted = [], [0]
    for result in steps(engine, changing()):
        results.append(result)
        accepted.append(engine.counters["events"])
    found = alerts(results)
    assert [(one["episode"], one["state"]) for one in found] == [(1, "opened"), (1, "closed")]
    opened = found[0]
    assert opened["signals"] == ["new_items"]
    assert opened["kind"] == "new_intent"
    assert opened["action"] == "+".join(ACTIONS)
    assert opened["action_until"] == opened["at_event"] + engine.config.drift.action_events
    acting = [r.step for r in results if any(name.startswith("drift.") for name in r.notes)]
    # in the journal to the end, and no longer
    assert opened["at_event"] <= accepted[max(acting)] < opened["action_until"]
    assert opened["after"] > opened["before"]
    assert 700 < opened["since_event"] < opened["at_event"] < 1100
    assert engine.counters["alerts"] == 2
    assert [m.key for r in results for m in r.messages if m.topic == topics.DRIFT_ALERTS] == [b"new_items"] * 2


@pytest.mark.parametrize("kind", ["dead letters", "duplicates"])
def test_an_alert_counts_events_as_the_metrics_do_not_records(tmp_path: Path, kind: str) -> None:
    """One record in ten is refused, and as many come twice: the alert's numbers lie on the page's event axis."""
    records = []
    for number, record in enumerate(changing()):
        records.append(record)
        if number % 10 == 0:
            records.append(b'{"user": "u1", "item": "", "ts": 1}' if kind == "dead letters" else record)
    engine = Engine.open(acting_config(signals={"new_items": "page_hinkley"}), tmp_path)
    results, accepted = [], [0]
    for result in steps(engine, records):
        results.append(result)
        accepted.append(engine.counters["events"])
    opened, closed = alerts(results)
    assert engine.counters["dead_letters" if kind == "dead letters" else "duplicates"] >= len(records) // 12
    assert opened["at_event"] == accepted[opened["step"]] < opened["step"] * 32 - 50
    assert closed["at_event"] == accepted[closed["step"]]
    assert opened["since_event"] in accepted
    before = engine.counters["events"] - 700  # each of the records after the change is accepted once
    assert abs(opened["since_event"] - before) <= 4 * 32


def test_actions_change_the_learning_while_they_last_and_stand_in_the_notes(tmp_path: Path) -> None:
    engine = Engine.open(acting_config(), tmp_path)
    planned, notes = [], []
    for batches in as_batches(changing(), 1, 32):
        result = engine.step(batches)
        notes.append(result.notes)
        planned.append(engine.plan_learning(256, 0))
        engine.learn(1)
    acting = [number for number, note in enumerate(notes) if any(name.startswith("drift.") for name in note)]
    assert acting == list(range(acting[0], acting[0] + 7))  # 200 records of 32 a step
    newest = int(notes[acting[0]]["drift.newest"])
    assert 0 < newest < 400
    assert notes[acting[0]] == {
        "drift.steps": "5.0",
        "drift.rate": "2.0",
        "drift.newest": str(newest),
        "drift.half_lives": "0.25",
        "drift.followers": "0.01",
        "drift.update_window": "6",
        "drift.reseed": "True",
    }
    assert notes[acting[1]]["drift.newest"] == str(newest + 32)
    assert {"drift.reseed", "drift.followers"}.isdisjoint(notes[acting[1]])  # they happen once
    assert {planned[number] for number in acting} == {5}
    assert set(planned) == {1, 5}


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_does_something(tmp_path: Path, action: str) -> None:
    """With an action the state is another one than without; after the same records in the same steps."""
    digests = []
    for name, chosen in (("with", [action]), ("without", [])):
        config = acting_config(actions={"new_items": chosen})
        identity = msgspec.structs.replace(
            config.learner.identity, youth_events=0, far_distance=0.0, least_users=1, crowded_cosine=0.01
        )
        config = msgspec.structs.replace(config, learner=msgspec.structs.replace(config.learner, identity=identity))
        engine = Engine.open(config, tmp_path / name)
        for _ in steps(engine, changing(after=400)):
            pass
        digest = hashlib.blake2b()
        engine.learner.update_digest(digest)
        digests.append(digest.hexdigest())
    assert digests[0] != digests[1]


def test_actions_that_do_not_pay_are_taken_back_and_leave_nothing_behind(tmp_path: Path) -> None:
    """After their trial what learns, and what is replayed, is what it is where nothing is done about the drift."""
    acting, idle = (
        Engine.open(acting_config(actions={"new_items": actions}), tmp_path / name)
        for name, actions in (("acting", ACTIONS[:-1]), ("idle", []))
    )
    results = list(steps(acting, changing()))
    for _ in steps(idle, changing()):
        pass
    opened, closed = alerts(results)
    assert "taken_back" not in opened
    assert closed["taken_back"]
    assert acting.counters["learn_steps"] > idle.counters["learn_steps"]
    one, other = acting.learner._parts.arrays(), idle.learner._parts.arrays()
    for name in other:
        if name.startswith(("item_statistics.", "mix.", "replay.")):
            assert np.array_equal(one[name], other[name]), name
    tensors, expected = acting.learner._parts.tensors(), idle.learner._parts.tensors()
    assert all(bool((tensors[name] == expected[name]).all()) for name in expected if name.startswith("encoder."))
    assert bool((tensors["table"] == expected["table"]).all())


def test_actions_that_do_harm_end_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trial, "lost", property(lambda trial: True))
    engine = Engine.open(acting_config(), tmp_path)
    results = list(steps(engine, changing()))
    opened, closed = alerts(results)
    acting = [result.step for result in results if any(name.startswith("drift.") for name in result.notes)]
    assert len(acting) == 1  # judged with the next step
    assert closed["taken_back"]
    assert closed["action_until"] == opened["at_event"] + 32 < opened["action_until"]
    assert closed["at_event"] < opened["at_event"] + 2000


def test_actions_that_pay_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trial, "won", property(lambda trial: True))
    engine = Engine.open(acting_config(), tmp_path)
    _, closed = alerts(list(steps(engine, changing())))
    assert "taken_back" not in closed
    assert engine.learner.trial is None


@pytest.mark.parametrize("at", [960, 1050])
def test_a_checkpoint_in_an_open_episode_continues_with_the_same_bits(tmp_path: Path, at: int) -> None:
    config, records = acting_config(), changing()
    whole, first = Engine.open(config, tmp_path / "whole"), Engine.open(config, tmp_path / "checkpoint")
    batches = as_batches(records, 1, 32)
    for number, step in enumerate(batches):
        for engine in (whole, first):
            result = engine.step(step)
            engine.learn(engine.plan_learning(result.records, 0))
        if number == at // 32:
            first.checkpoint()
            first.close()
            first = Engine.open(config, tmp_path / "checkpoint")
    assert whole.counters["alerts"] == 2
    assert first.digest() == whole.digest()


def test_the_journal_repeats_the_actions(tmp_path: Path) -> None:
    """A worker that comes back in an open episode redoes its actions and goes on as one that never stopped."""
    config = msgspec.structs.replace(
        acting_config(),
        engine=msgspec.structs.replace(acting_config().engine, max_step_records=32, on_replay_mismatch="fail"),
    )
    url = f"file://{tmp_path / 'log'}"
    with open_log(url) as log:
        log.create_topics(topics.topic_specs(1))
        log.append(as_messages(changing()))
        first = Worker(config, log, tmp_path / "state")
        first.recover()
        while not first.engine.drift.effects().half_lives < 1:
            assert first.turn()
        assert first.turn()
        first.close()  # without a checkpoint since the start: everything is redone from the journal
        second = Worker(config, log, tmp_path / "state")
        second.recover()
        assert second.engine.drift.effects() != ActiveActions()
        second.close()


# -- shifts -----------------------------------------------------------------------------------------------------------


class Moved:
    """Answers for the learner: where users stand now, and whether their older items are there as well."""

    def __init__(self, engine: Engine, now: int, before: bool = False, stale: bool = False) -> None:
        self.now, self.before, self.stale = now, before, stale
        self._asked = engine.learner.intents
        engine.learner.intents = self.intents  # type: ignore[method-assign]

    def intents(self, histories: Any, held: Any = None, span: Any = None, newest_alone: Any = None) -> IntentView:
        view = self._asked(histories, held, span, newest_alone)
        n = len(histories)
        nearest = np.full(n, self.now, dtype=np.int32)
        return view._replace(
            nearest=nearest,
            best=nearest,
            lead=np.full(n, 0.0 if self.stale else 50.0, dtype=np.float32),
            began=np.ones(n, dtype=np.int64),
            before=np.full(n, self.before),
            stale=np.full(n, self.stale),
            retired=np.zeros(n, dtype=bool),
        )


def one_user(engine: Engine, count: int, start: int = 0) -> list[StepResult]:
    records = [
        json.dumps({"user": "anna", "item": f"i{start + n}", "ts": START_MS + (start + n) * 1000}).encode()
        for n in range(count)
    ]
    batches = as_batches(records, 1, 1)
    results = []
    for number, (batch,) in enumerate(batches):
        offset = start + number
        results.append(
            engine.step([type(batch)(batch.topic, 0, [offset], batch.keys, batch.values, [0], [()], offset + 1)])
        )
    return results


def shifts(results: list[StepResult]) -> list[IntentShift]:
    messages = [m for result in results for m in result.messages if m.topic == topics.INTENT_SHIFTS]
    return [msgspec.json.decode(message.value or b"", type=IntentShift) for message in messages]


@pytest.mark.parametrize(
    ("before", "stale", "cause"), [(False, False, "user"), (True, False, "model"), (False, True, "model")]
)
@pytest.mark.parametrize("publish", [False, True])
def test_who_moved_is_told_by_the_older_items_under_the_new_model(
    tmp_path: Path, before: bool, stale: bool, cause: str, publish: bool
) -> None:
    config = small_config(1)
    config = msgspec.structs.replace(
        config, shifts=msgspec.structs.replace(config.shifts, publish_model_shifts=publish, settle_events=5)
    )
    engine = Engine.open(config, tmp_path)
    moved = Moved(engine, now=0)
    assert shifts(one_user(engine, 5)) == []  # the first intent is no shift
    moved.now, moved.before, moved.stale = 1, before, stale
    results = one_user(engine, 1, start=5)
    published = shifts(results)
    moved.before = moved.stale = False
    (seen,) = results[-1].shifts
    assert (seen.user, seen.from_intent, seen.to_intent, seen.cause, seen.held_for) == ("anna", 0, 1, cause, 5)
    assert published == ([seen] if publish or cause == "user" else [])
    assert (engine.counters["shifts"], engine.counters["model_shifts"]) == ((1, 0) if cause == "user" else (0, 1))
    assert set(seen.evidence) <= {f"i{n}" for n in range(6)}
    results = one_user(engine, 3, start=6)
    assert shifts(results) == []
    assert results[-1].shifts == []


def test_who_moves_in_the_middle_of_a_step_is_then_compared_with_the_new_intent(tmp_path: Path) -> None:
    config = small_config(1)
    config = msgspec.structs.replace(config, shifts=msgspec.structs.replace(config.shifts, settle_events=5))
    engine = Engine.open(config, tmp_path)
    asked = engine.learner.intents

    def next_one(histories: Any, held: Any = None, span: Any = None, newest_alone: Any = None) -> IntentView:
        view = asked(histories, held, span, newest_alone)
        n = len(histories)
        nearest = np.minimum(held + 1, 2).astype(np.int32)
        return view._replace(
            nearest=nearest,
            best=np.zeros(n, dtype=np.int32),
            lead=np.where(nearest != held, 50.0, 0.0).astype(np.float32),
            began=np.ones(n, dtype=np.int64),
            before=np.zeros(n, dtype=bool),
            stale=np.zeros(n, dtype=bool),
            retired=np.zeros(n, dtype=bool),
        )

    engine.learner.intents = next_one  # type: ignore[method-assign]
    one_user(engine, 5)
    records = [json.dumps({"user": "anna", "item": f"i{n}", "ts": START_MS + n * 1000}).encode() for n in range(9)]
    ((batch,),) = as_batches(records[5:], 1, 4)
    result = engine.step([type(batch)(batch.topic, 0, [5, 6, 7, 8], batch.keys, batch.values, [0] * 4, [()] * 4, 9)])
    told = [(one.from_intent, one.to_intent, one.held_for, one.as_of.offset) for one in result.shifts]
    assert told == [(0, 1, 5, 5), (1, 2, 1, 6)]


# -- catalogue --------------------------------------------------------------------------------------------------------


def test_the_catalogue_is_published_when_due_with_names_from_the_item_file(tmp_path: Path) -> None:
    config = small_config(1, catalog_events=200)
    titles = {f"i{n}": (f"Item {n}", "shoes") for n in range(60)}
    engine = Engine.open(config, tmp_path, titles)
    results, accepted = [], [0]
    for result in steps(engine, events(500), 50):
        results.append(result)
        accepted.append(engine.counters["events"])
    due = [r.step for r in results if any(m.topic == topics.INTENT_CATALOG for m in r.messages)]
    first = next(step for step, count in enumerate(accepted) if count >= 199)  # the first counts from -1
    assert due == [first, next(step for step, count in enumerate(accepted) if count >= accepted[first] + 200)]
    entries = [json.loads(m.value or b"") for m in results[due[1] - 1].messages if m.topic == topics.INTENT_CATALOG]
    assert [entry["intent"] for entry in entries] == [0, 1, 2, 3]
    assert sum(entry["share"] for entry in entries) == pytest.approx(1, abs=1e-4)
    assert {entry["name"] for entry in entries} == {"shoes"}
    assert all(len(entry["top_items"]) == 10 for entry in entries)


def test_a_death_is_a_tombstone_and_a_birth_a_new_entry(tmp_path: Path) -> None:
    config = small_config(1, catalog_events=10**6)
    identity = msgspec.structs.replace(
        config.learner.identity, check_events=100, youth_events=0, dead_share=0.9, far_distance=0.0, least_users=1
    )
    config = msgspec.structs.replace(config, learner=msgspec.structs.replace(config.learner, identity=identity))
    engine = Engine.open(config, tmp_path)
    messages = [m for r in steps(engine, events(600), 50) for m in r.messages if m.topic == topics.INTENT_CATALOG]
    dead = [m.key for m in messages if m.value is None]
    assert dead and len(set(dead)) == len(dead)
    alive = {json.loads(m.value)["intent"] for m in messages if m.value is not None}
    assert max(alive) >= 4  # ids beyond the first four were born
    last = [json.loads(m.value) for m in messages if m.value is not None][-4:]
    assert not {str(entry["intent"]).encode() for entry in last} & set(dead)
    assert any(entry["born_at"] > 0 for entry in last)


# -- replay and command line ------------------------------------------------------------------------------------------


def test_a_replay_writes_shifts_and_intents_and_reports_the_episodes(tmp_path: Path) -> None:
    file, told = tmp_path / "events.jsonl", tmp_path / "intents.jsonl"
    records = changing()
    file.write_bytes(b"\n".join(records) + b"\n")
    titles = {"i1": ("One", ""), "nowhere": ("Two", "")}
    report = replay(
        acting_config(), EventFile(file), tmp_path / "state", keep=False, step_records=32, titles=titles, intents=told
    )
    (episode,) = report["drift"]["episodes"]
    assert 800 < episode["opened"] < episode["closed"] <= len(records)
    assert episode["signals"] == ["new_items"]
    assert episode["kind"] == "new_intent"
    assert episode["action"] == "+".join(ACTIONS)
    assert report["items_in_file_only"] == 1
    lines = [json.loads(line) for line in told.read_text().splitlines()]
    moved = [line for line in lines if "position" in line]
    final = {line["user"]: line["intent"] for line in lines if "position" not in line}
    assert len(final) == 40
    assert len(moved) == report["shifts"] + report["model_shifts"] > 0
    for line in moved:
        assert line.keys() == {"user", "position", "from", "to", "cause", "confidence"}
        assert json.loads(records[line["position"]])["user"] == line["user"]
    newest = {line["user"]: line["to"] for line in moved}
    assert all(final[user] == intent for user, intent in newest.items())


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A folder with log, state and configuration of a worker that has stopped."""
    text = (
        "[log]\npartitions = 1\n[learner]\nmax_len = 10\ncapacity = 1000\n[learner.encoder]\nhidden = 16\n"
        "[learner.intents]\ncount = 4\nqueue = 64\n"
    )
    (tmp_path / "config.toml").write_text(text)
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(events(400)) + b"\n")
    (tmp_path / "items.csv").write_text("item,title\n" + "".join(f"i{n},Item {n}\n" for n in range(60)))
    return tmp_path


def test_replay_and_why_from_the_command_line(kept: Path) -> None:
    runner = CliRunner()
    config = ["--config", str(kept / "config.toml")]
    state = ["--state", str(kept / "state")]
    items = ["--items", str(kept / "items.csv")]
    told = kept / "intents.jsonl"
    arguments = ["replay", str(kept / "events.jsonl"), "--no-baselines", "--step-records", "50", "--intents", str(told)]
    result = runner.invoke(app, [*arguments, "--report", str(kept / "report.json"), *state, *items, *config])
    assert result.exit_code == 0, result.output
    assert json.loads((kept / "report.json").read_text())["drift"] == {"episodes": []}
    final = {
        line["user"]: line["intent"] for line in map(json.loads, told.read_text().splitlines()) if "intent" in line
    }
    shown = runner.invoke(app, ["why", "u3", "-k", "4", *state, *items, *config])
    assert shown.exit_code == 0, shown.output
    assert f"holds intent {final['u3']}" in " ".join(shown.output.split())
    for part in ("runner-up", "history, oldest first: i", "(Item ", "drawn to", "because of"):
        assert part in shown.output
    unknown = runner.invoke(app, ["why", "nobody", *state, *config])
    assert unknown.exit_code == 0
    assert "nobody: unknown" in unknown.output


def test_bad_item_files_stop_the_command_before_anything_is_read(kept: Path) -> None:
    (kept / "items.csv").write_text("item,title\na,\n")
    arguments = ["replay", str(kept / "events.jsonl"), "--items", str(kept / "items.csv"), "--state", str(kept / "s")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "neither title nor category" in str(result.exception)
    assert not (kept / "s").exists()
