"""The people and the goods of the simulated shop, and how both change: the part that holds the truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.sources.simulator.config import DriftKind, SimulatorConfig

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

WORDS: Final = (
    "lamp sofa tent skates novel comic guitar camera drill paint tulip rake jacket boots watch ring puzzle robot "
    "coffee tea spice knife yoga racket pram crib leash aquarium printer laptop headset vinyl globe atlas canoe"
).split()
_DAY_MS: Final = 24 * 3600 * 1000
_SUCCESSOR_STEPS: Final = np.array([0.4, 0.7, 0.9])  # shares of an item's four successors, cumulative
_RING: Final = 16  # newest items of a user that are seldom taken again


class Truth(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is true from `position` on (the number of the record in the stream, from 0)."""

    kind: Literal["user", "switch", "bot", "item", "item_gone", "drift"]
    position: int
    user: str = ""
    item: str = ""
    intent: int = -1  # of a user or an item; intents are numbered from 0 and never again the same
    from_intent: int = msgspec.field(default=-1, name="from")
    to_intent: int = msgspec.field(default=-1, name="to")
    cause: Literal["", "user", "population"] = ""  # of a switch: the user's own, or part of a drift
    drift: Literal["", "shares", "new_intent", "lost_intent", "popularity", "concept_drift"] = ""
    intents: list[int] = []  # that a drift touches


class Population:
    """Users, items and intents in arrays of fixed size; whoever and whatever goes makes room for the next.

    A slot is a place in these arrays, a number is for ever: numbers of items, users and intents are never used again.

    Parameters
    ----------
    config
        What the shop is like.
    rng
        Draws everything; shared with the simulator.
    """

    def __init__(self, config: SimulatorConfig, rng: np.random.Generator) -> None:
        self.config = config
        self._rng = rng
        self.truth: list[Truth] = []  # since the last look
        self._drifts = 0
        slots = config.intents + config.spare_intents
        self.intent_number: Ints = np.where(np.arange(slots) < config.intents, np.arange(slots), -1)
        self._shares: Floats = np.zeros(slots)
        self._shares[: config.intents] = rng.dirichlet(np.full(config.intents, 5.0))
        self._next_intent = config.intents

        self.item_number: Ints = np.arange(config.items)
        self._owner: Ints = np.arange(config.items) % config.intents  # every intent has its items
        self.word: Ints = self._owner % len(WORDS)
        self._weight: Floats = np.power(1.0 + np.arange(config.items) // config.intents, -config.skew)
        self._successors: Ints = np.zeros((config.items, 4), dtype=np.int64)
        self._next_item = config.items
        self._index()
        self._lead_on(np.arange(config.items))

        users = config.users
        self.user_number: Ints = np.arange(users)
        self._main: Ints = self._draw_intent(rng.random(users))
        self._side: Ints = self._draw_other(self._main, rng.random(users))
        self._last: Ints = np.full(users, -1)
        self._held: Ints = np.zeros(users, dtype=np.int64)
        self._said: Ints = np.full(users, -1)  # number of the intent last told as true
        self._recent: Ints = np.full((users, _RING), -1)
        self._taken: Ints = np.zeros(users, dtype=np.int64)
        self._visits: Floats = np.cumsum(rng.lognormal(0.0, 1.0, users - config.bots))  # cumulative chance of a visit
        self._next_user = users
        self._pool: Ints = self._draw_user(config.active, config.start_ts)

        named = zip(self._item_ids(np.arange(config.items)), self.intent_number[self._owner].tolist(), strict=True)
        self.truth += [Truth(kind="item", position=0, item=item, intent=intent) for item, intent in named]
        bots = range(users - config.bots, users)
        self.truth += [Truth(kind="bot", position=0, user=f"u{bot}") for bot in bots]

    # -- to be continued later --------------------------------------------------------------------------------------

    def counts(self) -> list[int]:
        """The small state, beside `arrays`."""
        return [self._drifts, self._next_intent, self._next_item, self._next_user]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The large state."""
        return {name: getattr(self, name) for name in _ARRAYS}

    def restore(self, counts: list[int], arrays: dict[str, NDArray[Any]]) -> None:
        """Go on from what `counts` and `arrays` gave; `ValueError` when the shapes are other ones."""
        for name in _ARRAYS:
            here, stored = getattr(self, name), arrays[name]
            if stored.shape != here.shape or stored.dtype != here.dtype:
                raise ValueError(f"{name}: {stored.dtype} {stored.shape}, expected {here.dtype} {here.shape}")
            setattr(self, name, stored)
        self._drifts, self._next_intent, self._next_item, self._next_user = counts
        self.truth = []
        self._index()

    # -- draws --------------------------------------------------------------------------------------

    def _index(self) -> None:
        """Cumulative popularity, intent after intent, for draws within many intents at once."""
        order = np.argsort(self._owner, kind="stable")
        weights = self._weight[order]
        self._order = order
        self._cumulative = np.cumsum(weights)
        slots = len(self.intent_number)
        mass = np.bincount(self._owner, weights=self._weight, minlength=slots)
        counts = np.bincount(self._owner, minlength=slots)
        self._stop = np.cumsum(counts)  # in `order`, behind each intent's last item
        self._base = np.concatenate([[0.0], self._cumulative])[self._stop - counts]
        self._mass = mass
        self._first = self._stop - counts

    def _draw_item(self, intents: Ints, chance: Floats) -> Ints:
        """Items by popularity within each intent."""
        place = np.searchsorted(self._cumulative, self._base[intents] + chance * self._mass[intents], side="right")
        slots: Ints = self._order[np.clip(place, self._first[intents], self._stop[intents] - 1)]
        return slots

    def _draw_intent(self, chance: Floats) -> Ints:
        cumulative = np.cumsum(self._shares)
        last = int(np.flatnonzero(self._shares)[-1])
        slots: Ints = np.minimum(np.searchsorted(cumulative, chance * cumulative[-1], side="right"), last)
        return slots

    def _draw_other(self, intents: Ints, chance: Floats) -> Ints:
        """Intents by share, never the one that is given."""
        cumulative = np.cumsum(self._shares)
        own = self._shares[intents]
        target = chance * (cumulative[-1] - own)
        target = np.where(target >= cumulative[intents] - own, target + own, target)
        drawn = np.minimum(np.searchsorted(cumulative, target, side="right"), int(np.flatnonzero(self._shares)[-1]))
        spare = np.flatnonzero(self._shares)[:2]  # rounding at an edge may still give the same one
        slots: Ints = np.where(drawn == intents, np.where(intents == spare[0], spare[1], spare[0]), drawn)
        return slots

    def _draw_user(self, n: int, now_ms: float) -> Ints:
        """Visitors; at some hours an intent's users come more often than at others."""
        chance = self._rng.random((3, n))
        first, second = np.searchsorted(self._visits, chance[:2] * self._visits[-1], side="right")
        hour = now_ms % _DAY_MS / _DAY_MS
        swing = self.config.intent_rhythm
        phase = self._main[first] * 0.618034  # spread evenly over the day, however many intents there are
        welcome = (1 + swing * np.sin(2 * np.pi * (hour + phase))) / (1 + swing)
        chosen: Ints = np.where(chance[2] < welcome, first, second)
        return chosen

    def _item_ids(self, slots: Ints) -> list[str]:
        numbers, words = self.item_number[slots].tolist(), self.word[slots].tolist()
        return [f"{WORDS[word]}-{number}" for number, word in zip(numbers, words, strict=True)]

    # -- events --------------------------------------------------------------------------------------

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

    def follow(self, users: Ints, positions: Ints) -> tuple[Ints, Ints]:
        """Let each event choose its item, in every user's own order: item slots and main intent numbers, each (n,)."""
        n = len(users)
        chance = self._rng.random((8, n))
        order = np.argsort(users, kind="stable")
        starts = np.flatnonzero(np.diff(users[order], prepend=-1))
        rank = np.empty(n, dtype=np.int64)
        rank[order] = np.arange(n) - np.repeat(starts, np.diff(np.append(starts, n)))
        by_round = np.argsort(rank, kind="stable")
        items, intents = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
        told: list[tuple[Ints, ...]] = []
        for events in np.split(by_round, np.cumsum(np.bincount(rank))[:-1]) if n else []:
            items[events], intents[events] = self._round(users[events], chance[:, events], positions[events], told)
        self._tell(told)
        return items, intents

    def _round(self, users: Ints, chance: Floats, positions: Ints, told: list[tuple[Ints, ...]]) -> tuple[Ints, Ints]:
        """Make one event of each of these users, all different; `chance` (8, m)."""
        config = self.config
        moves = np.flatnonzero((chance[0] < config.switch_rate) & (self._held[users] >= config.min_hold))
        by_user = np.zeros(len(users), dtype=np.int64)
        if len(moves):
            movers = users[moves]
            old = self._main[movers]
            self._main[movers] = self._draw_other(old, chance[1, moves])
            self._side[movers] = old
            self._held[movers] = 0
            by_user[moves] = 1
        main = self._main[users]
        numbers = self.intent_number[main]
        news = np.flatnonzero(numbers != self._said[users])
        if len(news):
            told.append((positions[news], users[news], self._said[users[news]], numbers[news], by_user[news]))
            self._said[users[news]] = numbers[news]
        intent = np.where(chance[2] < config.side_share, self._side[users], main)
        last = self._last[users]
        successor = self._successors[last, np.searchsorted(_SUCCESSOR_STEPS, chance[3], "right")]
        follows = (chance[4] < config.transition) & (last >= 0) & (self._owner[successor] == intent)
        item = np.where(follows, successor, self._draw_item(intent, chance[5]))
        again = np.flatnonzero((self._recent[users] == item[:, None]).any(axis=1))
        if len(again):
            item[again] = self._draw_item(intent[again], chance[6, again])
        item = np.where(chance[7] < config.noise, (chance[5] * config.items).astype(np.int64), item)
        self._last[users] = item
        self._recent[users, self._taken[users] % _RING] = item
        self._taken[users] += 1
        self._held[users] += 1
        return item, numbers

    def _tell(self, told: list[tuple[Ints, ...]]) -> None:
        """Write down who was seen first and who switched, in order of position."""
        if not told:
            return
        columns = [np.concatenate(column) for column in zip(*told, strict=True)]
        order = np.argsort(columns[0], kind="stable")
        columns[1] = self.user_number[columns[1]]
        for position, number, was, now, by_user in zip(*(column[order].tolist() for column in columns), strict=True):
            user = f"u{number}"
            if was < 0:
                self.truth.append(Truth(kind="user", position=position, user=user, intent=now))
            else:
                cause: Literal["user", "population"] = "user" if by_user else "population"
                self.truth.append(
                    Truth(kind="switch", position=position, user=user, from_intent=was, to_intent=now, cause=cause)
                )

    # -- changes --------------------------------------------------------------------------------------

    def churn(self, events: int, position: int) -> None:
        """Replace as many users and items by new ones as are due for so many events."""
        config, rng = self.config, self._rng
        people = config.users - config.bots
        leaving = np.unique(rng.integers(0, people, min(int(rng.poisson(config.user_births * events / 1000)), people)))
        self.user_number[leaving] = self._next_user + np.arange(len(leaving))
        self._next_user += len(leaving)
        self._main[leaving] = self._draw_intent(rng.random(len(leaving)))
        self._side[leaving] = self._draw_other(self._main[leaving], rng.random(len(leaving)))
        self._last[leaving], self._said[leaving], self._recent[leaving] = -1, -1, -1
        self._held[leaving], self._taken[leaving] = 0, 0
        due = min(int(rng.poisson(config.item_births * events / 1000)), config.items)
        dying = np.unique(rng.integers(0, config.items, due))
        if len(dying):
            self._replace(dying, self._owner[dying], position)

    def _replace(self, slots: Ints, owners: Ints, at: int) -> None:
        """New items in place of these, belonging to the intents `owners`; popularity is inherited."""
        self.truth += [Truth(kind="item_gone", position=at, item=item) for item in self._item_ids(slots)]
        self.item_number[slots] = self._next_item + np.arange(len(slots))
        self._next_item += len(slots)
        self._owner[slots] = owners
        self.word[slots] = self.intent_number[owners] % len(WORDS)
        gone = np.zeros(self.config.items + 1, dtype=bool)  # the last one stands for "no item"
        gone[slots] = True
        self._last[gone[self._last]] = -1
        self._recent[gone[self._recent]] = -1
        named = zip(self._item_ids(slots), self.intent_number[owners].tolist(), strict=True)
        self.truth += [Truth(kind="item", position=at, item=item, intent=intent) for item, intent in named]
        self._index()
        self._lead_on(slots)

    def drift(self, position: int) -> None:
        """Make the next drift in turn, or the nearest kind that is possible."""
        kinds = self.config.drift_kinds
        kind = kinds[self._drifts % len(kinds)]
        self._drifts += 1
        live, free = np.flatnonzero(self.intent_number >= 0), np.flatnonzero(self.intent_number < 0)
        if kind == "new_intent" and not len(free):
            kind = "lost_intent"
        if kind == "lost_intent" and len(live) < 3:  # two must remain, so that there is something to switch to
            kind = "new_intent" if len(free) else "shares"
        makers: dict[DriftKind, Callable[[Ints, int], list[int]]] = {
            "shares": self._drift_shares,
            "popularity": self._drift_popularity,
            "concept_drift": self._drift_meaning,
            "new_intent": self._drift_new,
            "lost_intent": self._drift_lost,
        }
        touched = makers[kind](live, position)
        self.truth.append(Truth(kind="drift", position=position, drift=kind, intents=touched))

    def _drift_shares(self, live: Ints, at: int) -> list[int]:
        """Part of the population takes up intents in other shares."""
        strength, rng = self.config.drift_strength, self._rng
        other = np.zeros_like(self._shares)
        # little evenness: a few intents take most of the new share
        other[live] = rng.dirichlet(np.full(len(live), 0.3)) + 1e-6
        old, self._shares = self._shares, other / other.sum()
        moved = np.flatnonzero(rng.random(self.config.users) < strength)
        self._settle(moved)
        self._shares = (1 - strength) * old + strength * self._shares
        return self._numbers(live)

    def _drift_popularity(self, live: Ints, at: int) -> list[int]:
        """Within each intent, items exchange their popularity."""
        chosen = self._rng.random(self.config.items) < self.config.drift_strength
        for intent in live.tolist():
            slots = np.flatnonzero(chosen & (self._owner == intent))
            self._weight[slots] = self._weight[self._rng.permutation(slots)]
        self._index()
        return self._numbers(live)

    def _drift_meaning(self, live: Ints, at: int) -> list[int]:
        """Items go over to other intents; each intent keeps as many as it had."""
        slots = np.flatnonzero(self._rng.random(self.config.items) < self.config.drift_strength)
        self._owner[slots] = self._owner[self._rng.permutation(slots)]
        self._index()
        self._lead_on(slots)
        return self._numbers(live)

    def _drift_new(self, live: Ints, at: int) -> list[int]:
        """An intent that was not there before, with new items, takes part of the users."""
        config, rng = self.config, self._rng
        intent = int(np.flatnonzero(self.intent_number < 0)[0])
        self.intent_number[intent] = self._next_intent
        self._next_intent += 1
        # at most every second item of an intent, never its first: no intent may be left with nothing
        rank = np.arange(config.items) - self._first[self._owner[self._order]]
        offered = self._order[rank % 2 == 1]
        slots = np.sort(rng.permutation(offered)[: max(1, config.items // (len(live) + 1))])
        self._replace(slots, np.full(len(slots), intent), at)
        share = 0.4 * config.drift_strength
        self._shares *= 1 - share
        self._shares[intent] = share
        moved = np.flatnonzero(rng.random(config.users) < share)
        self._side[moved] = self._main[moved]
        self._main[moved] = intent
        self._held[moved] = 0
        return [int(self.intent_number[intent])]

    def _drift_lost(self, live: Ints, at: int) -> list[int]:
        """An intent vanishes with its items; its users turn to others."""
        intent = int(self._rng.choice(live))
        number = int(self.intent_number[intent])
        self.intent_number[intent] = -1
        self._shares[intent] = 0.0
        self._shares /= self._shares.sum()
        slots = np.flatnonzero(self._owner == intent)
        self._replace(slots, self._draw_intent(self._rng.random(len(slots))), at)
        self._settle(np.flatnonzero(self._main == intent))
        sides = np.flatnonzero(self._side == intent)
        self._side[sides] = self._draw_other(self._main[sides], self._rng.random(len(sides)))
        return [number]

    def _settle(self, users: Ints) -> None:
        """These users take up an intent by the present shares."""
        main = self._draw_intent(self._rng.random(len(users)))
        changed = main != self._main[users]
        self._side[users[changed]] = self._main[users[changed]]
        self._main[users] = main
        self._held[users[changed]] = 0

    def _numbers(self, intents: Ints) -> list[int]:
        numbers: list[int] = self.intent_number[intents].tolist()
        return numbers

    def _lead_on(self, slots: Ints) -> None:
        """Give these items successors within their intent, and all others new ones for those that have left theirs.

        What follows what is as much of an intent after a drift as before: the shop can be foretold as well.
        """
        owners = np.repeat(self._owner[slots], 4)
        self._successors[slots] = self._draw_item(owners, self._rng.random(len(owners))).reshape(-1, 4)
        left = self._owner[self._successors] != self._owner[:, None]  # (items, 4)
        owners = self._owner[np.nonzero(left)[0]]
        self._successors[left] = self._draw_item(owners, self._rng.random(len(owners)))


_ARRAYS: Final = (
    "intent_number",
    "item_number",
    "word",
    "user_number",
    "_shares",
    "_owner",
    "_weight",
    "_successors",
    "_main",
    "_side",
    "_last",
    "_held",
    "_said",
    "_recent",
    "_taken",
    "_visits",
    "_pool",
)

__all__ = ["Population", "Truth", "WORDS"]
