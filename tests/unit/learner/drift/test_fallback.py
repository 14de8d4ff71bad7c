"""The fallback policy: a learner that goes bad is taken off the air, and comes back when it has earned it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest

from learner.drift.config import FallbackConfig
from learner.drift.fallback import FallbackPolicy, Verdict
from learner.errors import LearnerStateError

CONFIG = FallbackConfig(check_every=1, sample=64, half_life=500, least=200, patience=3, snapshot_every=20)


def drive(
    policy: FallbackPolicy,
    start: int,
    stop: int,
    learner: float,
    snapshot: float = 0.4,
    popular: float = 0.2,
    events: int = 64,
) -> list[Verdict]:
    """Comparisons in which each method hits with the given chance."""
    verdicts = []
    for step in range(start, stop):
        chance = np.random.default_rng(step).random(events)
        gains = [(chance < hit).astype(np.float64) for hit in (learner, snapshot, popular)]
        verdicts.append(policy.compare(step, *gains))
    return verdicts


def test_a_good_learner_serves_and_its_snapshot_is_renewed() -> None:
    verdicts = drive(FallbackPolicy(CONFIG), 1, 200, learner=0.42)
    assert {verdict.serving for verdict in verdicts} == {"learner"}
    assert 8 <= sum(verdict.renew for verdict in verdicts) <= 10


def test_a_learner_that_goes_bad_is_replaced_once_and_comes_back_when_it_has_earned_it() -> None:
    policy = FallbackPolicy(CONFIG)
    drive(policy, 1, 100, learner=0.42)
    bad = drive(policy, 100, 160, learner=0.1)
    assert [verdict.serving for verdict in bad if verdict.changed] == ["snapshot"]
    assert not any(verdict.renew for verdict in bad if verdict.serving == "snapshot")
    first = next(number for number, verdict in enumerate(bad) if verdict.changed)
    assert first >= CONFIG.patience - 1
    good = drive(policy, 160, 240, learner=0.5)
    assert [verdict.serving for verdict in good if verdict.changed] == ["learner"]


def test_a_learner_that_falls_behind_the_popular_list_is_replaced() -> None:
    policy = FallbackPolicy(CONFIG)
    drive(policy, 1, 60, learner=0.4)
    found = drive(policy, 60, 160, learner=0.4, snapshot=0.4, popular=0.6)
    assert not any(verdict.changed for verdict in found)  # the snapshot would be no better
    found = drive(policy, 160, 260, learner=0.3, snapshot=0.7, popular=0.6)
    assert [verdict.serving for verdict in found if verdict.changed] == ["snapshot"]


def test_a_snapshot_stays_until_it_was_compared_enough_however_few_events_there_are() -> None:
    policy = FallbackPolicy(CONFIG)
    renewed = [step for step, verdict in enumerate(drive(policy, 1, 500, 0.42, events=2), start=1) if verdict.renew]
    assert 2 <= len(renewed) <= 4
    assert min(np.diff([0, *renewed])) >= CONFIG.least / 2
    assert "snapshot" in {verdict.serving for verdict in drive(policy, 500, 900, 0.1, events=2)}


def test_one_bad_comparison_changes_nothing() -> None:
    policy = FallbackPolicy(CONFIG)
    drive(policy, 1, 60, learner=0.42)
    assert not any(
        verdict.changed for verdict in drive(policy, 60, 61, learner=0.3) + drive(policy, 61, 80, learner=0.42)
    )


def test_only_due_steps_are_compared_and_none_when_it_is_switched_off() -> None:
    policy = FallbackPolicy(FallbackConfig(check_every=4))
    assert [step for step in range(1, 13) if policy.due(step)] == [4, 8, 12]
    assert not FallbackPolicy(FallbackConfig(enabled=False)).due(8)


def test_the_learner_serves_where_the_fallback_was_switched_off_meanwhile() -> None:
    policy, off = FallbackPolicy(CONFIG), FallbackPolicy(FallbackConfig(enabled=False))
    drive(policy, 1, 160, learner=0.1)
    assert policy.serving == "snapshot"
    off.load_state(policy.to_state())
    assert off.serving == "learner"


@pytest.mark.parametrize("split", [10, 105, 150])
def test_it_continues_bit_for_bit(split: int) -> None:
    def chances(step: int) -> float:
        return 0.1 if 100 <= step < 160 else 0.45

    whole, first, second = FallbackPolicy(CONFIG), FallbackPolicy(CONFIG), FallbackPolicy(CONFIG)
    expected = [drive(whole, step, step + 1, chances(step))[0] for step in range(1, 220)]
    begun = [drive(first, step, step + 1, chances(step))[0] for step in range(1, split)]
    second.load_state(json.loads(json.dumps(first.to_state())))
    assert begun + [drive(second, step, step + 1, chances(step))[0] for step in range(split, 220)] == expected
    assert second.to_state() == whole.to_state()


def test_another_format_is_refused() -> None:
    with pytest.raises(LearnerStateError, match="fallback: state of format 7"):
        FallbackPolicy(CONFIG).load_state({"format": 7})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"snapshot_every": 8, "check_every": 8, "patience": 4}, "snapshot_every = 8: must not be below"),
        ({"better": -4.0, "worse": 3.0}, "better = -4.0: must not be below -worse = -3.0"),
        ({"least": 500, "half_life": 100}, "least = 500: must not be above half_life = 100"),
        ({"worse": 0}, r"> 0.*worse"),
    ],
)
def test_a_bad_configuration_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(settings, FallbackConfig)
