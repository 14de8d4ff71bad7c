"""Ids of the centers: kept while one moves, new when one is placed anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from learner.errors import LearnerStateError
from learner.intents.config import IdentityConfig
from learner.intents.identity import IntentIdentity, Successor
from learner.intents.naming import name_intent

CONFIG = IdentityConfig(half_life_events=400, check_events=100, youth_events=200, pool=32, least_users=4)
D = 8


def axes(count: int) -> NDArray[np.float32]:
    return np.eye(D, dtype=np.float32)[:count]


def near(center: NDArray[np.float32], n: int, seed: int = 0, noise: float = 0.1) -> NDArray[np.float32]:
    points = center + noise * np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32)
    return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True), dtype=np.float32)


def observe(identity: IntentIdentity, centers: NDArray[np.float32], users: NDArray[np.float32]) -> None:
    cosine = users @ centers.T
    identity.observe(cosine.argmax(axis=1), 2 - 2 * cosine.max(axis=1), users)


def two_live_one_dead() -> IntentIdentity:
    """Nobody is near center 2; a group of users is near no center."""
    identity = IntentIdentity(CONFIG, 3, D)
    centers = axes(3)
    for seed in range(10):
        observe(identity, centers, np.concatenate([near(centers[0], 20, seed), near(centers[1], 20, seed + 50)]))
    observe(identity, centers, near(axes(6)[5] + 0.2 * centers[0], 10, 99))
    return identity


def test_a_center_keeps_its_id_however_far_it_moves() -> None:
    identity = IntentIdentity(CONFIG, 3, D)
    centers = axes(3)
    for number in range(60):
        angle = number * np.pi / 60
        centers = axes(3).copy()
        centers[0] = np.cos(angle) * axes(4)[0] + np.sin(angle) * axes(4)[3]
        observe(identity, centers, np.concatenate([near(center, 10, number) for center in centers]))
        identity.record_movement(centers, number * 100)
        assert identity.replace_dead(centers, number * 100) == []
    assert identity.ids.tolist() == [0, 1, 2]
    speeds = [entry.speed for entry in identity.entries(centers)]
    assert speeds[0] > 0.1 > speeds[1] == speeds[2]


def test_a_dead_center_is_placed_among_the_badly_served_under_a_new_id() -> None:
    identity = two_live_one_dead()
    births = identity.replace_dead(axes(3), 1000)
    assert [(birth.place, birth.died, birth.born) for birth in births] == [(2, 2, 3)]
    assert births[0].center @ (axes(6)[5]) > 0.9
    assert np.linalg.norm(births[0].center) == pytest.approx(1, abs=1e-6)
    assert identity.ids.tolist() == [0, 1, 3]
    assert identity.places_of(np.array([2, 3])).tolist() == [-1, 2]
    moved = axes(3).copy()
    moved[2] = births[0].center
    assert identity.entries(moved)[2].born_at == 1000
    assert identity.record_movement(moved, 1001) == 0.0  # a birth is no movement
    assert identity.replace_dead(moved, 1150) == []  # too young to die again
    assert identity.replace_dead(moved, 1050) == []  # and not looked at before check_events


def test_an_intent_of_several_centers_keeps_its_id_when_the_center_that_gives_it_is_placed_anew() -> None:
    identity = two_live_one_dead()
    # center 2 named the intent of centers 0 and 2
    births = identity.replace_dead(axes(3), 1000, successor_of=lambda place: Successor(0, takes_id=True))
    assert [(birth.place, birth.died, birth.born) for birth in births] == [(2, 0, 3)]
    assert identity.ids.tolist() == [2, 1, 3]
    assert identity.resolve(np.array([0, 2, 1, 3, -1])).tolist() == [2, 2, 1, 3, -1]  # who held 0 is in the same intent
    assert [entry.born_at for entry in identity.entries(axes(3))] == [0, 0, 1000]


def test_who_holds_the_id_of_a_part_that_is_placed_anew_goes_on_in_the_intent_it_was_part_of() -> None:
    identity = two_live_one_dead()
    (birth,) = identity.replace_dead(axes(3), 1000, successor_of=lambda place: Successor(0, takes_id=False))
    assert (birth.died, birth.born) == (2, 3)
    assert identity.resolve(np.array([2, 0, 3, 77])).tolist() == [0, 0, 3, 77]
    again = IntentIdentity(CONFIG, 3, D)
    again.load_arrays({name: array.copy() for name, array in identity.to_arrays().items()})
    assert again.resolve(np.array([2])).tolist() == [0]
    older = {name: array for name, array in identity.to_arrays().items() if name != "others"}
    again.load_arrays(older)  # of the version before: nothing is known
    assert again.resolve(np.array([2])).tolist() == [2]


def test_without_users_who_want_the_same_the_dead_stay() -> None:
    identity = IntentIdentity(CONFIG, 3, D)
    observe(identity, axes(3), np.concatenate([near(axes(2)[0], 20), near(axes(2)[1], 20)]))
    assert identity.replace_dead(axes(3), 1000) == []
    lone = IntentIdentity(CONFIG, 3, D)
    observe(lone, axes(3), np.concatenate([near(axes(1)[0], 20), near(axes(6)[4], 1), near(axes(6)[5], 1)]))
    assert lone.replace_dead(axes(3), 1000) == []
    assert lone.ids.tolist() == [0, 1, 2]


def test_the_young_do_not_die() -> None:
    assert two_live_one_dead().replace_dead(axes(3), 150) == []


def test_a_reseed_also_takes_the_smaller_of_two_crowded_centers_and_asks_no_time() -> None:
    centers = axes(3).copy()
    centers[2] = near(centers[1], 1, noise=0.01)[0]
    identity = IntentIdentity(CONFIG, 3, D)
    identity.observe(np.repeat([0, 1, 2], [30, 30, 10]), np.zeros(70), near(centers[0], 70))
    far = near(axes(6)[5], 10)
    identity.observe(np.repeat([0], 10), np.full(10, 1.5), far)
    assert identity.replace_dead(centers, 1000) == []
    identity.replace_dead(centers, 1001)
    assert [birth.died for birth in identity.replace_dead(centers, 1002, reseed=True)] == [2]


def test_ids_are_never_used_again() -> None:
    identity = two_live_one_dead()
    seen = set(identity.ids.tolist())
    centers = axes(3).copy()
    for number in range(1, 8):
        for birth in identity.replace_dead(centers, number * 1000):
            assert birth.born not in seen
            seen.add(birth.born)
            centers[birth.place] = birth.center
        for seed in range(20):  # everybody stays with 0 and 1; the newest center dies of it
            observe(identity, centers, np.concatenate([near(axes(2)[0], 20, seed), near(axes(2)[1], 20, seed)]))
        far = axes(8)[5 + number % 3]
        identity.observe(np.zeros(10, dtype=np.int64), np.full(10, 1.5), near(far, 10, number))
    assert len(seen) >= 6


def test_it_continues_bit_for_bit_and_refuses_another_size() -> None:
    first, second = two_live_one_dead(), IntentIdentity(CONFIG, 3, D)
    first.turn_map(axes(3))
    first.record_movement(axes(3), 10)
    second.load_arrays({name: array.copy() for name, array in first.to_arrays().items()})

    def go_on(identity: IntentIdentity) -> list[Any]:
        births = identity.replace_dead(axes(3), 1000)
        observe(identity, axes(3), near(axes(2)[1], 9, 5))
        identity.turn_map(near(axes(1)[0], 3, 7))
        return [(b.place, b.died, b.born, b.center.tolist()) for b in births] + identity.entries(axes(3))

    assert go_on(first) == go_on(second)
    for name, array in first.to_arrays().items():
        assert np.array_equal(array, second.to_arrays()[name]), name
    with pytest.raises(LearnerStateError, match=r"intent identity: ids is \(3,\), expected \(4,\)"):
        IntentIdentity(CONFIG, 4, D).load_arrays(first.to_arrays())


def test_a_map_that_was_saved_after_its_first_turn_goes_on_with_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    first, second = IntentIdentity(CONFIG, 8, 16), IntentIdentity(CONFIG, 8, 16)
    first.turn_map(rng.normal(size=(8, 16)).astype(np.float32))
    second.load_arrays({name: np.array(array, order="C") for name, array in first.to_arrays().items()})
    centers = rng.normal(size=(8, 16)).astype(np.float32)
    for identity in (first, second):
        identity.turn_map(centers)
    assert first.to_arrays()["basis"].tobytes() == second.to_arrays()["basis"].tobytes()


def test_the_map_does_not_flip_when_axes_change_sign_or_order() -> None:
    rng = np.random.default_rng(0)
    centers = near(axes(1)[0], 12, 3, noise=1.0)
    identity = IntentIdentity(CONFIG, 12, D)
    identity.turn_map(centers)
    before = np.array([entry.position for entry in identity.entries(centers)])
    for _ in range(50):
        centers = centers + 0.01 * rng.normal(size=centers.shape).astype(np.float32)
        centers /= np.linalg.norm(centers, axis=1, keepdims=True)
        identity.turn_map(centers)
        after = np.array([entry.position for entry in identity.entries(centers)])
        assert np.abs(after - before).max() < 0.2
        before = after
    assert np.abs(before).max() <= 1


def test_separation_is_the_distance_to_the_nearest_other() -> None:
    entries = IntentIdentity(CONFIG, 3, D).entries(axes(3))
    assert [entry.separation for entry in entries] == pytest.approx([2**0.5] * 3)
    assert IntentIdentity(CONFIG, 1, D).entries(axes(1))[0].separation == 2.0


def test_names_come_from_categories_then_titles_then_ids() -> None:
    titles = {"a": ("Amp", "music"), "b": ("", "music"), "c": ("Drum", ""), "d": ("Door", "home")}
    assert name_intent(["a", "b", "d", "c"], titles) == "music"
    assert name_intent(["a", "d", "c", "x"], titles) == "Amp, Door, Drum"
    assert name_intent(["b", "d", "x"], titles) == "b, Door, x"
    assert name_intent(["x", "y"], {}) == "x, y"
    assert name_intent([], titles) == ""
