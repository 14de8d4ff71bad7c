from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learner.online.config import ItemStatisticsConfig
from learner.online.item_statistics import ItemStatistics

ROWS = 12
CONFIG = ItemStatisticsConfig(
    popularity=(3.0, 20.0), neighbors=(2.0, 9.0), slots=ROWS, update_window=2, candidate_window=3, share=0.0
)
EVENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, ROWS - 1), st.booleans()), max_size=60)
NO_RECYCLING = np.zeros(ROWS, dtype=np.int64)


class Naive:
    """The same statistics, one event at a time."""

    def __init__(self) -> None:
        self.counted: list[int] = []
        self.followers: dict[int, list[int]] = {row: [] for row in range(ROWS)}
        self.predecessors: dict[int, list[int]] = {row: [] for row in range(ROWS)}
        self.seen = [0] * ROWS

    def take(self, anchors: list[int], row: int, positive: bool) -> None:
        self.seen[row] += 1
        if not positive:
            return
        self.counted.append(row)
        for anchor in anchors[: CONFIG.update_window][::-1]:
            if anchor and anchor != row:
                self.followers[anchor] = self.followers[anchor] + [row]
                self.predecessors[row] = self.predecessors[row] + [anchor]

    def share(self, row: int, half_life: float) -> float:
        weights = 0.5 ** (np.arange(len(self.counted))[::-1] / half_life)
        own = weights[np.array(self.counted, dtype=int) == row].sum()
        return float(np.log((own + 0.01) / (weights.sum() + 0.01)))

    def neighbors(self, anchors: list[int]) -> dict[tuple[int, int, int], list[float]]:
        found = {}
        for place, anchor in enumerate(anchors[: CONFIG.candidate_window]):
            for direction, lists in enumerate((self.followers, self.predecessors)):
                near = lists[anchor] if anchor else []
                for row in set(near):
                    ages = [age for age, other in enumerate(near[::-1]) if other == row]
                    found[place, direction, row] = [sum(0.5 ** (a / h) for a in ages) for h in CONFIG.neighbors]
        return found


def anchors_of(history: list[int]) -> list[int]:
    return (history[::-1] + [0, 0, 0])[:3]


@settings(max_examples=60)
@given(EVENTS, st.integers(1, 7))
def test_batches_agree_with_a_loop(events: list[tuple[int, int, bool]], size: int) -> None:
    naive, statistics = Naive(), ItemStatistics(CONFIG, ROWS)
    histories: dict[int, list[int]] = {user: [] for user in range(4)}
    anchors = []
    for user, row, positive in events:
        anchors.append(anchors_of(histories[user]))
        naive.take(anchors[-1], row, positive)
        histories[user].append(row)
    for start in range(0, len(events), size):
        part = slice(start, start + size)
        statistics.update(
            np.array(anchors[part], dtype=np.int64),
            np.array([row for _, row, _ in events[part]], dtype=np.int64),
            NO_RECYCLING,
            np.array([positive for _, _, positive in events[part]]),
        )
    assert statistics.seen.tolist() == naive.seen
    got = statistics.log_popularity(np.arange(1, ROWS))
    for place, half_life in enumerate(CONFIG.popularity):
        assert got[place] == pytest.approx([naive.share(row, half_life) for row in range(1, ROWS)], abs=1e-6)
    asked = [anchors_of(history) for history in histories.values()]
    near = statistics.neighbors(np.array(asked), NO_RECYCLING)
    lines: dict[int, dict[tuple[int, int, int], list[float]]] = {user: {} for user in range(4)}
    for user, *key, counts in zip(near.users, near.anchors, near.directions, near.rows, near.counts.T, strict=True):
        lines[int(user)][tuple(map(int, key))] = counts.tolist()  # type: ignore[index]  # three numbers
    for user, expected in enumerate(map(naive.neighbors, asked)):
        assert lines[user].keys() == expected.keys()
        for key3, values in expected.items():
            assert lines[user][key3] == pytest.approx(values, rel=1e-5)
    popular = set(statistics.popular(ROWS, 6).tolist())
    assert popular <= set(naive.counted)
    for half_life in CONFIG.popularity if naive.counted else ():
        shares = {row: naive.share(row, half_life) for row in set(naive.counted)}
        assert any(share >= max(shares.values()) - 1e-6 for row, share in shares.items() if row in popular)


def one_event(statistics: ItemStatistics, anchor: int, row: int, generations: NDArray[np.int64]) -> None:
    statistics.update(np.array([[anchor]]), np.array([row]), generations, np.array([True]))


def test_a_recycled_row_is_no_neighbor_and_not_popular() -> None:
    statistics, generations = ItemStatistics(CONFIG, ROWS), NO_RECYCLING.copy()
    one_event(statistics, 1, 2, generations)
    one_event(statistics, 2, 3, generations)
    generations[2] += 1
    statistics.clear(np.array([2]))
    assert statistics.neighbors(np.array([[1], [3]]), generations).rows.tolist() == []
    assert statistics.neighbors(np.array([[2]]), generations).rows.tolist() == []
    assert statistics.seen[2] == 0
    assert 2 not in statistics.popular(ROWS, 10).tolist()


def test_neighbors_that_hardly_count_are_not_read() -> None:
    config = ItemStatisticsConfig(neighbors=(1e6, 1e6), slots=ROWS, update_window=1, share=0.1)
    statistics, generations = ItemStatistics(config, ROWS), NO_RECYCLING.copy()
    for row in [2] * 17 + [3] * 2 + [4]:  # 85%, 10% and 5% of what follows 1
        one_event(statistics, 1, row, generations)
    near = statistics.neighbors(np.array([[1]]), generations)
    assert near.rows[near.directions == 0].tolist() == [2, 3]
    generations[2] += 1  # what is gone does not count: 3 and 4 are all that follows
    near = statistics.neighbors(np.array([[1]]), generations)
    assert near.rows[near.directions == 0].tolist() == [3, 4]


def test_a_neighbor_that_counts_lately_is_read() -> None:
    config = ItemStatisticsConfig(neighbors=(2.0, 1e6), slots=ROWS, update_window=1, share=0.1)
    statistics = ItemStatistics(config, ROWS)
    for row in [4] + [2] * 17 + [3]:  # 3 and 4 came once of 19 times, 3 just now
        one_event(statistics, 1, row, NO_RECYCLING)
    near = statistics.neighbors(np.array([[1]]), NO_RECYCLING)
    assert sorted(near.rows[near.directions == 0].tolist()) == [2, 3]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(4, ROWS - 1)), min_size=1, max_size=60), st.integers(1, 7))
def test_the_neighbors_that_count_least_make_room(pairs: list[tuple[int, int]], size: int) -> None:
    slots = 3
    statistics = ItemStatistics(
        ItemStatisticsConfig(popularity=(9.0,), neighbors=(2.0, 9.0), slots=slots, update_window=1, share=0.0), ROWS
    )
    held: dict[int, dict[int, float]] = {1: {}, 2: {}, 3: {}}
    for start in range(0, len(pairs), size):
        part = pairs[start : start + size]
        anchors, rows = (np.array(column) for column in zip(*part, strict=True))
        statistics.update(anchors[:, None], rows, NO_RECYCLING, np.ones(len(part), dtype=bool))
        for anchor, counts in held.items():
            came: dict[int, float] = {}
            for row in [row for other, row in part if other == anchor]:
                for known in (counts, came):
                    for one in known:
                        known[one] *= 0.5 ** (1 / 9.0)
                known = counts if row in counts else came
                known[row] = known.get(row, 0.0) + 1
            room = slots - len(counts)
            stay = sorted(counts, key=lambda row: -counts[row])  # newcomers go before those who count least
            came = dict(sorted(came.items(), key=lambda one: -one[1])[:slots])
            counts = {row: counts[row] for row in stay[: len(counts) - max(0, len(came) - room)]} | came
            held[anchor] = counts
        near = statistics.neighbors(np.array([[1], [2], [3]]), NO_RECYCLING)
        follow = near.directions == 0
        for user, anchor in enumerate(held):
            mine = follow & (near.users == user)
            got = dict(zip(near.rows[mine].tolist(), near.counts[1, mine].tolist(), strict=True))
            assert len(got) == len(held[anchor]) <= slots
            assert sorted(got.values()) == pytest.approx(sorted(held[anchor].values()), rel=1e-5)


def test_popularity_survives_its_own_rescaling() -> None:
    statistics = ItemStatistics(ItemStatisticsConfig(popularity=(1.0, 50.0)), 4)
    blank = np.zeros((500, 3), dtype=np.int64)
    rows = np.tile([1, 2], 250)
    for _ in range(6):  # 3,000 half-lives: float64 ends at 1,023
        statistics.update(blank, rows, NO_RECYCLING[:4], np.ones(500, dtype=bool))
    shares = np.exp(statistics.log_popularity(np.array([1, 2, 3])))
    assert np.isfinite(shares).all()
    assert shares[0] == pytest.approx([1 / 3, 2 / 3, 0.005], abs=0.004)


def test_faded_neighbors_weigh_less_against_those_to_come() -> None:
    statistics = ItemStatistics(CONFIG, ROWS)
    for row in (2, 2, 2, 3):
        one_event(statistics, 1, row, NO_RECYCLING)
    popularity = statistics.log_popularity(np.arange(ROWS))
    before = statistics.neighbors(np.array([[1], [2]]), NO_RECYCLING)
    statistics.fade_neighbors(0.25)
    after = statistics.neighbors(np.array([[1], [2]]), NO_RECYCLING)
    assert after.rows.tolist() == before.rows.tolist()
    assert set(after.directions.tolist()) == {0, 1}
    assert after.counts == pytest.approx(before.counts / 4)
    assert np.array_equal(popularity, statistics.log_popularity(np.arange(ROWS)))
    one_event(statistics, 1, 4, NO_RECYCLING)
    near = statistics.neighbors(np.array([[1]]), NO_RECYCLING)
    assert near.counts[:, near.rows == 4].ravel().tolist() == [1, 1]
    assert near.rows[near.counts[1].argmax()] == 4


def test_more_of_the_items_before_an_event_count_where_that_is_asked() -> None:
    statistics = ItemStatistics(CONFIG, ROWS)
    statistics.update(np.array([[1, 2, 3]]), np.array([4]), NO_RECYCLING, np.array([True]), window=3)
    statistics.update(np.array([[1, 2, 3]]), np.array([5]), NO_RECYCLING, np.array([True]))
    near = statistics.neighbors(np.array([[1], [2], [3]]), NO_RECYCLING)
    after = near.directions == 0
    pairs = zip(near.users[after].tolist(), near.rows[after].tolist(), strict=True)
    assert sorted(pairs) == [(0, 4), (0, 5), (1, 4), (1, 5), (2, 4)]


def test_growing_and_loading_lose_nothing() -> None:
    one = ItemStatistics(CONFIG, 4)
    one_event(one, 1, 2, NO_RECYCLING)
    one.grow(ROWS)
    one_event(one, 2, 9, NO_RECYCLING)
    two = ItemStatistics(CONFIG, ROWS)
    two.load_arrays(one.to_arrays(10))
    for statistics in (one, two):
        one_event(statistics, 9, 3, NO_RECYCLING)
    for key, array in one.to_arrays(ROWS).items():
        assert np.array_equal(array, two.to_arrays(ROWS)[key]), key


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"popularity": [500, 100]}, r"popularity = \[500.0, 100.0\]: the half-lives must rise"),
        ({"popularity": [100, 100]}, "the half-lives must rise"),
        ({"neighbors": [60, 50]}, r"neighbors = \[60.0, 50.0\]: the short half-life must not be above the long one"),
    ],
)
def test_a_bad_configuration_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(settings, ItemStatisticsConfig)
