"""The users of a step: who they are, and their records in and out of the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from learner.intents.shifts import IntentState
from state.checkpoints import Checkpoint
from state.histories import Appended, append
from state.records import is_live
from state.store import UserStore
from stream.config import StreamConfig
from stream.log.partitioner import partitions_of
from stream.schema.event_batch import EventBatch
from stream.schema.messages import AsOf
from stream.schema.user_keys import user_keys

_SWEPT: Final = 64  # most users per partition scanned for expiry after a step
_SWEPT_LEAST: Final = 4


@dataclass(frozen=True, slots=True)
class StepUsers:
    """The U users of a step, by state partition and in order of first arrival."""

    names: list[bytes]
    keys: NDArray[np.uint64]
    """(U,) stable 64-bit keys"""
    partitions: NDArray[np.int64]
    """(U,) state partition, where the user's one record lies, see `stream.engine.keying`"""
    records: NDArray[Any]
    """(U,) of `state.user_dtype`"""


@dataclass(frozen=True, slots=True)
class TouchedUsers:
    """The U users who have events in a batch, in the order of their rows among the users of the step."""

    names: list[bytes]
    rows: NDArray[np.int64]
    """(U,) among the users of the step, rising"""
    event_counts: NDArray[np.int64]
    """(U,) events of each user in the batch, at least 1"""
    newest: NDArray[np.int64]
    """(U,) place of each user's newest event in the batch"""
    _events: EventBatch
    _order: NDArray[np.int64]
    _stops: NDArray[np.int64]

    @classmethod
    def of(cls, events: EventBatch) -> TouchedUsers:
        """Find the users of a batch whose `user_rows` are known."""
        order = np.argsort(events.user_rows, kind="stable")
        rows, counts = np.unique(events.user_rows, return_counts=True)
        stops = np.cumsum(counts)
        newest = order[stops - 1]
        return cls([events.users[place] for place in newest.tolist()], rows, counts, newest, events, order, stops)

    @property
    def ts(self) -> NDArray[np.int64]:
        """Time of each user's newest event, (U,) epoch milliseconds."""
        return self._events.ts[self.newest]

    def as_of(self, user: int, later: int = 0) -> AsOf:
        """Coordinates of the event of `user` behind which `later` events of theirs are to come in the batch."""
        place = int(self._order[int(self._stops[user]) - 1 - later])
        events = self._events
        return AsOf(
            partition=int(events.partitions[place]), offset=int(events.offsets[place]), ts=int(events.ts[place])
        )


class UserRecords:
    """Records of users who are remembered at the clocks, over a `UserStore`.

    Parameters
    ----------
    store
        Holds the records.
    ttl_ms
        Time to live of a user, milliseconds; 0 = for ever.
    """

    def __init__(self, store: UserStore, ttl_ms: int) -> None:
        self._store, self._ttl_ms = store, ttl_ms

    def read(self, names: list[bytes], partitions: NDArray[np.int64], now: NDArray[np.int64]) -> StepUsers:
        """Read distinct users, sorted by their state partitions (U,), with the clocks at `now` (P,).

        A step reads at the clocks' floor: the clock of each event decides later whether its user was forgotten.
        """
        parts = [
            self._store.read(p, [names[row] for row in np.flatnonzero(partitions == p).tolist()])
            for p in np.unique(partitions).tolist()
        ]
        records: NDArray[Any] = np.concatenate(parts) if parts else self._store.read(0, [])
        return StepUsers(names, user_keys(names), partitions, self._remembered(records, now[partitions]))

    def of_names(self, names: Sequence[bytes], now: NDArray[np.int64]) -> NDArray[Any]:
        """Records (B,) of users; blank if unknown."""
        partitions = partitions_of(names, self._store.partitions)
        rows = [self.read([name], partitions[row : row + 1], now).records for row, name in enumerate(names)]
        return np.concatenate(rows)

    def append(self, events: EventBatch, users: StepUsers) -> Appended:
        """Put events into the histories of their users; stores nothing."""
        return append(
            users.records,
            events.user_rows,
            events.handles,
            events.ts,
            events.actions,
            ttl_ms=self._ttl_ms,
            clock=events.clock,
        )

    def write(self, users: StepUsers) -> None:
        """Store the records; a record that never saw an event is removed."""
        for p in np.unique(users.partitions).tolist():
            rows = np.flatnonzero(users.partitions == p)
            self._store.write(p, [users.names[row] for row in rows.tolist()], users.records[rows])

    def blank(self, users: StepUsers, name: bytes) -> StepUsers:
        """Erase a user of the step."""
        row = users.names.index(name)
        records = users.records.copy()
        records[[row]] = self._store.blank(1)
        self._store.erase(int(users.partitions[row]), [name])
        return replace(users, records=records)

    def scan(self, now: NDArray[np.int64]) -> Iterator[tuple[list[bytes], NDArray[Any]]]:
        """All users with their records, some thousands at a time, with the clocks at `now` (P,)."""
        for partition in range(self._store.partitions):
            for names, records in self._store.scan(partition):
                yield names, self._remembered(records, now[partition])

    def sweep(self, now: NDArray[np.int64], step_records: int) -> None:
        """Scan some users of each partition for expiry, after a step of so many records."""
        # No result depends on it, so the number of users scanned may: all 64 cost a tenth of the learning after 14
        # records.
        self._store.sweep(now, max_users=min(_SWEPT, max(_SWEPT_LEAST, step_records // 4)))

    def _remembered(self, records: NDArray[Any], now: NDArray[np.int64]) -> NDArray[Any]:
        """The records, blank where the user is forgotten at the clock, whether `sweep` has come by already or not."""
        alive = is_live(records["seen_ts"], now, self._ttl_ms)
        gone = np.flatnonzero((records["events"] > 0) & ~alive)
        records[gone] = self._store.blank(len(gone))
        return records


def put_intents(records: NDArray[Any], state: IntentState) -> None:
    """Write what is remembered of users' intents into their records (U,)."""
    records["intent"], records["intent_events"] = state.intent, state.events
    records["candidate"], records["candidate_count"] = state.candidate, state.waited
    records["shift_level"] = state.level


def open_store(config: StreamConfig, partitions: int, live: Path, checkpoint: Checkpoint | None) -> UserStore:
    """Open the users' records as a checkpoint holds them, or empty."""
    if checkpoint is not None:
        UserStore.restore(checkpoint.path / "histories", live)
    else:
        UserStore.destroy(live)
    return UserStore(
        live,
        partitions=partitions,
        max_len=config.learner.max_len,
        list_len=config.engine.list_len,
        history_ttl_ms=config.state.history_ttl_ms,
        cache_bytes=config.state.cache_bytes,
        write_buffer_bytes=config.state.write_buffer_bytes,
    )


__all__ = ["StepUsers", "TouchedUsers", "UserRecords", "open_store", "put_intents"]
