"""Prequential runs of a learner over a recorded stream, and the search over settings of `intentstream tune FILE`.

Every trial runs a fresh learner over the same events. The first part warms it up; the rest scores it by NDCG@20, where
each event is ranked before the learner learns from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from learner.config import LearnerConfig
from learner.metrics import RankMetrics
from learner.online.histories import Histories
from learner.online.learner import Learner
from learner.online.step import StepBatch

# settings in the order in which they are tried: factors of their default, then values in its place
_FACTORS: Final[tuple[tuple[str, tuple[float, ...]], ...]] = (
    ("item_learning_rate", (1 / 3, 3.0)),
    ("mix.learning_rate", (1 / 3, 3.0)),
    ("learning_rate", (1 / 3, 3.0)),
    ("mix.linear_learning_rate", (1 / 3, 3.0)),
)
_VALUES: Final[tuple[tuple[str, tuple[Any, ...]], ...]] = (
    ("item_statistics.update_window", (2, 6)),
    ("replay_recent", (0.25, 1.0)),
    ("updates", (1, 4)),
    ("warm_start", (0.0, 1.0)),
    ("mix.smoothing", (3.0, 30.0)),
)


class SearchEnded(Exception):  # noqa: N818 (not an error)
    """Raised by a callback of `tune` to end the search with what was found so far."""


class Recorded:
    """A stream as arrays, sorted by time, from which the history before any event can be read.

    Parameters
    ----------
    users, items
        Ids of each event.
    ts
        (n,) epoch milliseconds, rising.
    weights
        (n,) weight of each event as an example; None: all 1.

    Examples
    --------
    >>> stream = Recorded(["a", "b", "a"], ["x", "y", "z"], np.arange(3))
    >>> stream.contexts(2, 3, max_len=2)[0].tolist()  # numbers from 1 in order of appearance
    [[0, 1]]
    """

    def __init__(
        self,
        users: Sequence[Any],
        items: Sequence[Any],
        ts: NDArray[np.int64],
        weights: NDArray[np.float32] | None = None,
    ) -> None:
        if not len(users) == len(items) == len(ts):
            raise ValueError(f"users, items and ts must be equally long, got {len(users)}, {len(items)}, {len(ts)}")
        if len(ts) and (np.diff(ts) < 0).any():
            raise ValueError(f"events must be in order of time, event {int((np.diff(ts) < 0).argmax()) + 1} is earlier")
        numbers: dict[Any, int] = {}
        self.items = np.fromiter((numbers.setdefault(i, len(numbers) + 1) for i in items), np.int64, len(items))
        user_numbers: dict[Any, int] = {}
        self.users = np.fromiter((user_numbers.setdefault(u, len(user_numbers)) for u in users), np.int64, len(users))
        self.names = ["", *map(str, numbers)]
        self.ts = ts
        self.weights = np.ones(len(ts), dtype=np.float32) if weights is None else weights
        self._order = np.argsort(self.users, kind="stable")
        self._place = np.empty(len(ts), dtype=np.int64)
        self._place[self._order] = np.arange(len(ts))
        starts = np.flatnonzero(np.diff(self.users[self._order], prepend=-1))
        nth = np.arange(len(ts)) - np.repeat(starts, np.diff(np.append(starts, len(ts))))
        self.nth = nth[self._place]  # (n,) events of the same user before each event

    def __len__(self) -> int:
        return len(self.ts)

    def contexts(self, start: int, stop: int, max_len: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Items and times of the users' histories before events start to stop, (n, L) each, right-aligned."""
        back = np.arange(max_len, 0, -1)
        some = back <= self.nth[start:stop, None]  # (n, L)
        events = self._order[np.where(some, self._place[start:stop, None] - back, 0)]
        return np.where(some, self.items[events], 0), np.where(some, self.ts[events], 0)


class Run(NamedTuple):
    """A finished run over a recorded stream."""

    ranks: NDArray[np.int64]
    """(n,) see `learner.PrequentialResult`"""
    learner: Learner
    """after the last event"""


def batches(stream: Recorded, learner: Learner, step_events: int = 256) -> Iterator[StepBatch]:
    """The steps of a stream, their items admitted to the learner, whose table must hold all items of the stream."""
    if stream.items.max(initial=0) > learner.config.capacity:
        raise ValueError(
            f"learner.capacity = {learner.config.capacity} is less than the {stream.items.max()} items of the stream"
        )
    for start in range(0, len(stream), step_events):
        stop = min(start + step_events, len(stream))
        contexts, context_ts = stream.contexts(start, stop, learner.config.max_len)
        names = [stream.names[number] for number in stream.items[start:stop].tolist()]
        yield StepBatch(
            users=stream.users[start:stop].astype(np.uint64),
            # numbers are handles as long as no row is recycled
            histories=Histories(contexts, np.zeros(contexts.shape, dtype=np.uint8), context_ts),
            items=learner.admit(names, np.arange(start, stop)),
            weights=stream.weights[start:stop],
            ts=stream.ts[start:stop],
        )


def prequential(
    stream: Recorded,
    config: LearnerConfig,
    step_events: int = 256,
    on_step: Callable[[int], None] | None = None,
) -> Run:
    """Rank, then learn, in steps of `step_events`; `on_step` receives the number of events done after each."""
    learner = Learner(config)
    ranks: list[NDArray[np.int64]] = []
    for batch in batches(stream, learner, step_events):
        ranks.append(learner.observe(batch).ranks)
        if config.mix.parts != "item_statistics":
            learner.learn(1)
        if on_step is not None:
            on_step(min(len(ranks) * step_events, len(stream)))
    return Run(np.concatenate(ranks) if ranks else np.zeros(0, dtype=np.int64), learner)


class Trial(NamedTuple):
    """The run of one setting."""

    setting: str
    value: Any
    ndcg: float
    """NDCG@20 after the warm-up"""
    kept: bool


def tune(
    stream: Recorded,
    base: LearnerConfig,
    trials: int = 12,
    judge_from: float = 0.5,
    progress: Callable[[Trial], None] | None = None,
    on_step: Callable[[str, Any, int], None] | None = None,
    step_events: int = 256,
) -> tuple[LearnerConfig, list[Trial]]:
    """Try settings one after the other and keep those that rank better.

    Parameters
    ----------
    stream
        Events, all of which every trial runs over.
    base
        Where the search starts.
    trials
        Most runs, that of `base` included.
    judge_from
        Share of the events that warm the learner up and do not count.
    progress
        Called after each trial.
    on_step
        Called with a trial's setting, its value and the events done after each step; may raise `SearchEnded`.
    step_events
        Events of a step.

    Returns
    -------
    The best settings, and all finished trials in order.

    Raises
    ------
    SearchEnded
        A callback raised it before the first trial was finished.
    """
    if trials < 1 or not 0 <= judge_from < 1:
        raise ValueError(f"trials must be >= 1 and judge_from in [0, 1), got {trials} and {judge_from}")
    first = int(len(stream) * judge_from)
    best, best_ndcg, done = base, -1.0, list[Trial]()
    try:
        for setting, value in [("defaults", None), *_candidates(base)][:trials]:
            config = best if value is None else _replace(best, setting, value)
            step = None if on_step is None else partial(on_step, setting, value)
            ndcg = _ndcg20(prequential(stream, config, step_events, step).ranks[first:])
            done.append(Trial(setting, value, ndcg, kept=ndcg > best_ndcg))
            if ndcg > best_ndcg:
                best, best_ndcg = config, ndcg
            if progress is not None:
                progress(done[-1])
    except SearchEnded:
        if not done:
            raise
    return best, done


def _ndcg20(ranks: NDArray[np.int64]) -> float:
    metrics = RankMetrics()
    metrics.add(ranks)
    return metrics.result()["ndcg@20"]


def _candidates(base: LearnerConfig) -> list[tuple[str, Any]]:
    """Settings and values to try: valid ones that differ from those of `base`."""
    found: list[tuple[str, Any]] = []
    for setting, factors in _FACTORS:
        default = _get(base, setting)
        found += [(setting, float(f"{default * factor:.3g}")) for factor in factors]
    found += [(setting, value) for setting, values in _VALUES for value in values]
    return [
        (setting, value) for setting, value in found if value != _get(base, setting) and _valid(base, setting, value)
    ]


def _valid(base: LearnerConfig, setting: str, value: Any) -> bool:
    try:
        msgspec.convert(msgspec.to_builtins(_replace(base, setting, value)), LearnerConfig)
    except (msgspec.ValidationError, ValueError):
        return False
    return True


def _get(config: LearnerConfig, setting: str) -> Any:
    value: Any = config
    for name in setting.split("."):
        value = getattr(value, name)
    return value


def _replace(config: LearnerConfig, setting: str, value: Any) -> LearnerConfig:
    section, _, name = setting.rpartition(".")
    if section:
        part = msgspec.structs.replace(getattr(config, section), **{name: value})
        return msgspec.structs.replace(config, **{section: part})
    return msgspec.structs.replace(config, **{name: value})


MOST_TRIALS: Final = 1 + sum(len(values) for _, values in (*_FACTORS, *_VALUES))
"""of a base that has none of the values tried"""

__all__ = ["MOST_TRIALS", "Recorded", "Run", "SearchEnded", "Trial", "batches", "prequential", "tune"]
