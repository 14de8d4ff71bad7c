"""The rule of `state.append`, event by event in plain Python: what the fast one must agree with."""

from __future__ import annotations

from dataclasses import dataclass, field

Entry = tuple[int, int, int]  # item, ts, action


@dataclass
class NaiveUser:
    entries: list[Entry] = field(default_factory=list)
    events: int = 0
    last_ts: int = 0


@dataclass(frozen=True)
class Outcome:
    accepted: bool
    late: bool
    context: list[Entry]


def naive_append(user: NaiveUser, entry: Entry, max_len: int, ttl_ms: int) -> Outcome:
    item, ts, action = entry
    if ttl_ms and user.events and ts - user.last_ts > ttl_ms:
        user.entries, user.events, user.last_ts = [], 0, 0
    if entry in user.entries:
        return Outcome(False, False, [])
    place = len([known for known in user.entries if known[1] <= ts])
    late = place < len(user.entries)
    context = user.entries[:place]
    user.entries = [*user.entries[:place], entry, *user.entries[place:]][-max_len:]
    user.last_ts = max(user.last_ts, ts) if user.events else ts
    user.events += 1
    return Outcome(True, late, context)
