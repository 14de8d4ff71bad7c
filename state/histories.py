"""Events into histories: the records of a step's users after the step's events, without a loop over events.

The rule, event by event in arrival order; the tests' naive reference applies it literally, and the size of the steps
must not matter:

1. an event that comes when the clock is more than twice the time to live past the user's last sight, or whose own time
   is more than the time to live after the user's newest event, as the clock's is where there is one, starts from a
   blank record; so an event from the future blanks nothing;
2. the same item, time and action as an entry still in the history is a duplicate and changes nothing;
3. any other goes to its place by time, after all entries that are not younger; the oldest falls out when the history is
full.

Most events are in order. All of those are put in at once: history and new events one after the other in a flat array,
of which every context and every new history is a window. From a user's first other one on (late, duplicate, back after
they were forgotten) events go in rounds: the next event of each such user, then the one after, and so on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from state.records import blank_users, is_live


@dataclass(frozen=True, slots=True)
class Appended:
    """The outcome of n events of U users.

    records: (U,) after the events. accepted: (n,) False = duplicate. late: (n,) older than the user's newest at that
    moment. new_user: (n,) the user was unknown, or forgotten, before the event. contexts, context_ts, context_actions:
    (n, L) the entries before each accepted event's place, right-aligned, just before it was put there; rows of
    duplicates are 0; no rows at all when contexts are not wanted.
    """

    records: NDArray[np.void]
    accepted: NDArray[np.bool_]
    late: NDArray[np.bool_]
    new_user: NDArray[np.bool_]
    contexts: NDArray[np.int64]
    context_ts: NDArray[np.int64]
    context_actions: NDArray[np.uint8]


def append(
    records: NDArray[np.void],
    user_index: NDArray[np.int64],
    items: NDArray[np.int64],
    ts: NDArray[np.int64],
    actions: NDArray[np.uint8],
    want_contexts: bool = True,
    ttl_ms: int = 0,
    clock: NDArray[np.int64] | None = None,
) -> Appended:
    """Put events into histories; pure.

    Parameters
    ----------
    records
        (U,) distinct users, of `user_dtype`; left as they are.
    user_index
        (n,) which of them each event belongs to, in arrival order.
    items
        (n,) item handles, not 0.
    ts
        (n,) epoch milliseconds.
    actions
        (n,) action codes.
    want_contexts
        Whether to return the contexts; (0, L) arrays otherwise.
    ttl_ms
        Time to live; 0 = for ever.
    clock
        (n,) event time so far at each event, see `Watermarks`. None: 0.

    Examples
    --------
    >>> from state.records import blank_users, user_dtype
    >>> users = blank_users(1, user_dtype(max_len=3, list_len=1))
    >>> one = np.zeros(3, dtype=np.int64)
    >>> done = append(users, one, np.array([7, 8, 7]), np.array([10, 30, 20]), np.zeros(3, dtype=np.uint8))
    >>> done.records["items"].tolist(), done.late.tolist()
    ([[7, 7, 8]], [False, False, True])
    """
    work = HistoryUpdate(
        records.copy(),
        np.asarray(user_index, dtype=np.int64),
        np.asarray(items, dtype=np.int64),
        np.asarray(ts, dtype=np.int64),
        np.asarray(actions, dtype=np.uint8),
        want_contexts,
        ttl_ms,
        np.zeros(len(ts), dtype=np.int64) if clock is None else np.asarray(clock, dtype=np.int64),
    )
    if len(user_index):
        work.run()
    return Appended(
        work.records, work.accepted, work.late, work.new_user, work.contexts, work.context_ts, work.context_actions
    )


def _running_maximum(values: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Largest value so far (n,) within each part; the parts begin at `starts`, values are times, 0 to 2**42."""
    part = np.zeros(len(values), dtype=np.int64)
    part[starts[1:]] = 1
    offset = np.cumsum(part) << 43
    return np.asarray(np.maximum.accumulate(values + offset) - offset)


def _blank_rows(records: NDArray[np.void], rows: NDArray[np.int64]) -> None:
    records[rows] = blank_users(1, records.dtype)[0]


class HistoryUpdate:
    """One call of `append`: the arrays it fills, and the two ways to fill them."""

    def __init__(
        self,
        records: NDArray[np.void],
        user: NDArray[np.int64],
        items: NDArray[np.int64],
        ts: NDArray[np.int64],
        actions: NDArray[np.uint8],
        want_contexts: bool,
        ttl_ms: int,
        clock: NDArray[np.int64],
    ) -> None:
        n, self.L = len(user), records["items"].shape[1]
        self.records, self.user, self.items, self.ts, self.actions = records, user, items, ts, actions
        self.want_contexts, self.ttl_ms, self.clock = want_contexts, ttl_ms, clock
        self.present = np.where(clock > 0, np.minimum(ts, clock), ts)  # (n,) time of each event that may be believed
        self.seen = np.maximum(ts, clock)  # (n,) a late event counts as a sight of its user at the clock
        self.accepted = np.ones(n, dtype=bool)
        self.late = np.zeros(n, dtype=bool)
        self.new_user = np.zeros(n, dtype=bool)
        rows = n if want_contexts else 0
        self.contexts = np.zeros((rows, self.L), dtype=np.int64)
        self.context_ts = np.zeros((rows, self.L), dtype=np.int64)
        self.context_actions = np.zeros((rows, self.L), dtype=np.uint8)

    def run(self) -> None:
        """Compute the new histories and the contexts."""
        order = np.argsort(self.user, kind="stable")  # (n,) user by user, arrival order within
        user = self.user[order]
        starts = np.flatnonzero(np.r_[True, user[1:] != user[:-1]])  # (V,) first event of each user that has one
        counts = np.diff(np.r_[starts, len(user)])  # (V,)
        unusual = self._unusual(order, user, starts)
        so_far = np.cumsum(unusual)
        hard = so_far > np.repeat(so_far[starts] - unusual[starts], counts)  # (n,) a user's first unusual event and on
        hard_counts = np.add.reduceat(hard.astype(np.int64), starts)  # (V,)
        easy_counts = counts - hard_counts
        if not hard.all():
            self._in_order(order[~hard], user[starts[easy_counts > 0]], easy_counts[easy_counts > 0])
        if hard.any():
            self._in_rounds(order[hard], hard_counts[hard_counts > 0])

    def _unusual(
        self, order: NDArray[np.int64], user: NDArray[np.int64], starts: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Events (n,) that are late, a duplicate or the first after their user was forgotten, if none before is."""
        ts, known = self.ts[order], self.records["events"][user[starts]] > 0
        last_ts = self.records["ts"][:, -1]
        newest = np.empty_like(ts)  # (n,) event time before each event, if all are in order
        newest[1:] = ts[:-1]
        newest[starts] = np.where(known, last_ts[user[starts]], ts[starts])
        unusual = ts < newest
        if self.ttl_ms:
            unusual |= self.present[order] - newest > self.ttl_ms
            seen, clock = self.seen[order], self.clock[order]
            before = np.empty_like(seen)  # (n,) when the user was seen last before each event
            before[1:] = seen[:-1]
            before[starts] = np.where(known, self.records["seen_ts"][user[starts]], seen[starts])
            before = _running_maximum(before, starts)  # the clock may go back
            unusual |= ~is_live(before, clock, self.ttl_ms)
        # An event in order can only repeat an entry of its own time, so only ties need to be looked at.
        tied = np.flatnonzero(ts == newest)
        rows = tied[known[np.searchsorted(starts, tied, side="right") - 1]]
        rows = rows[last_ts[user[rows]] == ts[rows]]
        if len(rows):
            stored, events = self.records[user[rows]], order[rows]
            same = stored["items"] == self.items[events, None]
            same &= stored["ts"] == ts[rows, None]
            same &= stored["actions"] == self.actions[events, None]
            unusual[rows] |= same.any(axis=1)
        unusual[self._repeats(order, user, ts, tied)] = True
        return unusual

    def _repeats(
        self, order: NDArray[np.int64], user: NDArray[np.int64], ts: NDArray[np.int64], tied: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Positions in `order` of events that equal another one of the same run of ties."""
        rows = np.unique(np.concatenate([tied, tied[tied > 0] - 1]))
        events = order[rows]
        keys = np.stack([user[rows], ts[rows], self.items[events], self.actions[events].astype(np.int64)])
        by = np.lexsort(keys)
        keys = keys[:, by]
        again: NDArray[np.int64] = rows[by[1:][(keys[:, 1:] == keys[:, :-1]).all(axis=0)]]
        return again

    def _in_order(self, order: NDArray[np.int64], users: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        """All events of users whose events are in order and new: windows over history and events laid end to end."""
        L, V = self.L, len(users)
        stops = np.cumsum(counts + L)
        starts = stops - counts - L  # (V,) where each user's history begins in the flat arrays
        head = starts[:, None] + np.arange(L)  # (V, L)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        context = np.repeat(starts, counts) + np.arange(len(order)) - first  # (n',) where each event's context begins
        for name, values, out in (
            ("items", self.items, self.contexts),
            ("ts", self.ts, self.context_ts),
            ("actions", self.actions, self.context_actions),
        ):
            flat = np.empty(V * L + len(order), dtype=values.dtype)
            flat[head] = self.records[name][users]
            flat[context + L] = values[order]
            windows = sliding_window_view(flat, L)
            if self.want_contexts:
                out[order] = windows[context]
            self.records[name][users] = windows[stops - L]
        seen = np.maximum.reduceat(self.seen[order], np.cumsum(counts) - counts)  # (V,)
        self.new_user[order[np.cumsum(counts) - counts]] = self.records["events"][users] == 0
        self.records["length"][users] = np.minimum(self.records["length"][users] + counts, L)
        self.records["events"][users] += counts.astype(np.uint32)
        self.records["seen_ts"][users] = np.maximum(self.records["seen_ts"][users], seen)

    def _in_rounds(self, order: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        """The r-th event of every user in round r, one user at most once per round."""
        starts = np.cumsum(counts) - counts
        by_count = np.argsort(-counts, kind="stable")  # so that the users of a round are the first ones
        starts, counts = starts[by_count], counts[by_count]
        alive = np.searchsorted(-counts, -np.arange(counts[0]), side="left")  # (rounds,) users with more than r events
        for r, users in enumerate(alive.tolist()):
            self._one_each(order[starts[:users] + r])

    def _one_each(self, events: NDArray[np.int64]) -> None:
        """One event each of distinct users, by the rule."""
        L, users, ts = self.L, self.user[events], self.ts[events]
        known = self.records["events"][users] > 0
        if self.ttl_ms:
            stale = known & (self.present[events] - self.records["ts"][users, -1] > self.ttl_ms)
            known &= is_live(self.records["seen_ts"][users], self.clock[events], self.ttl_ms)
            _blank_rows(self.records, users[stale | ~known])
        self.new_user[events] = ~known
        old = self.records[users]
        valid = np.arange(L) >= L - old["length"].astype(np.int64)[:, None]  # (b, L)
        duplicate = (
            (old["items"] == self.items[events, None])
            & (old["ts"] == ts[:, None])
            & (old["actions"] == self.actions[events, None])
            & valid
        ).any(axis=1)
        self.accepted[events[duplicate]] = False
        new = ~duplicate
        events, users, ts, old, valid = events[new], users[new], ts[new], old[new], valid[new]
        if not len(events):
            return
        younger = ((old["ts"] > ts[:, None]) & valid).sum(axis=1)  # (b,) entries after its place
        self.late[events] = younger > 0
        if self.want_contexts:
            self._contexts_before(events, old, younger)
        place = (L - 1 - younger)[:, None]  # (b, 1) its column; -1 = older than all of a full history
        columns = np.arange(L)
        take = columns + (columns < place)  # (b, L) those before it move one to the left
        rows = np.arange(len(events))[:, None]
        for name, values in (("items", self.items), ("ts", self.ts), ("actions", self.actions)):
            shifted = old[name][rows, take]
            self.records[name][users] = np.where(columns == place, values[events, None], shifted)
        self.records["length"][users] = np.minimum(old["length"].astype(np.int64) + 1, L)
        self.records["events"][users] += np.uint32(1)
        self.records["seen_ts"][users] = np.maximum(old["seen_ts"], self.seen[events])

    def _contexts_before(self, events: NDArray[np.int64], old: NDArray[np.void], younger: NDArray[np.int64]) -> None:
        columns = np.arange(self.L) - younger[:, None]  # (b, L) source column; negative = nothing there
        source, rows = np.maximum(columns, 0), np.arange(len(events))[:, None]
        for name, out in (("items", self.contexts), ("ts", self.context_ts), ("actions", self.context_actions)):
            out[events] = np.where(columns >= 0, old[name][rows, source], 0)
