"""Every signal through the same checks, with the detector that is its default, and what the configuration refuses."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest

from learner.drift.config import KINDS, SIGNAL_NAMES, DriftConfig
from learner.drift.episodes import DriftMonitor, EpisodeChange
from learner.drift.signals import SIGNALS, Observed

EVENTS = 256
DAY_BINS = 96  # bins of a made-up day
STEP_MS = 24 * 3_600_000 // DAY_BINS
DETECTORS = DriftConfig().signals
each = pytest.mark.parametrize("name", SIGNALS)


def observed(rng: np.random.Generator, number: int, **changes: Any) -> Observed:
    """A usual bin: rates of a shop in balance, with the noise that counting has."""
    rates = {"hits": 0.3, "new": 0.01, "dead": 0.002, "loss": 5.0, "distance": 0.5, "movement": 0.02, "refused": 0.0}
    rates |= {name: value for name, value in changes.items() if name in rates}
    intents = changes.get("intents", np.ones(12) / 12)
    items = changes.get("items", np.arange(1, 201) ** -0.8)
    dead = int(rng.binomial(EVENTS, rates["dead"]))
    return Observed(
        events=EVENTS,
        records=EVENTS + dead,
        dead_letters=dead,
        ts=changes.get("ts", 1_700_000_000_000 + number * STEP_MS),
        served=EVENTS,
        hits=int(rng.binomial(EVENTS, rates["hits"])),
        loss=rates["loss"] + 0.1 * float(rng.normal()),
        distance=rates["distance"] + 0.01 * float(rng.normal()),
        intents=rng.choice(len(intents), EVENTS, p=intents / intents.sum()),
        items=rng.choice(len(items), EVENTS, p=items / items.sum()) + 1,
        new_items=int(rng.binomial(EVENTS, rates["new"])),
        movement=rates["movement"] * math.exp(0.1 * float(rng.normal())),
        updates=1,
        refused=int(rng.poisson(rates["refused"])),
    )


CHANGED: dict[str, dict[str, Any]] = {
    "served_hits": {"hits": 0.05},
    "loss": {"loss": 6.0},
    "distance": {"distance": 0.7},
    "intent_shares": {"intents": np.array([6.0] + [0.5] * 11)},
    "popularity": {"items": np.roll(np.arange(1, 201) ** -0.8, 37)},
    "center_speed": {"movement": 0.1},
    "new_items": {"new": 0.2},
    "dead_letters": {"dead": 0.1},
    "refusals": {"refused": 3.0},
}


def watch(name: str, **more: Any) -> DriftMonitor:
    return DriftMonitor(DriftConfig(signals={name: DETECTORS[name]}, actions={}, **more), seed=1)


def changed(name: str, bin_number: int) -> dict[str, Any]:
    """What the drift of a signal does to bin `bin_number`; for the arrival rate, time passes three times as fast."""
    if name == "arrival_rate":
        return {"ts": 1_700_000_000_000 + 100 * STEP_MS + (bin_number - 100) * STEP_MS // 3}
    return CHANGED[name]


def drive(monitor: DriftMonitor, name: str, bins: int, change_at: int, start: int = 0) -> list[EpisodeChange]:
    found = []
    for number in range(start, bins):
        rng = np.random.default_rng([7, number])
        seen = observed(rng, number, **(changed(name, number) if number >= change_at else {}))
        found += monitor.step(seen, (number + 1) * EVENTS)
    return found


def test_every_signal_is_watched_by_default_and_changed_in_these_tests() -> None:
    assert DETECTORS.keys() == SIGNALS.keys() == CHANGED.keys() | {"arrival_rate"}


@each
def test_a_lasting_change_is_found_and_dated(name: str) -> None:
    found = drive(watch(name), name, 140, change_at=100)
    assert [change.state for change in found][:1] == ["opened"]
    assert found[0].signals == (name,)
    assert 100 * EVENTS < found[0].at_event <= (100 + 21) * EVENTS
    assert abs(found[0].since_event - 100 * EVENTS) <= 20 * EVENTS
    assert found[0].kind in KINDS


@each
def test_a_stationary_stream_is_no_drift(name: str) -> None:
    assert drive(watch(name), name, 1200, change_at=10**9) == []


@each
def test_what_never_varies_is_no_drift(name: str) -> None:
    monitor = watch(name)
    seen = observed(np.random.default_rng(0), 0)
    for number in range(300):
        assert monitor.step(seen._replace(ts=seen.ts + number * STEP_MS), (number + 1) * EVENTS) == []


@each
def test_a_daily_rhythm_is_no_drift(name: str) -> None:
    """Over five days, every rate of the shop swings with the hour."""
    monitor = watch(name)
    ts = 1_700_000_000_000
    for number in range(8 * DAY_BINS):
        wave = math.sin(2 * math.pi * number / DAY_BINS)
        phase = 2 * math.pi * (number / DAY_BINS + np.arange(12) / 12)
        ts = 1_700_000_000_000 + number * STEP_MS
        swung = {
            "hits": 0.3 + 0.03 * wave,
            "loss": 5 + 0.15 * wave,
            "distance": 0.5 + 0.01 * wave,
            "movement": 0.02 * math.exp(0.1 * wave),
            "new": 0.01 * (1 + 0.5 * wave),
            "intents": 1 + 0.3 * np.sin(phase),
        }
        seen = observed(np.random.default_rng([3, number]), number, ts=ts, **swung)
        if name == "arrival_rate":
            # bins of as many events, more or less far apart
            ts += int(0.4 * DAY_BINS / (2 * math.pi) * STEP_MS * (math.cos(2 * math.pi * number / DAY_BINS) - 1))
            seen = seen._replace(ts=ts)
        alarms = monitor.step(seen, (number + 1) * EVENTS)
        assert number < 3 * DAY_BINS or alarms == []


def test_center_speed_does_not_ask_how_many_learning_steps_a_bin_had() -> None:
    """A worker behind makes fewer of an event, one with small steps more, `more_steps` more still."""
    monitor, rng = watch("center_speed"), np.random.default_rng(4)
    for number in range(400):
        updates = (1, 9, 1, 5)[number // 100]
        seen = observed(rng, number)
        seen = seen._replace(movement=updates * seen.movement, updates=updates)
        assert monitor.step(seen, (number + 1) * EVENTS) == []


@each
@pytest.mark.parametrize("split", [3, 90, 101, 104])
def test_it_saves_to_plain_data_and_continues_bit_for_bit(name: str, split: int) -> None:
    whole = watch(name)
    expected = drive(whole, name, 130, change_at=100)
    first, second = watch(name), watch(name)
    before = drive(first, name, split, change_at=100)
    second.load_state(json.loads(json.dumps(first.to_state())))
    assert before + drive(second, name, 130, change_at=100, start=split) == expected
    assert json.dumps(second.to_state(), sort_keys=True) == json.dumps(whole.to_state(), sort_keys=True)


@pytest.mark.parametrize("name", CHANGED)  # the arrival rate reads the clock of whole steps
def test_steps_of_any_size_make_the_same_bin(name: str) -> None:
    """A step cut in two shows the same as the whole."""
    seen = observed(np.random.default_rng(2), 0)._replace(updates=2)
    parts = [
        seen._replace(
            events=128,
            served=128,
            hits=hits,
            new_items=new,
            records=128 + dead,
            dead_letters=dead,
            intents=seen.intents[half],
            items=seen.items[half],
            movement=seen.movement / 2,
            updates=1,
            refused=0,
        )
        for hits, new, dead, half in (
            (seen.hits, 0, seen.dead_letters, slice(0, 128)),
            (0, seen.new_items, 0, slice(128, None)),
        )
    ]
    one, two = SIGNALS[name](DriftConfig()), SIGNALS[name](DriftConfig())
    for _ in range(2):  # the second time there is a reference to compare with
        one.add(seen)
        for part in parts:
            two.add(part)
        assert two.value() == pytest.approx(one.value(), nan_ok=True)


@each
def test_a_bin_without_anything_has_no_weight(name: str) -> None:
    nobody = np.zeros(0, dtype=np.int64)
    empty = Observed(0, 0, 0, 0, 0, 0, math.nan, math.nan, nobody, nobody, 0, math.nan, 0, 0)
    signal = SIGNALS[name](DriftConfig())
    signal.add(empty)
    assert signal.value()[1] == 0


def test_a_stream_of_nothing_but_bad_records_is_found() -> None:
    monitor = watch("dead_letters")
    assert drive(monitor, "dead_letters", 100, change_at=10**9) == []
    nobody = np.zeros(0, dtype=np.int64)
    found = []
    for number in range(100, 110):
        bad = Observed(0, EVENTS, EVENTS, 0, 0, 0, math.nan, math.nan, nobody, nobody, 0, 0.0, 0, 0)
        found += monitor.step(bad, (number + 1) * EVENTS)
    assert [change.kind for change in found] == ["quality"]


def test_that_two_centers_became_one_intent_is_no_drift_of_shares() -> None:
    config, rng = DriftConfig(), np.random.default_rng(5)
    together = np.array([0, 0, 2, 2, 4, 4, 4, 4, 8, 8, 8, 11])

    def found(groups: Any, intents: Any) -> list[float]:
        signal, told = SIGNALS["intent_shares"](config), []
        for number in range(60):
            places = rng.choice(12, EVENTS, p=np.full(12, 1 / 12))
            signal.add(observed(rng, number)._replace(intents=intents(number, places), groups=groups(number)))
            told.append(signal.value()[0])
        return told

    merged = found(lambda number: together if number >= 40 else np.arange(12), lambda number, places: places)
    renamed = found(lambda number: None, lambda number, places: together[places] if number >= 40 else places)
    assert max(merged[40:]) < max(merged[20:40]) + 1
    assert max(renamed[40:]) > max(renamed[20:40]) + 2  # what it would look like


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"signals": {"hits": "adwin"}}, "signals.hits: there is no such signal"),
        ({"actions": {"hits": []}}, "actions.hits: neither a kind of drift"),
        (
            {"signals": {"loss": "adwin"}, "actions": {"served_hits": []}},
            "actions.served_hits: the signal is not watched",
        ),
        ({"signals": {"loss": "hddm"}}, r"\$.signals\[...\]"),
        ({"actions": {"loss": ["pray"]}}, r"\$.actions\[...\]"),
        ({"kswin_recent": 50}, "kswin_recent = 50: must be at most half of kswin_window = 80"),
        ({"longest_events": 10}, "longest_events = 10: must not be below quiet_events"),
        ({"adwin_delta": 1.0}, r"< 1.0.*adwin_delta"),
        ({"threshold": 0}, r"> 0.*threshold"),
        ({"bin_events": 1}, r">= 16.*bin_events"),
        ({"share_window": 0}, r">= 1.*share_window"),
        (
            {"concept_drift_threshold": 1.0},
            r"< 1.0.*concept_drift_threshold",
        ),  # every alarm would be a change of meaning
        ({"actions": {"fallbacks": ["rollback"]}}, "actions.fallbacks: neither a kind of drift .* nor fallback"),
        ({"actions": {"loss": ["reseed", "more_steps", "reseed"]}}, "actions.loss: reseed is there more than once"),
        ({"faster_decay": 1.5}, r"<= 1.0.*faster_decay"),
    ],
)
def test_a_bad_configuration_is_refused_at_the_start(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(settings, DriftConfig)


def test_the_fallback_may_have_actions_of_its_own() -> None:
    settings = {"actions": {"fallback": ["rollback", "higher_rate"]}}
    assert msgspec.convert(settings, DriftConfig).actions == settings["actions"]


@pytest.mark.parametrize("name", ["popularity", "intent_shares"])
def test_shares_that_changed_again_soon_are_found_again(name: str) -> None:
    """After the first change what is new is the reference, so that the second one stands out as the first did."""
    key = {"popularity": "items", "intent_shares": "intents"}[name]
    usual = np.arange(1, 201) ** -0.8 if name == "popularity" else np.ones(12) / 12
    other = np.roll(usual, 37) if name == "popularity" else np.array([6.0] + [0.5] * 11)
    monitor, opened = watch(name, quiet_events=2000, cooldown_events=0), []
    for number in range(180):
        shares = other if 100 <= number < 130 else usual
        seen = observed(np.random.default_rng([9, number]), number, **{key: shares})
        opened += [change for change in monitor.step(seen, (number + 1) * EVENTS) if change.state == "opened"]
    bins = [change.at_event // EVENTS for change in opened]
    assert len(bins) == 2
    assert 100 < bins[0] <= 110 and 130 < bins[1] <= 142


@pytest.mark.parametrize(("name", "change"), [("loss", {"loss": 5.3}), ("new_items", {"new": 0.06})])
def test_the_tenth_change_is_found_as_the_first_one_is(name: str, change: dict[str, Any]) -> None:
    """What the changes before it did to the usual deviation must not hide it."""
    monitor, opened = watch(name, quiet_events=2000, cooldown_events=0), []
    for number in range(100, 700):
        comes_and_goes = change if number >= 200 and number % 50 < 20 else {}
        seen = observed(np.random.default_rng([11, number]), number, **comes_and_goes)
        found = monitor.step(seen, (number + 1) * EVENTS)
        opened += [one.at_event // EVENTS for one in found if one.state == "opened"]
    assert [bins // 50 for bins in opened] == list(range(4, 14))
    assert max(bins % 50 for bins in opened) <= 10


def test_that_one_item_comes_or_goes_is_no_drift_of_popularity() -> None:
    usual = np.arange(1, 201) ** -0.8
    for place, weight in ((5, 0.0), (150, 6**-0.8)):  # every fiftieth event is on it
        other = usual.copy()
        other[place] = weight
        monitor, found = watch("popularity"), []
        for number in range(200):
            seen = observed(np.random.default_rng([12, number]), number, items=usual if number < 100 else other)
            found += monitor.step(seen, (number + 1) * EVENTS)
        assert found == []


@pytest.mark.parametrize(("name", "limit"), [("popularity", 8.0), ("loss", 5.0)])
def test_a_bin_counts_as_many_deviations_as_its_signal_says(name: str, limit: float) -> None:
    monitor, most = watch(name, threshold=1000.0), 0.0
    for number in range(110):
        drive(monitor, name, number + 1, change_at=100, start=number)
        most = max(most, monitor.scores()[name])
    assert most == limit == SIGNALS[name].limit


@pytest.mark.parametrize("name", ["popularity", "intent_shares"])
def test_shares_show_as_little_with_a_young_reference_as_with_an_old_one(name: str) -> None:
    signal = SIGNALS[name](DriftConfig())
    young: list[float] = []
    old: list[float] = []
    for number in range(3000):
        signal.add(observed(np.random.default_rng([13, number]), number))
        value, weight = signal.value()
        if number % 30 == 29:
            signal.begin_anew(3)
        elif weight and number > 30:
            young += [value] if number % 30 < 8 else []
            old += [value] if number % 30 > 24 else []
    assert float(np.mean(young)) == pytest.approx(float(np.mean(old)), abs=0.15 * float(np.std(old)) + 0.1)


@pytest.mark.parametrize("name", ["popularity", "intent_shares"])
def test_shares_that_begin_anew_twice_in_a_bin_are_saved_and_go_on(name: str) -> None:
    signal, groups = SIGNALS[name](DriftConfig()), np.arange(12)
    for number in range(20):
        signal.add(observed(np.random.default_rng([15, number]), number)._replace(groups=groups))
        signal.value()
    signal.begin_anew(4)
    signal.begin_anew(6)
    other = SIGNALS[name](DriftConfig())
    other.load_state(json.loads(json.dumps(signal.to_state())))
    for number in range(20, 30):
        for one in (signal, other):
            one.add(observed(np.random.default_rng([15, number]), number)._replace(groups=groups))
        value, weight = signal.value()
        assert other.value() == pytest.approx((value, weight), rel=0, abs=0, nan_ok=True)
    assert weight == 1


def test_an_alarm_of_shares_that_ends_an_episode_in_the_same_bin_does_not_stop_the_stream() -> None:
    """It stopped with an IndexError; the checkpoints of the next bins could not be read."""
    monitor, found = DriftMonitor(DriftConfig(), seed=1), []
    for number in range(180):
        concept_drift_threshold: dict[str, Any] = {"loss": 6.5, "hits": 0.05} if number >= 100 else {}
        moved: dict[str, Any] = {"intents": np.array([6.0] + [0.5] * 11)} if number >= 120 else {}
        seen = observed(np.random.default_rng([7, number]), number, **concept_drift_threshold, **moved)
        found += monitor.step(seen._replace(groups=np.arange(12)), (number + 1) * EVENTS)
        if 115 < number < 135:
            DriftMonitor(DriftConfig(), seed=1).load_state(json.loads(json.dumps(monitor.to_state())))
    assert [(one.state, one.kind) for one in found] == [
        ("opened", "concept_drift"),
        ("closed", "concept_drift"),
        ("opened", "shares"),
        ("closed", "shares"),
    ]


def test_a_shorter_window_of_shares_goes_on_from_the_state_of_a_longer_one() -> None:
    long, short = (SIGNALS["popularity"](DriftConfig(share_window=window)) for window in (6, 4))
    for number in range(20):
        long.add(observed(np.random.default_rng([16, number]), number))
        long.value()
    short.load_state(long.to_state())
    short.add(observed(np.random.default_rng([16, 20]), 20))
    assert short.value()[1] == 1


def test_after_a_time_of_bad_records_alone_shares_wait_for_a_reference() -> None:
    nobody = np.zeros(0, dtype=np.int64)
    signal = SIGNALS["popularity"](DriftConfig())
    for number in range(20_000):
        if number < 20 or number >= 19_980:
            signal.add(observed(np.random.default_rng([14, number]), number))
        else:
            signal.add(Observed(0, EVENTS, EVENTS, 0, 0, 0, 0.0, 0.0, nobody, nobody, 0, 0.0, 0, 0))
        value, weight = signal.value()
        assert weight == 0 or math.isfinite(value)
    assert weight == 1


def test_more_steps_are_made_only_with_the_pairs_since_the_change() -> None:
    """With older ones they did nothing (docs/decisions.md)."""
    actions = DriftConfig().actions
    assert "more_steps" in actions["concept_drift"]
    assert all("fresh_replay" in what for what in actions.values() if "more_steps" in what)


def test_the_configuration_names_every_signal() -> None:
    assert tuple(SIGNALS) == SIGNAL_NAMES
