"""The baselines beside a replay: the same records, ranked and learned by simple methods."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from learner.metrics import RankMetrics
from state.histories import append
from state.memory_store import MemoryUserStore
from state.watermarks import Watermarks
from stream.config import StreamConfig
from stream.log.base import RecordBatch
from stream.replay.baselines import BASELINES
from stream.schema.decoder import Decoder
from stream.schema.user_keys import user_keys


class BaselineComparison:
    """The baselines over the records of a replay, with histories of their own: nothing of the engine reaches them."""

    def __init__(self, config: StreamConfig) -> None:
        self._decoder = Decoder(config.actions)
        self._liked = np.array(config.actions.weights()) > 0
        self._handles: dict[str, int] = {}
        self._ttl_ms = config.state.history_ttl_ms
        self._clocks = Watermarks(1, self._ttl_ms)
        self._users = MemoryUserStore(
            Path(), partitions=1, max_len=config.learner.max_len, list_len=1, history_ttl_ms=self._ttl_ms
        )
        self._methods = {name: make() for name, make in BASELINES.items()}
        self._metrics = {name: RankMetrics() for name in self._methods}

    def rank_then_count(self, batch: RecordBatch, *, evaluate: bool) -> None:
        """Rank the item of each event, then count the event; ranks enter the accuracy where `evaluate` is true."""
        decoded = self._decoder.decode(batch.values, batch.keys, batch.timestamps_ms)
        if not len(decoded.events):
            return
        row_of = {user: row for row, user in enumerate(dict.fromkeys(decoded.events.users))}
        user_index = np.array([row_of[user] for user in decoded.events.users], dtype=np.int64)
        items = np.array([self._handles.setdefault(item, len(self._handles) + 1) for item in decoded.events.items])
        users = list(row_of)
        ts, actions = decoded.events.ts, decoded.events.actions
        clock = self._clocks.advance(np.zeros(len(items), dtype=np.int64), ts, user_keys(users)[user_index])
        records = self._users.read(0, users)
        done = append(records, user_index, items, ts, actions, ttl_ms=self._ttl_ms, clock=clock)
        self._users.write(0, users, done.records)
        taken = np.flatnonzero(done.accepted)
        contexts = np.where(self._liked[done.context_actions[taken]], done.contexts[taken], 0)
        for name, method in self._methods.items():
            ranks = method.rank_then_count(contexts, items[taken])
            if evaluate:
                self._metrics[name].add(ranks[self._liked[actions[taken]]])

    def result(self) -> dict[str, dict[str, float]]:
        """Accuracy by baseline."""
        return {name: metrics.result() for name, metrics in self._metrics.items()}


__all__ = ["BaselineComparison"]
