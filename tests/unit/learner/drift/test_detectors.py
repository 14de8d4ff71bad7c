"""Every detector, and the cleaner before it, through the same checks, in the manner of river's estimator checks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from learner.drift.detectors import Adwin, Detector, Kswin, PageHinkley, restored
from learner.drift.normalizer import HOUR_MS, Normalizer
from learner.errors import LearnerStateError

DETECTORS: dict[str, Callable[[], Detector]] = {
    "adwin": lambda: Adwin(1e-6),
    "page_hinkley up": lambda: PageHinkley(1.0, 12.0, "up"),
    "page_hinkley both": lambda: PageHinkley(1.0, 12.0, "both"),
    "kswin": lambda: Kswin(1e-7, 80, 20, seed=3),
}
each = pytest.mark.parametrize("make", DETECTORS.values(), ids=DETECTORS.keys())


def noise(n: int, seed: int = 0) -> list[float]:
    values: list[float] = np.random.default_rng(seed).normal(size=n).tolist()
    return values


@each
def test_it_saves_to_plain_data_and_continues_bit_for_bit(make: Callable[[], Detector]) -> None:
    values = noise(150) + [5 + value for value in noise(40, 1)] + noise(100, 2)
    whole = make()
    answers = [whole.update(value) for value in values]
    assert any(answers)
    change = answers.index(True)
    for cut in (0, 1, 90, change, change + 1, change + 2, 200):
        first, second = make(), make()
        for value in values[:cut]:
            first.update(value)
        second.load_state(json.loads(json.dumps(first.to_state())))
        assert second.to_state() == first.to_state()
        assert [second.update(value) for value in values[cut:]] == answers[cut:], cut
        assert json.dumps(second.to_state()) == json.dumps(whole.to_state())


@each
def test_a_constant_is_no_change(make: Callable[[], Detector]) -> None:
    detector = make()
    assert not any(detector.update(0.0) for _ in range(500))  # what the cleaner makes of any constant


@each
def test_noise_alone_is_no_change(make: Callable[[], Detector]) -> None:
    detector = make()
    assert not any(detector.update(value) for value in noise(3000, seed=4))


@each
def test_a_rise_is_found_and_dated(make: Callable[[], Detector]) -> None:
    detector = make()
    assert not any(detector.update(value) for value in noise(200))
    rise = [3 + value for value in noise(60, 1)]
    found = [detector.update(value) for value in rise].index(True) + 1
    assert found <= 20
    detector = make()
    for value in noise(200) + rise[:found]:
        detector.update(value)
    assert found - 3 <= detector.since <= max(found + 3, 20)  # KSWIN dates no better than its newest 20 values


def test_page_hinkley_sees_a_change_right_after_another() -> None:
    detector = PageHinkley(1.0, 12.0, "up")
    first = [detector.update(value) for value in [0.0] * 50 + [5.0] * 4]
    assert first.index(True) == 53
    assert any(detector.update(value) for value in [-0.5, -0.5, 1.0, 0.5] + [5.0] * 5)


def test_page_hinkley_looks_only_the_way_it_is_told() -> None:
    fall = noise(100) + [value - 3 for value in noise(60, 1)]
    for mode, finds in (("up", False), ("down", True), ("both", True)):
        detector = PageHinkley(1.0, 12.0, mode)  # type: ignore[arg-type]  # a literal in the loop's tuple
        assert any([detector.update(value) for value in fall]) is finds, mode


def make_cleaner(rhythm: bool = False, warm_up: int = 20, half_life: float = 32.0) -> Normalizer:
    return Normalizer(half_life, warm_up, floor=0.01, rhythm=rhythm)


def test_the_cleaner_says_nothing_while_it_warms_up() -> None:
    cleaner = make_cleaner(warm_up=20)
    scores = [cleaner.normalize(value, 0) for value in noise(30)]
    assert [score is None for score in scores] == [True] * 20 + [False] * 10


def test_what_a_stream_begins_with_is_not_remembered() -> None:
    calm, begun = make_cleaner(warm_up=40), make_cleaner(warm_up=40)
    for number, value in enumerate(noise(60)):
        calm.normalize(value, 0)
        begun.normalize(value + (50.0 / (1 + number) if number < 20 else 0.0), 0)
    assert begun.level == pytest.approx(calm.level)
    assert begun.deviation == pytest.approx(calm.deviation)


def test_cleaned_noise_has_about_deviation_one_whatever_its_units() -> None:
    for scale in (1.0, 1000.0):
        cleaner = make_cleaner()
        scores = [cleaner.normalize(500 + scale * value, 0) for value in noise(3000)]
        tail = np.array([score for score in scores[500:] if score is not None])
        assert 0.85 < tail.std() < 1.15
        assert abs(tail.mean()) < 0.15


def test_more_weight_makes_the_same_distance_surer() -> None:
    light, heavy = make_cleaner(), make_cleaner()
    for value in noise(200):
        light.normalize(value, 0)
        heavy.normalize(value, 0)
    one, four = light.normalize(1.0, 0, weight=1.0), heavy.normalize(1.0, 0, weight=4.0)
    assert one is not None and four is not None
    assert four == pytest.approx(2 * one)


def test_a_change_stays_visible_until_the_level_is_settled() -> None:
    cleaner = make_cleaner(half_life=64)
    for value in noise(200):
        cleaner.normalize(value, 0)
    seen = [cleaner.normalize(8.0, 0) for _ in range(10)]
    assert all(score is not None and score > 3 for score in seen)
    cleaner.set_level(8.0)
    after = cleaner.normalize(8.0, 0)
    assert after == 0.0


def test_what_a_change_did_to_level_and_deviation_is_taken_back() -> None:
    cleaner = make_cleaner()
    for value in noise(200):
        cleaner.normalize(value, 0)
    before = cleaner.level, cleaner.deviation
    for _ in range(10):
        cleaner.normalize(8.0, 0)
    assert cleaner.level > before[0] + 0.5 and cleaner.deviation > 1.2 * before[1]
    cleaner.undo(10)
    assert (cleaner.level, cleaner.deviation) == before


def test_no_more_is_kept_to_be_taken_back_than_a_few_values() -> None:
    cleaner = make_cleaner()
    sizes = set()
    for value in noise(200):
        cleaner.normalize(value, 0)
        sizes.add(len(json.dumps(cleaner.to_state())) // 1000)
    assert max(sizes) <= 2
    deviation = cleaner.deviation
    cleaner.undo(10_000)
    cleaner.undo(1)  # of what is not known nothing
    assert cleaner.deviation == pytest.approx(deviation, rel=0.3)


def test_a_value_that_was_constant_is_measured_in_floors() -> None:
    cleaner = make_cleaner()
    for _ in range(100):
        cleaner.normalize(1.0, 0)
    assert cleaner.normalize(1.03, 0) == pytest.approx(3.0)


def test_a_daily_rhythm_is_learned_in_two_days_and_then_expected() -> None:
    plain, seasonal = make_cleaner(), make_cleaner(rhythm=True)
    worst = {"plain": 0.0, "seasonal": 0.0}
    shift = noise(24 * 4 * 12, seed=5)
    for number in range(24 * 4 * 12):  # twelve days, four looks an hour
        ts = number * HOUR_MS // 4
        value = math.sin(2 * math.pi * number / 96) + 0.05 * shift[number]
        one, two = plain.normalize(value, ts), seasonal.normalize(value, ts)
        if number > 96 * 6:
            assert one is not None and two is not None
            worst["plain"] = max(worst["plain"], abs(one))
            worst["seasonal"] = max(worst["seasonal"], abs(two))
    rise = seasonal.normalize(math.sin(0) + 2.0, 24 * 12 * HOUR_MS)
    assert rise is not None and rise > 4  # what is unusual for the hour is still seen
    detector = PageHinkley(1.0, 12.0, "both")
    cleaner = make_cleaner(rhythm=True)
    alarms = 0
    for number in range(24 * 4 * 30):
        value = math.sin(2 * math.pi * number / 96) + 0.05 * noise(1, seed=number)[0]
        score = cleaner.normalize(value, number * HOUR_MS // 4)
        alarms += score is not None and number > 96 * 4 and detector.update(score)
    assert alarms == 0


def test_the_cleaner_continues_bit_for_bit() -> None:
    whole, half = make_cleaner(rhythm=True), make_cleaner(rhythm=True)
    values = noise(400, seed=6)
    answers = [whole.normalize(value, number * HOUR_MS // 3, 0.5 + number % 3) for number, value in enumerate(values)]
    for number, value in enumerate(values[:250]):
        half.normalize(value, number * HOUR_MS // 3, 0.5 + number % 3)
    other = make_cleaner(rhythm=True)
    other.load_state(json.loads(json.dumps(half.to_state())))
    rest = [other.normalize(v, n * HOUR_MS // 3, 0.5 + n % 3) for n, v in enumerate(values) if n >= 250]
    assert rest == answers[250:]
    for cleaner in (whole, other):
        cleaner.undo(5)
    assert other.to_state() == whole.to_state()


def test_a_state_that_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(LearnerStateError, match="drift signal loss: stored state does not fit"):
        restored(PageHinkley(1, 10, "up").load_state, {"n": 3}, "drift signal loss")
