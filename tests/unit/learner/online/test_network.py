import msgspec
import numpy as np
import pytest
import torch

from learner.config import LearnerConfig
from learner.model.config import EncoderConfig, IntentConfig
from learner.online.network import Network, buckets, lengths_of

SMALL = LearnerConfig(
    max_len=6,
    encoder=EncoderConfig(hidden=8, dropout=0.1, attention_dropout=0.0),
    intents=IntentConfig(count=4, queue=16),
    full_softmax_below=100,
    negatives=16,
)
SIZE = 31


def network(**changes: object) -> Network:
    net = Network(msgspec.structs.replace(SMALL, **changes))
    net.start_items(np.arange(1, SIZE))
    return net


def batch(count: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    contexts = random.integers(1, SIZE - 1, (count, 6))
    contexts[np.arange(6) < 6 - random.integers(1, 7, count)[:, None]] = 0
    return contexts, contexts[:, -1] % (SIZE - 2) + 1, np.ones(count, dtype=np.float32)


def state(net: Network) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in net.to_tensors(SIZE).items()}


def differences(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("users", [30, 100])
def test_encoding_in_groups_is_encoding_one_by_one(users: int) -> None:
    net = network(max_len=20)
    random = np.random.default_rng(1)
    contexts = random.integers(1, SIZE, (users, 20))
    contexts[np.arange(20) < 20 - random.integers(0, 21, users)[:, None]] = 0
    together = net.encode(contexts)
    for row, context in zip(together, contexts, strict=True):
        assert torch.allclose(row, net.encode(context[None])[0], atol=1e-5)
    assert not net.encode(np.zeros((2, 20), dtype=np.int64)).any()
    lengths = lengths_of(contexts)
    placed = np.concatenate([places for places, _ in buckets(lengths)])
    assert sorted(placed.tolist()) == np.flatnonzero(lengths).tolist()
    assert len(buckets(lengths)) == (1 if users == 30 else 2)


@pytest.mark.parametrize("changes", [{}, {"full_softmax_below": 0}])
def test_it_learns_what_follows(changes: dict[str, int]) -> None:
    net = network(**changes)
    losses = [net.learn(*batch(seed=seed), SIZE).loss for seed in range(150)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 1
    contexts, items, _ = batch(seed=999)
    best = net.log_probabilities(net.encode(contexts), SIZE)[:, 1:].argmax(1).numpy() + 1
    assert (best == items).mean() > 0.5


def test_the_sampled_loss_estimates_the_full_one() -> None:
    full, sampled = network(), network(full_softmax_below=0, negatives=4096)
    for net in (full, sampled):
        net.table[1:SIZE] *= 40
    contexts, items, weights = batch(count=6)
    expected = full.learn(contexts, items, weights, SIZE).loss
    estimates = []
    for _ in range(3):
        again = network(full_softmax_below=0, negatives=4096)
        again.load_tensors(sampled.to_tensors(SIZE))
        estimates.append(again.learn(contexts, items, weights, SIZE).loss)
    assert np.mean(estimates) == pytest.approx(expected, rel=0.02)


def test_rows_that_a_sampled_step_did_not_touch_stay() -> None:
    net = network(full_softmax_below=0, negatives=3)
    before = net.table.clone()
    contexts = np.array([[0, 0, 0, 0, 1, 2]])
    net.learn(contexts, np.array([3]), np.ones(1, dtype=np.float32), SIZE)
    moved = (net.table != before).any(1).nonzero().ravel().tolist()
    assert {1, 2, 3} <= set(moved)
    assert len(moved) <= 6
    assert not net.table[0].any()


def test_a_dislike_lowers_the_score() -> None:
    net = network()
    contexts = np.tile(np.array([[0, 0, 0, 0, 1, 2]]), (8, 1))
    items = np.full(8, 3)

    def score() -> float:
        return float(net.encode(contexts[:1])[0] @ net.table[3])

    before = score()
    for _ in range(20):
        net.learn(contexts, items, np.full(8, -1, dtype=np.float32), SIZE)
    assert score() < before - 0.5


@pytest.mark.parametrize("break_it", ["nan", "huge", "loss"])
def test_a_step_that_would_break_it_is_refused_and_changes_nothing(break_it: str) -> None:
    net = network(**{"max_gradient": 1e-9} if break_it == "huge" else {"max_loss": 1e-9} if break_it == "loss" else {})
    if break_it == "nan":
        net.learn(*batch(), SIZE)
    weights = batch()[2] * (np.float32(np.nan) if break_it == "nan" else np.float32(1))
    before = state(net)
    outcome = net.learn(*batch()[:2], weights, SIZE)
    assert not outcome.accepted
    changed = differences(before, {name: state(net)[name] for name in before})
    assert {name for name in changed if not name.startswith("generator.")} == set()
    assert len(net.refused) == 1
    assert sorted(net.refused[0].items.tolist()) == sorted(batch()[1].tolist())
    for _ in range(10):
        net.learn(*batch()[:2], weights, SIZE)
    assert len(net.refused) == SMALL.keep_refused
    again = network()
    again.load_tensors(net.to_tensors(SIZE))
    assert len(again.refused) == SMALL.keep_refused


@pytest.mark.parametrize("clustering", ["paper", "none"])
@pytest.mark.parametrize("stop", [True, False])
def test_other_clusterings_learn_too(clustering: str, stop: bool) -> None:
    net = network(intents=IntentConfig(count=4, queue=0, clustering=clustering, stop_gradient=stop))  # type: ignore[arg-type]
    before = net.centers.weight.detach().clone()
    net.learn(*batch(), SIZE)
    assert torch.equal(before, net.centers.weight) == (clustering == "none")


def test_a_new_item_starts_from_the_contexts_that_led_to_it() -> None:
    net = network()
    net.table[1:SIZE] *= 50
    lonely, led = net.table[29].clone(), net.table[30].clone()
    net.warm_start(np.array([29, 30]), np.array([[0] * 6, [0, 0, 0, 4, 5, 6]]))
    assert torch.equal(net.table[29], lonely)
    expected = led + SMALL.warm_start * net.table[[4, 5, 6]].mean(0)
    assert torch.allclose(net.table[30], expected)


def test_nothing_to_learn_is_no_step() -> None:
    net = network()
    before = state(net)
    outcome = net.learn(np.zeros((2, 6), dtype=np.int64), np.array([1, 0]), np.ones(2, dtype=np.float32), SIZE)
    assert (outcome.accepted, outcome.examples) == (True, 0)
    assert differences(before, state(net)) == set()
