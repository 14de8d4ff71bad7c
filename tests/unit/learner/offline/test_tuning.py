import numpy as np
import pytest
from msgspec.structs import replace

from learner.config import LearnerConfig
from learner.model.config import EncoderConfig, IntentConfig
from learner.offline.tuning import MOST_TRIALS, Recorded, SearchEnded, Trial, batches, prequential, tune
from learner.online.learner import Learner

SMALL = LearnerConfig(
    max_len=6, replay=16, encoder=EncoderConfig(hidden=8), intents=IntentConfig(count=4, queue=16), recent_pairs=100
)


def stream(n: int = 400) -> Recorded:
    random = np.random.default_rng(0)
    users = random.integers(0, 20, n)
    return Recorded(users.tolist(), ((np.arange(n) // 3 + users) % 30).tolist(), np.arange(n) * 1000)


def test_contexts_are_what_the_users_did_before() -> None:
    recorded = stream(100)
    contexts, ts = recorded.contexts(0, 100, 6)
    for event in range(100):
        before = np.flatnonzero(recorded.users[:event] == recorded.users[event])[-6:]
        assert contexts[event, 6 - len(before) :].tolist() == recorded.items[before].tolist()
        assert ts[event, 6 - len(before) :].tolist() == recorded.ts[before].tolist()
        assert not contexts[event, : 6 - len(before)].any()
        assert recorded.nth[event] == (recorded.users[:event] == recorded.users[event]).sum()


def test_the_search_is_bounded_and_keeps_only_what_is_better() -> None:
    seen: list[Trial] = []
    best, trials = tune(stream(), SMALL, trials=4, progress=seen.append)
    assert len(trials) == 4
    assert trials == seen
    kept = [trial.ndcg for trial in trials if trial.kept]
    assert kept == sorted(kept)
    again = prequential(stream(), best)
    assert len(again.ranks) == 400
    better = [trial.setting for trial in trials[1:] if trial.kept]
    assert (best == SMALL) == (not better)


def test_a_search_that_is_ended_keeps_what_was_finished() -> None:
    calls: list[tuple[str, int]] = []

    def step(setting: str, value: object, events: int) -> None:
        calls.append((setting, events))
        if setting != "defaults":
            raise SearchEnded

    best, trials = tune(stream(), SMALL, on_step=step, step_events=150)
    assert best == SMALL and [trial.setting for trial in trials] == ["defaults"]
    assert calls == [("defaults", 150), ("defaults", 300), ("defaults", 400), ("item_learning_rate", 150)]

    def at_once(setting: str, value: object, events: int) -> None:
        raise SearchEnded

    with pytest.raises(SearchEnded):
        tune(stream(), SMALL, on_step=at_once)


def test_only_what_a_configuration_may_hold_is_tried() -> None:
    base = replace(SMALL, item_learning_rate=0.5, updates=4)  # 3 x 0.5 is above 1; 4 is there already
    seen = [(trial.setting, trial.value) for trial in tune(stream(60), base, trials=MOST_TRIALS)[1]]
    assert len(seen) == MOST_TRIALS - 2
    assert ("item_learning_rate", 0.167) in seen
    assert ("item_learning_rate", 1.5) not in seen and ("updates", 4) not in seen


def test_weights_reach_the_learner() -> None:
    users, items, ts = ["a"] * 5, list("vwxyz"), np.arange(5)
    recorded = Recorded(users, items, ts, np.array([1, 2, 3, 1, 2], np.float32))
    found = [batch.weights.tolist() for batch in batches(recorded, Learner(SMALL), 3)]
    assert found == [[1, 2, 3], [1, 2]]


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="got 0 and 0.5"):
        tune(stream(10), SMALL, trials=0)
    with pytest.raises(ValueError, match="learner.capacity = 3"):
        tune(stream(), LearnerConfig(capacity=3))
    with pytest.raises(ValueError, match="equally long, got 1, 2, 1"):
        Recorded(["a"], ["x", "y"], np.arange(1))
    with pytest.raises(ValueError, match="event 1 is earlier"):
        Recorded(["a", "b"], ["x", "y"], np.array([2, 1]))
