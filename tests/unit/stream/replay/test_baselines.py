import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.metrics import NOT_EVALUATED, UNRANKED
from stream.replay.baselines import ItemToItemBaseline, PopularBaseline

EVENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), max_size=60)
WINDOW, FOLLOWERS = 12, 4


def naive(events: list[tuple[int, int]], votes: bool) -> list[int]:
    """The protocol of the page, with dictionaries and sorted lists."""
    histories: dict[int, list[int]] = {}
    taken: list[int] = []
    followers: dict[int, list[int]] = {}
    ranks = []
    for user, item in events:
        history = histories.setdefault(user, [])
        newest = list(dict.fromkeys(history[::-1]))[:3]
        known = [other for other in dict.fromkeys(taken) if other not in history]
        counts = {other: taken[-WINDOW:].count(other) for other in known}
        scores = {other: (0.0, counts[other]) for other in known}
        if votes:
            for place, anchor in enumerate(newest):
                for other in followers.get(anchor, []):
                    if other in scores:
                        scores[other] = (scores[other][0] + 1 / (place + 1), counts[other])
        if not history:
            ranks.append(NOT_EVALUATED)
        elif item not in scores:
            ranks.append(UNRANKED)
        else:
            above = sum(score > scores[item] for score in scores.values())
            ranks.append(above + (sum(score == scores[item] for score in scores.values()) - 1) // 2)
        for anchor in newest:
            if anchor != item:
                followers[anchor] = (followers.get(anchor, []) + [item])[-FOLLOWERS:]
        taken.append(item)
        history.append(item)
    return ranks


def contexts(events: list[tuple[int, int]]) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    histories: dict[int, list[int]] = {}
    rows = []
    for user, item in events:
        history = histories.setdefault(user, [])
        rows.append([0] * (60 - len(history)) + history)
        history.append(item)
    return np.array(rows, dtype=np.int64).reshape(len(events), 60)


@settings(max_examples=150)
@given(EVENTS)
def test_ranks_agree_with_the_protocol_in_slow_motion(events: list[tuple[int, int]]) -> None:
    items = np.array([item for _, item in events], dtype=np.int64)
    popular, item_to_item = PopularBaseline(WINDOW), ItemToItemBaseline(WINDOW, FOLLOWERS)
    assert popular.rank_then_count(contexts(events), items).tolist() == naive(events, votes=False)
    assert item_to_item.rank_then_count(contexts(events), items).tolist() == naive(events, votes=True)


def test_they_grow_with_the_catalogue() -> None:
    items = np.arange(1, 3001, dtype=np.int64)
    for baseline in (PopularBaseline(), ItemToItemBaseline()):
        baseline.rank_then_count(np.zeros((3000, 2), dtype=np.int64), items)
        assert baseline.rank_then_count(np.array([[0, 1]]), np.array([3000])).item() >= 0
