"""The contract of the learner that the engine drives, in the manner of river's estimator checks."""

import hashlib
import json
import resource
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from learner.config import LearnerConfig
from learner.drift.fallback import gain_of, gains
from learner.errors import LearnerError, LearnerStateError
from learner.metrics import NOT_EVALUATED, UNRANKED
from learner.model.config import EncoderConfig, IntentConfig
from learner.online.config import ItemStatisticsConfig, MixConfig
from learner.online.histories import Histories
from learner.online.learner import Learner
from learner.online.online_learner import OnlineLearner
from learner.online.step import StepBatch

CONFIG = LearnerConfig(
    max_len=8,
    capacity=300,
    batch=32,
    replay=32,
    recent_pairs=200,
    uniform_pairs=100,
    full_softmax_below=60,
    negatives=32,
    encoder=EncoderConfig(hidden=8, dropout=0.1, attention_dropout=0.1),
    intents=IntentConfig(count=4, queue=32),
    item_statistics=ItemStatisticsConfig(slots=16),
)
TINY = msgspec.structs.replace(CONFIG, capacity=20)  # rows are given away all the time


class Stream:
    """A made-up stream: item i is usually followed by i + 1; every 9th event is a dislike (action 1)."""

    def __init__(self, learner: Learner, seed: int = 0, items: int = 100) -> None:
        self.learner, self.items = learner, items
        self.random = np.random.default_rng(seed)
        self.histories: dict[int, list[tuple[int, int, int]]] = {}
        self.last = {user: int(self.random.integers(items)) for user in range(30)}
        self.number = 0

    def batch(self, n: int = 40) -> StepBatch:
        users = self.random.integers(0, 30, n)
        ids = []
        for user in users.tolist():
            jump = self.random.random() < 0.2
            self.last[user] = int(self.random.integers(self.items)) if jump else (self.last[user] + 1) % self.items
            ids.append(self.last[user])
        numbers = self.number + np.arange(n)
        self.admitted = [f"item {i}" for i in ids], numbers
        handles = self.learner.admit(*self.admitted)
        actions = (numbers % 9 == 8).astype(np.uint8)
        columns = np.zeros((3, n, CONFIG.max_len), dtype=np.int64)
        for event, user in enumerate(users.tolist()):
            columns[:, event] = self.columns(user)
            self.histories.setdefault(user, []).append((int(handles[event]), int(actions[event]), int(numbers[event])))
        self.number += n
        return StepBatch(
            users=users.astype(np.uint64),
            histories=Histories(columns[0], columns[1].astype(np.uint8), columns[2]),
            items=handles,
            weights=np.where(actions == 1, -1, 1).astype(np.float32),
            ts=numbers * 1000,
        )

    def columns(self, user: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
        history = self.histories.get(user, [])[-CONFIG.max_len :]
        padded = [(0, 0, 0)] * (CONFIG.max_len - len(history)) + history
        return np.array(padded, dtype=np.int64).T

    def users(self) -> Histories:
        columns = np.stack([self.columns(user) for user in range(31)], axis=1)  # user 30 has no history
        return Histories(columns[0], columns[1].astype(np.uint8), columns[2])


def make(config: LearnerConfig = CONFIG) -> Learner:
    return Learner(config, action_weights=(1.0, -1.0))


def run(learner: Learner, stream: Stream, steps: int) -> None:
    for _ in range(steps):
        learner.observe(stream.batch())
        learner.learn(1)


def digest(learner: Learner) -> str:
    value = hashlib.blake2b()
    learner.update_digest(value)
    return value.hexdigest()


def test_the_ranks_of_a_step_are_the_places_in_the_lists_before_it() -> None:
    """What the fallback policy compares: the learner's own lists need not be made for it."""
    learner = make()
    stream = Stream(learner)
    run(learner, stream, 30)
    batch = stream.batch()
    wanted = (batch.histories.items > 0).any(axis=1) & (batch.weights > 0)
    lists = learner.recommend(batch.histories, 10, batch.ts, "learner").items
    taken = learner.observe(batch, evaluate=False)
    assert (taken.ranks == NOT_EVALUATED).all()
    found = gains(lists, batch.items)[wanted]
    assert found.any() and not found.all()
    assert gain_of(taken.placed, 10)[wanted].tolist() == found.tolist()


def test_the_popular_items_are_the_list_for_nobody() -> None:
    learner = make()
    run(learner, Stream(learner), 30)
    nothing = np.zeros((1, CONFIG.max_len), dtype=np.int64)
    for_nobody = learner.recommend(Histories.of_items(nothing), 12).items[0]
    assert learner.popular(12).tolist() == for_nobody.tolist()
    assert learner.popular(500)[learner.size :].tolist() == [0] * (500 - learner.size)  # there are no more


def test_users_are_looked_at_with_the_items_as_they_are_now() -> None:
    learner = make(TINY)
    learner.keep_snapshot()
    stream = Stream(learner)
    run(learner, stream, 5)

    def learn() -> None:
        learner.learn(3)

    def admit() -> None:
        learner.admit([f"another {number}" for number in range(TINY.capacity)], np.arange(10**6, 10**6 + TINY.capacity))

    def roll_back() -> None:
        learner.roll_back()

    tracker = learner.tracker
    for change in (learn, admit, roll_back):
        learner.observe(stream.batch())
        rows = np.array([row for row in range(1, TINY.capacity + 1) if tracker._items and tracker._items.there[row]])
        before = tracker.codes(rows[None])
        change()
        now = tracker.codes(rows[None])
        tracker.refresh()
        assert now.tolist() == tracker.codes(rows[None]).tolist() != before.tolist()


def test_asking_changes_nothing_and_works_before_any_learning() -> None:
    learner = make()
    stream = Stream(learner)
    empty = learner.recommend(stream.users(), k=5)
    assert not empty.items.any()
    for steps in (0, 3):
        run(learner, stream, steps)
        before = digest(learner)
        first = learner.recommend(stream.users(), k=5)
        learner.intents(stream.users())
        learner.catalog()
        learner.intent_health()
        learner.lookup(["item 1", "unknown"])
        assert digest(learner) == before
        again = learner.recommend(stream.users(), k=5)
        assert np.array_equal(first.items, again.items)


@pytest.mark.parametrize("mix", [MixConfig(), MixConfig(popular=1, network=0)], ids=["default", "few candidates"])
def test_lists_hold_known_items_without_repeats_history_or_dislikes(mix: MixConfig) -> None:
    learner = make(msgspec.structs.replace(CONFIG, mix=mix))
    stream = Stream(learner)
    run(learner, stream, 8)
    histories = stream.users()
    ranking = learner.recommend(histories, k=10)
    for user in range(31):
        listed = ranking.items[user].tolist()
        assert 0 not in listed
        assert len(set(listed)) == 10
        assert not set(listed) & set(histories.items[user].tolist())
        assert set(ranking.because[user].tolist()) <= {0, *histories.items[user][histories.actions[user] == 0].tolist()}
    assert all(learner.item_ids(ranking.items.ravel()))
    assert (np.diff(ranking.scores, axis=1) <= 0).all()
    assert ranking.source[30] == 2
    assert (ranking.source[:30] == 0).all()
    more = learner.recommend(histories, k=400)
    assert ((more.items != 0).sum(axis=1) < 400).all()


def test_it_learns_the_order_of_the_stream() -> None:
    learner = make()
    stream = Stream(learner)
    run(learner, stream, 12)
    ranks = np.concatenate([learner.observe(stream.batch()).ranks for _ in range(5)])
    ranks = ranks[ranks >= 0]
    assert (ranks < 5).mean() > 0.5  # 80% are successors; by chance 5%
    assert learner.model_step == 12 * CONFIG.updates


def test_ranks_are_those_of_the_list_that_would_be_shown() -> None:
    config = msgspec.structs.replace(CONFIG, mix=msgspec.structs.replace(CONFIG.mix, chunk=256, popular=200))
    learner = make(config)
    stream = Stream(learner)
    run(learner, stream, 6)
    batch = stream.batch()
    shown = learner.recommend(batch.histories, 60, now=batch.ts)
    taken = learner.observe(batch)
    assert (taken.ranks == NOT_EVALUATED).sum() > 0  # dislikes, and users without history
    for event in np.flatnonzero((taken.ranks >= 0) & (taken.ranks < 20)).tolist():
        assert shown.items[event, taken.ranks[event]] == batch.items[event]
    for event in np.flatnonzero(taken.ranks == UNRANKED).tolist():
        assert batch.items[event] not in shown.items[event, :20].tolist()


@pytest.mark.parametrize("config", [CONFIG, TINY], ids=["roomy", "recycling"])
def test_saved_and_loaded_it_goes_on_bit_for_bit(config: LearnerConfig, tmp_path: Path) -> None:
    one = make(config)
    stream = Stream(one)
    run(one, stream, 6)
    one.observe(stream.batch())  # between take and learn: what is fresh is part of the state
    one.save(tmp_path / "saved")
    two = make(config)
    two.load(tmp_path / "saved")
    assert digest(one) == digest(two)
    one.learn(2)
    two.learn(2)
    for _ in range(3):
        batch = stream.batch()
        assert two.admit(*stream.admitted).tolist() == batch.items.tolist()
        assert one.observe(batch).ranks.tolist() == two.observe(batch).ranks.tolist()
        one.learn(1)
        two.learn(1)
    assert digest(one) == digest(two)


@pytest.mark.parametrize("config", [CONFIG, TINY], ids=["roomy", "recycling"])
def test_what_is_written_later_is_what_was_when_the_saving_began(config: LearnerConfig, tmp_path: Path) -> None:
    one = make(config)
    stream = Stream(one)
    run(one, stream, 6)
    before = digest(one)
    write = one.begin_save()
    run(one, stream, 3)
    one.forget(7)
    one.age_popularity(100)
    one.fade_followers(0.5)
    write(tmp_path / "saved")
    two = make(config)
    two.load(tmp_path / "saved")
    assert digest(two) == before != digest(one)


def test_two_savings_at_a_time_are_refused(tmp_path: Path) -> None:
    learner = make()
    first, second = learner.begin_save(), learner.begin_save()
    with pytest.raises(LearnerError, match="another save began before this one was written"):
        first(tmp_path / "first")
    second(tmp_path / "second")
    make().load(tmp_path / "second")


def test_a_disk_that_takes_no_more_is_the_systems_own_error(tmp_path: Path) -> None:
    write = make().begin_save()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            write(tmp_path / "saved")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_two_runs_are_equal_and_another_seed_is_not() -> None:
    def after(seed: int) -> str:
        learner = make(msgspec.structs.replace(CONFIG, seed=seed))
        run(learner, Stream(learner), 4)
        return digest(learner)

    assert after(0) == after(0)
    assert after(0) != after(1)


def test_global_randomness_is_neither_used_nor_moved() -> None:
    torch.manual_seed(1)
    learner = make()
    before = torch.get_rng_state()
    run(learner, Stream(learner), 2)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    other = make()
    run(other, Stream(other), 2)
    assert digest(learner) == digest(other)


def test_memory_is_bounded_when_items_keep_coming(tmp_path: Path) -> None:
    learner = make(TINY)
    stream = Stream(learner, items=100_000)
    sizes = []
    for step in range(12):
        run(learner, stream, 1)
        if step in (7, 11):
            learner.save(tmp_path / str(step))
            sizes.append(sum(file.stat().st_size for file in (tmp_path / str(step)).iterdir()))
    assert learner.size == 20
    assert sizes[1] < sizes[0] * 1.05


def test_inputs_are_not_kept() -> None:
    learner = make()
    stream = Stream(learner)
    run(learner, stream, 2)
    batch = stream.batch()
    learner.observe(batch)
    before = digest(learner)
    past = batch.histories
    for column in (past.items, past.actions, past.ts, batch.users, batch.items, batch.weights, batch.ts):
        column[...] = 1
    assert digest(learner) == before


@pytest.mark.parametrize(("ratio", "most"), [(0.0, 4), (2.0, 12), (1000.0, 36)])
def test_a_small_step_replays_so_many_pairs_for_each_fresh_one(ratio: float, most: int) -> None:
    learner = Learner(msgspec.structs.replace(CONFIG, replay_ratio=ratio), [1.0, -1.0])
    stream = Stream(learner)
    for _ in range(10):
        learner.observe(stream.batch())
    learner.learn()
    learner.observe(stream.batch(4))
    assert most / 2 <= learner.learn().examples <= most  # some pairs have no history to learn from


def test_a_forgotten_user_is_not_in_the_saved_replay(tmp_path: Path) -> None:
    learner = make()
    run(learner, Stream(learner), 5)
    learner.forget(7)
    learner.save(tmp_path / "saved")
    with np.load(tmp_path / "saved" / "arrays.npz") as stored:
        for name in ("recent", "uniform"):
            held = stored[f"replay.{name}.items"] != 0
            assert not (stored[f"replay.{name}.users"][held] == 7).any()
            assert held.any()


def test_intents_are_of_those_with_a_history() -> None:
    learner = make()
    stream = Stream(learner)
    run(learner, stream, 5)
    view = learner.intents(stream.users())
    assert view.nearest[30] == -1
    assert ((view.nearest[:30] >= 0) & (view.nearest[:30] < 4)).all()
    assert (view.confidence[:30] > 0).all()
    catalog = learner.catalog(items=3)
    assert [info.intent for info in catalog] == [0, 1, 2, 3]
    assert sum(info.share for info in catalog) == pytest.approx(1)
    assert all(len(info.items) == 3 for info in catalog)
    assert 1 <= learner.intent_health()["effective"] <= 4


def test_nothing_at_all_can_be_taken_and_learned() -> None:
    learner = make()
    blank = np.zeros((0, CONFIG.max_len), dtype=np.int64)
    none = np.zeros(0, dtype=np.int64)
    floats = none.astype(np.float32)
    taken = learner.observe(StepBatch(none.astype(np.uint64), Histories.of_items(blank), none, floats, none))
    assert len(taken.ranks) == 0
    assert learner.learn(3).examples == 0
    assert learner.recommend(Histories.of_items(blank), 5).items.shape == (0, 5)
    assert learner.admit([], none).shape == (0,)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "network.pt").unlink(), "cannot be read"),
        (lambda folder: (folder / "arrays.npz").write_bytes(b"PK"), "cannot be read"),
        (lambda folder: shorten(folder / "arrays.npz"), "cannot be read"),
        (lambda folder: (folder / "network.pt").write_bytes(b"spoiled"), "cannot be read"),
        (lambda folder: shorten(folder / "network.pt"), "cannot be read"),
        (lambda folder: (folder / "learner.json").write_text("{"), "cannot be read"),
        (lambda folder: change(folder, "format", 99), "format 99"),
        (lambda folder: change(folder, "shape", {"max_len": 9}), "learner.capacity = None"),
    ],
)
def test_what_cannot_be_loaded_is_refused(spoil: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    learner = make()
    learner.save(tmp_path / "saved")
    spoil(tmp_path / "saved")
    with pytest.raises(LearnerStateError, match=says) as caught:
        make().load(tmp_path / "saved")
    assert str(tmp_path) in str(caught.value)


def shorten(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-50])


def change(folder: Path, key: str, value: object) -> None:
    small = json.loads((folder / "learner.json").read_text())
    (folder / "learner.json").write_text(json.dumps(small | {key: value}))


def test_another_shape_is_refused(tmp_path: Path) -> None:
    make().save(tmp_path / "saved")
    with pytest.raises(LearnerStateError, match="learner.intents.count = 4, the configuration says 5"):
        make(msgspec.structs.replace(CONFIG, intents=IntentConfig(count=5, queue=32))).load(tmp_path / "saved")


def test_five_lines() -> None:
    learner = OnlineLearner(CONFIG, max_users=3)
    learner.learn(["a", "b", "c", "d"] * 10, [f"{i % 7}" for i in range(40)], list(range(40)))
    assert learner.intent("a") is None  # dropped: 3 users are kept
    known = [user for user in "abcd" if learner.intent(user) is not None]
    assert len(known) <= 3
    learner.forget("d")
    assert learner.intent("d") is None
    assert len(learner.recommend("nobody", 4)) == 4
    with pytest.raises(ValueError, match="equally long, got 1, 2, 1"):
        learner.learn(["a"], ["x", "y"], [1])
    with pytest.raises(ValueError, match="got 0 and 256"):
        OnlineLearner(CONFIG, max_users=0)
