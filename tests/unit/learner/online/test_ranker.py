import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from learner.metrics import UNRANKED
from learner.online.config import ItemStatisticsConfig, MixConfig
from learner.online.item_statistics import ItemStatistics
from learner.online.ranker import Candidates, Ranker, RankingQuery

ROWS = 40
GENERATIONS = np.zeros(ROWS, dtype=np.int64)


def filled(events: int = 200, seed: int = 0) -> ItemStatistics:
    """Memories of a ring in which item i is followed by i + 1."""
    statistics = ItemStatistics(ItemStatisticsConfig(), ROWS)
    start = np.random.default_rng(seed).integers(1, ROWS - 2, events)
    statistics.update(np.zeros((events, 3), dtype=np.int64), start, GENERATIONS, np.ones(events, dtype=bool))
    anchors = np.zeros((events, 3), dtype=np.int64)
    anchors[:, 0] = start
    statistics.update(anchors, start + 1, GENERATIONS, np.ones(events, dtype=bool))
    return statistics


def asked(history: list[list[int]], network: bool = True) -> RankingQuery:
    rows = np.array(history, dtype=np.int64)
    generator = torch.Generator().manual_seed(3)
    said = torch.randn(len(rows), ROWS, generator=generator).log_softmax(1) if network else None
    anchors = np.ascontiguousarray(rows[:, ::-1])
    return RankingQuery(anchors, rows, (rows > 0).sum(axis=1), np.full(len(rows), 60.0), said)


def ranker(**settings: object) -> Ranker:
    return Ranker(MixConfig(**settings), ItemStatisticsConfig(), torch.Generator().manual_seed(0))  # type: ignore[arg-type]


def candidates(mix: Ranker, statistics: ItemStatistics, of: RankingQuery) -> Candidates:
    return mix.candidates(statistics, GENERATIONS, of, statistics.popular(ROWS, 10))


HISTORIES = [[0, 5, 9], [0, 0, 0], [3, 3, 17], [0, 0, 38]]


def test_candidates_are_neighbors_popular_ones_and_the_networks_best() -> None:
    mix, statistics, users = ranker(network=2), filled(), asked(HISTORIES)
    assert users.network is not None
    popular = set(statistics.popular(ROWS, 10).tolist())
    found = candidates(mix, statistics, users)
    near = statistics.neighbors(users.anchors, GENERATIONS)
    for user, history in enumerate(HISTORIES):
        best = [row for row in users.network[user].topk(2).indices.tolist() if statistics.seen[row]]
        expected = (popular | set(best) | set(near.rows[near.users == user].tolist())) - set(history) - {0}
        assert found.rows[found.users == user].tolist() == sorted(expected)
    assert (found.rows[found.about] == near.rows[found.lines]).all()
    assert (found.users[found.about] == near.users[found.lines]).all()
    mine = {(user, row) for user, row in zip(found.users.tolist(), found.rows.tolist(), strict=True)}
    said = sum((user, row) in mine for user, row in zip(near.users.tolist(), near.rows.tolist(), strict=True))
    assert len(set(found.lines.tolist())) == len(found.lines) == said
    assert bool(torch.isfinite(found.features).all())


def test_features_of_neighbors_agree_with_a_loop() -> None:
    mix, statistics, users = ranker(), filled(), asked(HISTORIES, network=False)
    found = candidates(mix, statistics, users)
    near = statistics.neighbors(users.anchors, GENERATIONS)
    raw = np.zeros((len(found.rows), 12))
    for user, anchor, direction, row, short, long in zip(
        near.users, near.anchors, near.directions, near.rows, *near.counts, strict=True
    ):
        place = np.flatnonzero((found.users == user) & (found.rows == row))
        group = 0 if anchor == 0 else 1 if anchor < 3 else 2
        raw[place, direction * 3 + group] += short / (anchor + 1)
        raw[place, 6 + direction * 3 + group] += long / (anchor + 1)
    H = len(ItemStatisticsConfig().popularity)
    assert found.features[:, H + 3 + 12 : H + 3 + 24].numpy() == pytest.approx(np.log1p(raw), abs=1e-5)
    popularity = statistics.log_popularity(found.rows)
    assert found.features[:, :H].numpy() == pytest.approx(popularity.T + 8, abs=1e-5)
    fill = 10 * np.exp(popularity[2])
    first = np.log1p(raw[:, 0] / fill)
    assert found.features[:, H + 3].numpy() == pytest.approx(first, abs=1e-4)
    assert found.features[:, H + 9].numpy() == pytest.approx(np.log1p(raw[:, 6] / fill), abs=1e-4)


def test_the_ranks_are_those_of_the_scores() -> None:
    mix, statistics, users = ranker(), filled(), asked(HISTORIES)
    found = candidates(mix, statistics, users)
    targets = np.array([10, 7, 3, 38])  # 3 and 38 are in their users' histories
    with torch.no_grad():
        scores = mix.scores(found).numpy()
    ranks, loss = mix.learn(found, targets, np.array([True, False, True, True]))
    assert ranks[1:].tolist() == [UNRANKED] * 3
    own = scores[(found.users == 0) & (found.rows == 10)]
    assert ranks[0] == (scores[found.users == 0] > own).sum()
    p = np.exp(scores[found.users == 0])
    assert loss == pytest.approx(-np.log(np.exp(own[0]) / p.sum()), rel=1e-4)


def test_the_gradient_is_that_of_the_cross_entropy() -> None:
    """What the first update leaves in the moments, beside autograd of the plain formula."""
    mix, statistics, users = ranker(), filled(), asked(HISTORIES)
    found = candidates(mix, statistics, users)
    targets = np.array([10, 0, 18, 39])
    learner = np.random.default_rng(5)
    before = {
        name: torch.from_numpy(learner.normal(size=array.shape).astype(np.float32) / 9)
        for name, array in mix.to_arrays().items()
        if name in ("linear", "deep.0", "deep.1", "deep.2", "mean")
    }
    before["variance"] = torch.from_numpy(learner.uniform(0.5, 2, len(before["mean"])).astype(np.float32))
    mix.load_arrays({**mix.to_arrays(), **{name: tensor.numpy() for name, tensor in before.items()}})
    mix._measured = 10**9  # the scale of the inputs stays
    linear, first, bias, second = (
        before[name].double().requires_grad_() for name in ("linear", "deep.0", "deep.1", "deep.2")
    )
    x = found.features.double()
    standard = (x - before["mean"]) / (before["variance"].sqrt() + 0.1)
    scores = x[:, : len(linear)] @ linear + torch.relu(standard @ first + bias) @ second
    losses = []
    for user, target in enumerate(targets.tolist()):
        mine = np.flatnonzero(found.users == user)
        answer = np.flatnonzero(found.rows[mine] == target)
        if len(answer):
            losses.append(-scores[torch.from_numpy(mine)].log_softmax(0)[int(answer[0])])
    assert len(losses) == 2  # the other two are no candidates
    loss = torch.stack(losses).mean()
    expected = torch.autograd.grad(loss, [linear, first, bias, second])
    _, found_loss = mix.learn(found, targets, np.ones(4, dtype=bool))
    assert found_loss == pytest.approx(float(loss.detach()), abs=1e-5)
    after = mix.to_arrays()
    for name, gradient in zip(
        ("linear.first.0", "deep.first.0", "deep.first.1", "deep.first.2"), expected, strict=True
    ):
        assert after[name] == pytest.approx(0.1 * gradient.numpy(), abs=1e-6), name


def test_it_learns_that_followers_follow() -> None:
    mix, statistics = ranker(), filled()
    random = np.random.default_rng(5)

    def step() -> tuple[NDArray[np.int64], float]:
        start = random.integers(1, ROWS - 2, 64)
        users = asked([[0, 0, int(row)] for row in start])
        return mix.learn(candidates(mix, statistics, users), start + 1, np.ones(64, dtype=bool))

    _, before = step()
    for _ in range(60):
        ranks, after = step()
    assert after < before / 2
    assert (ranks[ranks < UNRANKED] < 3).mean() > 0.9


def test_the_best_are_sorted_and_cold_users_get_popular_ones() -> None:
    mix, statistics, users = ranker(), filled(), asked(HISTORIES)
    found = candidates(mix, statistics, users)
    places, values = mix.best(found, users.lengths == 0, 60)
    for user in range(4):
        mine = places[user][places[user] >= 0]
        assert set(mine.tolist()) == set(np.flatnonzero(found.users == user).tolist())
        assert (np.diff(values[user][: len(mine)]) <= 0).all()
    popularity = statistics.log_popularity(found.rows[places[1][:5]]).mean(axis=0)
    assert (np.diff(popularity) <= 1e-6).all()


def test_reasons_are_the_items_whose_neighbors_are_listed() -> None:
    mix, statistics, users = ranker(), filled(), asked([[0, 5, 9], [0, 0, 0]], network=False)
    found = candidates(mix, statistics, users)
    only = np.flatnonzero((found.users == 0) & (found.rows == 6))  # 6 comes after 5, not after 9
    reasons = mix.reasons(found, np.array([[only[0]], [-1]]), users.anchors, 3)
    assert reasons.tolist() == [[5, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("parts", ["item_statistics", "network"])
def test_one_part_alone_hides_the_other(parts: str) -> None:
    mix, statistics = ranker(parts=parts), filled()
    found = candidates(mix, statistics, asked(HISTORIES))
    inputs = len(ItemStatisticsConfig().popularity) + 3 + 24
    hidden = found.features[:, inputs : inputs + 3] if parts == "item_statistics" else found.features[:, :inputs]
    assert not hidden.any()


def test_nobody_knows_anything() -> None:
    mix, statistics, users = ranker(), ItemStatistics(ItemStatisticsConfig(), ROWS), asked(HISTORIES)
    found = candidates(mix, statistics, users)
    assert len(found.rows) == 0
    ranks, loss = mix.learn(found, np.array([1, 2, 3, 4]), np.zeros(4, dtype=bool))
    assert ranks.tolist() == [UNRANKED] * 4
    assert np.isnan(loss)
    places, _ = mix.best(found, users.lengths == 0, 5)
    assert (places == -1).all()
