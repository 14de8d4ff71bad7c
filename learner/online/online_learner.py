"""The learner in five lines: arrays of user, item and time in; lists and intents out. No log and no disk."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from learner.config import LearnerConfig
from learner.online.histories import Histories
from learner.online.learner import Learner
from learner.online.step import LearnReport, StepBatch


class OnlineLearner:
    """Learn from events as they come and recommend at any time, with histories kept in memory.

    Parameters
    ----------
    config
        The learner's settings; None takes the defaults.
    max_users
        Histories kept; one more user drops the longest-unseen.
    step_events
        Events taken at once; after each such step there is one learning step.

    Examples
    --------
    >>> learner = OnlineLearner()
    >>> users, items = ["ann", "bob"] * 40, ["tea", "nut", "cup", "oil", "pot", "salt"] * 13 + ["tea", "nut"]
    >>> report = learner.learn(users, items, range(80))
    >>> learner.learn(["cid"], ["tea"], [81]).examples > 0
    True
    >>> len(learner.recommend("cid", k=3)), learner.intent("cid") is None, learner.intent("nobody") is None
    (3, False, True)
    """

    def __init__(self, config: LearnerConfig | None = None, max_users: int = 1_000_000, step_events: int = 256) -> None:
        if max_users < 1 or step_events < 1:
            raise ValueError(f"max_users and step_events must be >= 1, got {max_users} and {step_events}")
        self.learner = Learner(config or LearnerConfig())
        self._max_users = max_users
        self._step_events = step_events
        self._histories: OrderedDict[Hashable, tuple[int, NDArray[np.int64]]] = OrderedDict()
        self._events = 0
        self._users = 0

    def learn(self, users: Sequence[Hashable], items: Sequence[str], ts: Sequence[int]) -> LearnReport:
        """Take events in the order given: rank, remember, then learn. The report is of the last learning step."""
        if not len(users) == len(items) == len(ts):
            raise ValueError(f"users, items and ts must be equally long, got {len(users)}, {len(items)}, {len(ts)}")
        report = LearnReport(0, float("nan"), 0, 0)
        for start in range(0, len(users), self._step_events):
            part = slice(start, start + self._step_events)
            self._observe(users[part], items[part], np.array(ts[part], dtype=np.int64))
            report = self.learner.learn(1)
        return report

    def _observe(self, users: Sequence[Hashable], items: Sequence[str], ts: NDArray[np.int64]) -> None:
        n, L = len(users), self.learner.config.max_len
        handles = self.learner.admit([str(item) for item in items], self._events + np.arange(n))
        self._events += n
        contexts = np.zeros((n, L), dtype=np.int64)
        keys = np.zeros(n, dtype=np.uint64)
        for event, user in enumerate(users):
            key, history = self._histories.pop(user, (self._users, np.zeros(L, dtype=np.int64)))
            self._users += key == self._users
            contexts[event], keys[event] = history, key
            self._histories[user] = key, np.append(history[1:], handles[event])
            if len(self._histories) > self._max_users:
                self._histories.popitem(last=False)
        weights = np.ones(n, dtype=np.float32)
        self.learner.observe(StepBatch(keys, Histories.of_items(contexts), handles, weights, ts), evaluate=False)

    def _history(self, user: Hashable) -> Histories:
        known = self._histories.get(user)
        items = np.zeros(self.learner.config.max_len, dtype=np.int64) if known is None else known[1]
        return Histories.of_items(items[None])

    def recommend(self, user: Hashable, k: int = 10) -> list[str]:
        """The k best items that the user has not taken; the popular ones for an unknown user."""
        ranking = self.learner.recommend(self._history(user), k)
        return [item for item in self.learner.item_ids(ranking.items[0]) if item]

    def intent(self, user: Hashable) -> int | None:
        """The user's nearest intent; None without history."""
        nearest = int(self.learner.intents(self._history(user)).nearest[0])
        return None if nearest < 0 else nearest

    def forget(self, user: Hashable) -> None:
        """Erase the user's history and every pair of theirs that could be replayed."""
        known = self._histories.pop(user, None)
        if known is not None:
            self.learner.forget(known[0])


__all__ = ["OnlineLearner"]
