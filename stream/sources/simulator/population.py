"""The users of the simulated shop, the intents that they hold, and how both change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from stream.sources.simulator.catalog import Catalog
from stream.sources.simulator.config import SimulatorConfig
from stream.sources.simulator.truth import Truth

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_DAY_MS: Final = 24 * 3600 * 1000
_RING: Final = 16  # newest items of a user that are seldom taken again


@dataclass(frozen=True, slots=True)
class _NewIntents:
    """Users whose intent differs from the one in the truth so far; parallel arrays."""

    positions: Ints  # of the event that shows it
    users: Ints  # slots
    before: Ints  # number of the intent in the truth so far, -1 for a new user
    now: Ints
    by_user: Ints  # 1 where the user has switched, 0 where the population has drifted


class Population:
    """Users and intents in arrays of fixed size, and the catalog: whatever goes makes room for the next.

    A slot is a place in these arrays and is used again; numbers of users, items and intents are not.

    Parameters
    ----------
    config
        The shop.
    rng
        Draws everything; shared with the simulator.
    """

    def __init__(self, config: SimulatorConfig, rng: np.random.Generator) -> None:
        self.config = config
        self._rng = rng
        self.truth: list[Truth] = []  # since the simulator last took it
        slots = config.intents + config.spare_intents
        self.intent_number: Ints = np.where(np.arange(slots) < config.intents, np.arange(slots), -1)
        self.shares: Floats = np.zeros(slots)
        self.shares[: config.intents] = rng.dirichlet(np.full(config.intents, 5.0))
        self.next_intent = config.intents
        self.items = Catalog(config, rng)
        users = config.users
        self.user_number: Ints = np.arange(users)
        self.main: Ints = self.draw_intent(rng.random(users))
        self.side: Ints = self.draw_other(self.main, rng.random(users))
        self._last: Ints = np.full(users, -1)
        self.held: Ints = np.zeros(users, dtype=np.int64)
        self._recorded: Ints = np.full(users, -1)  # number of the intent in the truth
        self._recent: Ints = np.full((users, _RING), -1)
        self._taken: Ints = np.zeros(users, dtype=np.int64)
        self._visits: Floats = np.cumsum(rng.lognormal(0.0, 1.0, users - config.bots))  # cumulative chance of a visit
        self._next_user = users
        self._pool: Ints = self._draw_user(config.active, config.start_ts)

        named = zip(self.items.ids(np.arange(config.items)), self.intent_number[self.items.owner].tolist(), strict=True)
        self.truth += [Truth(kind="item", position=0, item=item, intent=intent) for item, intent in named]
        bots = range(users - config.bots, users)
        self.truth += [Truth(kind="bot", position=0, user=f"u{bot}") for bot in bots]

    def counts(self) -> list[int]:
        """The next number of intents, items and users; `restore` takes them."""
        return [self.next_intent, self.items.next_number, self._next_user]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that `restore` takes."""
        return {name.removeprefix("_"): getattr(self, name) for name in _ARRAYS} | self.items.arrays()

    def restore(self, counts: list[int], arrays: dict[str, NDArray[Any]]) -> None:
        """Continue from `counts` and `arrays` of another run; `ValueError` when the shapes differ."""
        for name, here in self.arrays().items():
            stored = arrays[name]
            if stored.shape != here.shape or stored.dtype != here.dtype:
                raise ValueError(f"{name}: {stored.dtype} {stored.shape}, expected {here.dtype} {here.shape}")
        for name in _ARRAYS:
            setattr(self, name, arrays[name.removeprefix("_")])
        self.next_intent, next_item, self._next_user = counts
        self.items.restore(next_item, arrays)
        self.truth = []

    def draw_intent(self, chance: Floats) -> Ints:
        """Draw intents by their share: slots (n,) for chances (n,) from 0 to 1."""
        cumulative = np.cumsum(self.shares)
        last = int(np.flatnonzero(self.shares)[-1])
        slots: Ints = np.minimum(np.searchsorted(cumulative, chance * cumulative[-1], side="right"), last)
        return slots

    def draw_other(self, intents: Ints, chance: Floats) -> Ints:
        """Draw an intent by its share, other than the given one, for each of `intents` (n,)."""
        cumulative = np.cumsum(self.shares)
        own = self.shares[intents]
        target = chance * (cumulative[-1] - own)
        target = np.where(target >= cumulative[intents] - own, target + own, target)
        drawn = np.minimum(np.searchsorted(cumulative, target, side="right"), int(np.flatnonzero(self.shares)[-1]))
        spare = np.flatnonzero(self.shares)[:2]  # rounding at an edge may still give the same one
        slots: Ints = np.where(drawn == intents, np.where(intents == spare[0], spare[1], spare[0]), drawn)
        return slots

    def _draw_user(self, n: int, now_ms: float) -> Ints:
        """Draw visitors; the users of an intent come more often at some hours than at others."""
        chance = self._rng.random((3, n))
        first, second = np.searchsorted(self._visits, chance[:2] * self._visits[-1], side="right")
        hour = now_ms % _DAY_MS / _DAY_MS
        swing = self.config.intent_rhythm
        phase = self.main[first] * 0.618034  # spread evenly over the day, however many intents there are
        welcome = (1 + swing * np.sin(2 * np.pi * (hour + phase))) / (1 + swing)
        chosen: Ints = np.where(chance[2] < welcome, first, second)
        return chosen

    def visitors(self, n: int, now_ms: float) -> Ints:
        """User slots of `n` events: each place in the shop is held by one visitor until the visit ends."""
        rng = self._rng
        place = rng.integers(0, self.config.active, n)
        leaves = rng.random(n) < 1 / self.config.session_events
        order = np.argsort(place, kind="stable")
        ends: Ints = np.cumsum(leaves[order])  # visits ended up to and with each event, place after place
        before = ends - leaves[order]
        starts = np.flatnonzero(np.diff(place[order], prepend=-1))
        sizes = np.diff(np.append(starts, n))
        first_visit = before == np.repeat(before[starts], sizes)  # began in an earlier block
        # the visit after the e-th end is the e-th newcomer's; there is one to spare, so that no index is out of range
        newcomers = self._draw_user(int(leaves.sum()) + 1, now_ms)
        user = np.where(first_visit, self._pool[place[order]], newcomers[before - 1])
        stops = starts + sizes - 1
        self._pool[place[order[stops]]] = np.where(leaves[order[stops]], newcomers[ends[stops] - 1], user[stops])
        users = np.empty(n, dtype=np.int64)
        users[order] = user
        return users

    def choose_items(self, users: Ints, positions: Ints) -> tuple[Ints, Ints]:
        """Choose the item of each event, in every user's own order: item slots and main intent numbers, each (n,)."""
        n = len(users)
        chance = self._rng.random((8, n))
        order = np.argsort(users, kind="stable")
        starts = np.flatnonzero(np.diff(users[order], prepend=-1))
        rank = np.empty(n, dtype=np.int64)
        rank[order] = np.arange(n) - np.repeat(starts, np.diff(np.append(starts, n)))
        by_round = np.argsort(rank, kind="stable")
        items, intents = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
        found: list[_NewIntents] = []
        for events in np.split(by_round, np.cumsum(np.bincount(rank))[:-1]) if n else []:
            items[events], intents[events], new = self._one_event_each(
                users[events], chance[:, events], positions[events]
            )
            found.append(new)
        self._record_truth(found)
        return items, intents

    def _one_event_each(self, users: Ints, chance: Floats, positions: Ints) -> tuple[Ints, Ints, _NewIntents]:
        """Choose item slot and intent number of one event of each user, all different; `chance` (8, m)."""
        config = self.config
        moves = np.flatnonzero((chance[0] < config.switch_rate) & (self.held[users] >= config.min_hold))
        by_user = np.zeros(len(users), dtype=np.int64)
        if len(moves):
            movers = users[moves]
            old = self.main[movers]
            self.main[movers] = self.draw_other(old, chance[1, moves])
            self.side[movers] = old
            self.held[movers] = 0
            by_user[moves] = 1
        main = self.main[users]
        numbers = self.intent_number[main]
        at = np.flatnonzero(numbers != self._recorded[users])
        new = _NewIntents(positions[at], users[at], self._recorded[users[at]], numbers[at], by_user[at])
        self._recorded[users[at]] = numbers[at]
        intent = np.where(chance[2] < config.side_share, self.side[users], main)
        last = self._last[users]
        successor = self.items.following(last, chance[3])
        follows = (chance[4] < config.transition) & (last >= 0) & (self.items.owner[successor] == intent)
        item = np.where(follows, successor, self.items.draw(intent, chance[5]))
        again = np.flatnonzero((self._recent[users] == item[:, None]).any(axis=1))
        if len(again):
            item[again] = self.items.draw(intent[again], chance[6, again])
        item = np.where(chance[7] < config.noise, (chance[5] * config.items).astype(np.int64), item)
        self._last[users] = item
        self._recent[users, self._taken[users] % _RING] = item
        self._taken[users] += 1
        self.held[users] += 1
        return item, numbers, new

    def _record_truth(self, found: list[_NewIntents]) -> None:
        """Add to the truth who came and who switched, in order of position."""
        if not found:
            return
        positions = np.concatenate([new.positions for new in found])
        order = np.argsort(positions, kind="stable")
        columns = [
            positions,
            self.user_number[np.concatenate([new.users for new in found])],
            *(np.concatenate([getattr(new, name) for new in found]) for name in ("before", "now", "by_user")),
        ]
        for position, number, before, now, by_user in zip(*(column[order].tolist() for column in columns), strict=True):
            user = f"u{number}"
            if before < 0:
                self.truth.append(Truth(kind="user", position=position, user=user, intent=now))
            else:
                cause: Literal["user", "population"] = "user" if by_user else "population"
                self.truth.append(
                    Truth(kind="switch", position=position, user=user, from_intent=before, to_intent=now, cause=cause)
                )

    def churn(self, events: int, position: int) -> None:
        """Replace the users and items that are due to go within this many events."""
        config, rng = self.config, self._rng
        people = config.users - config.bots
        leaving = np.unique(rng.integers(0, people, min(int(rng.poisson(config.user_births * events / 1000)), people)))
        self.user_number[leaving] = self._next_user + np.arange(len(leaving))
        self._next_user += len(leaving)
        self.main[leaving] = self.draw_intent(rng.random(len(leaving)))
        self.side[leaving] = self.draw_other(self.main[leaving], rng.random(len(leaving)))
        self._last[leaving], self._recorded[leaving], self._recent[leaving] = -1, -1, -1
        self.held[leaving], self._taken[leaving] = 0, 0
        due = min(int(rng.poisson(config.item_births * events / 1000)), config.items)
        dying = np.unique(rng.integers(0, config.items, due))
        if len(dying):
            self.replace_items(dying, self.items.owner[dying], position)

    def replace_items(self, slots: Ints, owners: Ints, position: int) -> None:
        """Put new items of the intents `owners` in place of these; they inherit the popularity."""
        self.truth += [Truth(kind="item_gone", position=position, item=item) for item in self.items.ids(slots)]
        self.items.renew(slots, owners, self.intent_number[owners])
        gone = np.zeros(self.config.items + 1, dtype=bool)  # -1, no item, reads the last one
        gone[slots] = True
        self._last[gone[self._last]] = -1
        self._recent[gone[self._recent]] = -1
        named = zip(self.items.ids(slots), self.intent_number[owners].tolist(), strict=True)
        self.truth += [Truth(kind="item", position=position, item=item, intent=intent) for item, intent in named]
        self.items.index()
        self.items.link(slots)

    def settle(self, users: Ints) -> None:
        """Let these users take up an intent by the present shares."""
        main = self.draw_intent(self._rng.random(len(users)))
        changed = main != self.main[users]
        self.side[users[changed]] = self.main[users[changed]]
        self.main[users] = main
        self.held[users[changed]] = 0

    def numbers(self, intents: Ints) -> list[int]:
        """The numbers of these intent slots."""
        numbers: list[int] = self.intent_number[intents].tolist()
        return numbers


_ARRAYS: Final = (
    "intent_number",
    "shares",
    "user_number",
    "main",
    "side",
    "held",
    "_last",
    "_recorded",
    "_recent",
    "_taken",
    "_visits",
    "_pool",
)

__all__ = ["Population"]
