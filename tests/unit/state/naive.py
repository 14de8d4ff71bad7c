"""The rule of `state.append`, event by event in plain Python: what the fast one must agree with."""

from __future__ import annotations

from dataclasses import dataclass, field

Entry = tuple[int, int, int]  # item, ts, action


@dataclass
class NaiveUser:
    entries: list[Entry] = field(default_factory=list)
    events: int = 0
    seen_ts: int = 0


@dataclass(frozen=True)
class Outcome:
    accepted: bool
    late: bool
    new_user: bool
    context: list[Entry]


def naive_append(user: NaiveUser, entry: Entry, max_len: int, ttl_ms: int, clock: int = 0) -> Outcome:
    item, ts, action = entry
    forgotten = bool(ttl_ms) and user.seen_ts < clock - 2 * ttl_ms
    new_user = not user.events or forgotten
    present = min(ts, clock) if clock > 0 else ts
    if user.events and (forgotten or (ttl_ms and present - user.entries[-1][1] > ttl_ms)):
        user.entries, user.events, user.seen_ts = [], 0, 0
    if entry in user.entries:
        return Outcome(False, False, False, [])
    place = len([known for known in user.entries if known[1] <= ts])
    late = place < len(user.entries)
    context = user.entries[:place]
    user.entries = [*user.entries[:place], entry, *user.entries[place:]][-max_len:]
    user.seen_ts = max(user.seen_ts, ts, clock)
    user.events += 1
    return Outcome(True, late, new_user, context)
