"""The fallback in the engine: the snapshot serves for a losing learner until it wins; refusals restore good weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from intentstream.config import Config
from learner.drift.config import FallbackConfig
from learner.metrics import UNRANKED
from learner.online.step import LearnReport, PrequentialResult
from stream.engine.engine import Engine
from stream.schema import topics
from tests.unit.stream.engine.test_intents_and_drift import acting_config, alerts, steps
from tests.unit.stream.streams import as_batches, events

FALLBACK = {
    "check_every": 1,
    "sample": 32,
    "half_life": 200,
    "least": 32,
    "patience": 2,
    "snapshot_every": 4,
    "better": -1.0,
}


def fallback_config(**drift: Any) -> Config:
    config = acting_config(**({"signals": {"refusals": "page_hinkley"}, "actions": {}} | drift))
    return msgspec.structs.replace(config, fallback=FallbackConfig(**FALLBACK))  # type: ignore[arg-type]


class Losing:
    """The learner finds no event's item in the steps of `bad`; its snapshot and the popular list are as they were."""

    def __init__(self, engine: Engine, bad: range) -> None:
        self._engine, self._bad = engine, bad
        self._observe = engine.learner.observe
        engine.learner.observe = self.observe  # type: ignore[method-assign]

    def observe(self, *args: Any, **kwargs: Any) -> PrequentialResult:
        taken = self._observe(*args, **kwargs)
        if self._engine.step_number in self._bad:
            return taken._replace(placed=np.full_like(taken.placed, UNRANKED))
        return taken


BAD = range(20, 30)


def test_a_learner_that_loses_is_stood_in_for_until_it_has_earned_its_place(tmp_path: Path) -> None:
    engine = Engine.open(fallback_config(), tmp_path)
    Losing(engine, BAD)
    results, serving, gauge, accepted = [], [], [], [0]
    for result in steps(engine, events(3600)):
        results.append(result)
        accepted.append(engine.counters["events"])
        serving.append(engine.learner.serving)
        gauge.append(engine.gauges()["serving_snapshot"])
    away = [number for number, who in enumerate(serving, start=1) if who == "snapshot"]
    assert away == list(range(away[0], away[-1] + 1))
    assert BAD.start < away[0] < BAD.stop < away[-1] < len(serving)
    assert gauge == [float(who == "snapshot") for who in serving]
    opened, closed = alerts(results)
    assert (opened["state"], opened["kind"], opened["signals"]) == ("opened", "learner", ["fallback"])
    assert (opened["action"], opened["at_event"]) == ("snapshot", accepted[away[0]])
    assert opened["after"] < -4
    assert (closed["state"], closed["episode"]) == ("closed", opened["episode"])
    assert closed["at_event"] >= accepted[away[-1]]
    for number, result in enumerate(results, start=1):
        lists = [json.loads(m.value or b"") for m in result.messages if m.topic == topics.RECOMMENDATIONS]
        stood_in = {one.get("serving", "learner") for one in lists if one}
        assert stood_in <= {"snapshot" if number in away else "learner"}
        assert result.notes.get("serving", "learner") == ("snapshot" if number in away else "learner")
        if number in away:
            assert all(one["model_step"] < engine.model_step for one in lists)
    assert any(m.topic == topics.RECOMMENDATIONS for number in away for m in results[number - 1].messages)


@pytest.mark.parametrize("at", [10, 23, 27])
def test_a_checkpoint_while_the_snapshot_serves_continues_with_the_same_bits(tmp_path: Path, at: int) -> None:
    config, batches = fallback_config(actions={"learner": ["rollback"]}), as_batches(events(2000), 1, 32)
    whole, first = Engine.open(config, tmp_path / "whole"), Engine.open(config, tmp_path / "checkpoint")
    Losing(whole, BAD)
    Losing(first, BAD)
    served = set()
    for number, step in enumerate(batches):
        for engine in (whole, first):
            result = engine.step(step)
            engine.learn(engine.plan_learning(result.records, 0))
        served.add(whole.learner.serving)
        if number == at:
            assert first.learner.serving == ("learner" if at == 10 else "snapshot")
            first.checkpoint()
            first.close()
            first = Engine.open(config, tmp_path / "checkpoint")
            Losing(first, BAD)
    assert served == {"learner", "snapshot"}
    assert first.digest() == whole.digest()


def test_a_switched_off_fallback_compares_nothing(tmp_path: Path) -> None:
    config = msgspec.structs.replace(fallback_config(), fallback=FallbackConfig(enabled=False))
    engine = Engine.open(config, tmp_path)
    Losing(engine, BAD)
    results = list(steps(engine, events(1500)))
    assert alerts(results) == []
    assert not engine.learner.has_snapshot


def test_a_fallback_switched_off_while_the_snapshot_serves_brings_the_learner_back(tmp_path: Path) -> None:
    config = fallback_config()
    engine = Engine.open(config, tmp_path)
    Losing(engine, range(20, 1000))
    for _ in steps(engine, events(1000)):
        pass
    assert engine.learner.serving == "snapshot"
    engine.checkpoint()
    engine.close()
    without = msgspec.structs.replace(config, fallback=FallbackConfig(enabled=False))
    engine = Engine.open(without, tmp_path)
    assert (engine.learner.serving, engine.gauges()["serving_snapshot"]) == ("learner", 0.0)
    closed = alerts(list(steps(engine, events(2500)[1000:])))[0]
    assert (closed["state"], closed["signals"]) == ("closed", ["fallback"])


def test_refusals_take_the_learner_back_to_its_last_good_weights(tmp_path: Path) -> None:
    engine = Engine.open(fallback_config(actions={"learner": ["rollback"]}), tmp_path)
    learn, rolled_back, results = engine.learner.learn, [], []

    def refusing(*asked: Any, **named: Any) -> LearnReport:
        report = learn(*asked, **named)
        return report if engine.step_number < 40 else report._replace(refused=5)

    def roll_back() -> bool:
        rolled_back.append(engine.step_number)
        return type(engine.learner).roll_back(engine.learner)

    engine.learner.learn = refusing  # type: ignore[method-assign]
    engine.learner.roll_back = roll_back  # type: ignore[method-assign]
    for result in steps(engine, events(2000)):
        results.append(result)
    opened = alerts(results)[0]
    assert (opened["kind"], opened["signals"], opened["action"]) == ("learner", ["refusals"], "rollback")
    assert rolled_back == [opened["step"]]  # after the step's alert, once
    assert [r.step for r in results if "drift.rollback" in r.notes] == rolled_back
