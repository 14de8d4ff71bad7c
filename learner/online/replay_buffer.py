"""What the network may learn from again: the newest pairs, and a uniform sample of all pairs there ever were.

A pair is a context (the user's items just before an event) and the item taken. Both stores are bounded and belong to
the checkpoint. Pairs know their user's key, so that a user can be forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learner.config import LearnerConfig


class Pairs(NamedTuple):
    """Examples, as handles: a stale handle reads as padding."""

    contexts: NDArray[np.int64]
    """(m, L), right-aligned, newest last, 0 = empty"""
    items: NDArray[np.int64]
    """(m,)"""
    weights: NDArray[np.float32]
    """(m,), negative = dislike"""

    def at(self, places: NDArray[np.int64] | slice) -> Pairs:
        """The pairs at `places`."""
        return Pairs(self.contexts[places], self.items[places], self.weights[places])


def concatenate(parts: Sequence[Pairs]) -> Pairs:
    """The pairs of all parts, in order."""
    return Pairs(
        np.concatenate([part.contexts for part in parts]),
        np.concatenate([part.items for part in parts]),
        np.concatenate([part.weights for part in parts]),
    )


class _Ring:
    def __init__(self, size: int, max_len: int) -> None:
        self.size = size
        self.users = np.zeros(size, dtype=np.uint64)
        self.contexts = np.zeros((size, max_len), dtype=np.int64)
        self.items = np.zeros(size, dtype=np.int64)  # 0 = erased or never filled
        self.weights = np.zeros(size, dtype=np.float32)

    def put(self, places: NDArray[np.int64], users: NDArray[np.uint64], pairs: Pairs) -> None:
        self.users[places] = users
        self.contexts[places] = pairs.contexts
        self.items[places] = pairs.items
        self.weights[places] = pairs.weights

    def get(self, places: NDArray[np.int64]) -> Pairs:
        places = places[self.items[places] != 0]
        return Pairs(self.contexts[places], self.items[places], self.weights[places])

    def forget(self, user: int) -> None:
        mine = (self.users == np.uint64(user)) & (self.items != 0)
        self.users[mine] = 0
        self.contexts[mine] = 0
        self.items[mine] = 0
        self.weights[mine] = 0


class Replay:
    """A ring of the newest pairs and a reservoir of all of them.

    Parameters
    ----------
    recent
        Pairs in the ring; where a step brings more, the oldest of them are not learned as fresh ones.
    uniform
        Pairs in the reservoir (Vitter, 1985); each pair ever added is in it with the same probability.
    max_len
        Length L of a context.
    seed
        Of the generator that draws both what the reservoir keeps and what is replayed.
    """

    def __init__(self, recent: int, uniform: int, max_len: int, seed: int) -> None:
        self._recent = _Ring(recent, max_len)
        self._uniform = _Ring(uniform, max_len)
        self._added = 0
        self._last = 0  # pairs that came since the last learning step, or with the last `add` before it
        self._learned = False  # whether they were learned
        self._random = np.random.Generator(np.random.PCG64(seed))

    def __len__(self) -> int:
        return int((self._recent.items != 0).sum() + (self._uniform.items != 0).sum())

    @property
    def last(self) -> int:
        """The fresh pairs: added since `mark_learned` was called, or until it was; as many as are still held."""
        return self._last

    @property
    def unlearned(self) -> int:
        """The fresh pairs of which no learning step has come yet."""
        return 0 if self._learned else self._last

    def mark_learned(self) -> None:
        """The fresh pairs were learned: those of the next `add` replace them."""
        self._learned = True

    def add(self, users: NDArray[np.uint64], pairs: Pairs) -> None:
        """Keep pairs (n,) of the users with these keys (n,)."""
        n = len(users)
        numbers = self._added + np.arange(n)
        ring = self._recent.size
        newest = slice(max(0, n - ring), n)
        self._recent.put(numbers[newest] % ring, users[newest], pairs.at(newest))
        size = self._uniform.size
        if size:
            places = np.where(numbers < size, numbers, (self._random.random(n) * (numbers + 1)).astype(np.int64))
            kept = np.flatnonzero(places < size)
            self._uniform.put(places[kept], users[kept], pairs.at(kept))
        self._added += n
        self._last, self._learned = min(self.unlearned + n, ring), False

    def fresh(self, start: int, stop: int) -> Pairs:
        """Pairs `start` to `stop` of the fresh ones."""
        first = self._added - self._last
        return self._recent.get((first + np.arange(start, min(stop, self._last))) % self._recent.size)

    def sample(self, recent: int, uniform: int, newest: int = 0, random: np.random.Generator | None = None) -> Pairs:
        """Draw pairs with replacement from the ring and from the reservoir; fewer where some were erased.

        With `newest` all of them are drawn from so many of the newest ones in the ring. `random` draws instead of the
        buffer's own generator, which then stays as it is.
        """
        random = random or self._random
        if newest:
            span = min(newest, self._added, self._recent.size)
            drawn = random.integers(span, size=recent + uniform) if span else np.zeros(0, dtype=np.int64)
            return self._recent.get((self._added - span + drawn) % self._recent.size)
        parts = []
        for ring, count in ((self._recent, recent), (self._uniform, uniform)):
            filled = min(self._added, ring.size)
            if count and filled:
                parts.append(ring.get(random.integers(filled, size=count)))
        if not parts:
            return self._recent.get(np.zeros(0, dtype=np.int64))
        return concatenate(parts)

    def forget(self, user: int) -> None:
        """Erase every pair of the user with this key."""
        self._recent.forget(user)
        self._uniform.forget(user)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything but the generator, as arrays; only the filled part."""
        arrays: dict[str, NDArray[Any]] = {
            "counts": np.array([self._added, -self._last if self._learned else self._last], dtype=np.int64)
        }
        for name, ring in (("recent", self._recent), ("uniform", self._uniform)):
            filled = min(self._added, ring.size)
            for field in ("users", "contexts", "items", "weights"):
                arrays[f"{name}.{field}"] = getattr(ring, field)[:filled]
        return arrays

    def load_arrays(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Continue from what `to_arrays` gave."""
        self._added, last = (int(count) for count in arrays["counts"])
        self._last, self._learned = abs(last), last < 0
        for name, ring in (("recent", self._recent), ("uniform", self._uniform)):
            for field in ("users", "contexts", "items", "weights"):
                stored = arrays[f"{name}.{field}"]
                getattr(ring, field)[: len(stored)] = stored

    def random_state(self) -> dict[str, Any]:
        """State of the generator, as JSON can hold it."""
        return dict(self._random.bit_generator.state)

    def load_random_state(self, state: dict[str, Any]) -> None:
        """Continue the generator from `random_state`."""
        self._random.bit_generator.state = state


def mini_batches(
    replay: Replay, config: LearnerConfig, steps: int, newest: int = 0, random: np.random.Generator | None = None
) -> Iterator[Pairs]:
    """The mini-batches of `steps` learning steps: fresh pairs, spread over them, and replayed ones.

    `newest` and `random` as in `Replay.sample`.
    """
    per_step = min(-(-replay.last // max(steps, 1)), config.batch)
    share = -(-per_step // config.updates)
    replayed = min(config.replay, round(config.replay_ratio * per_step)) // config.updates
    recent = round(replayed * config.replay_recent)
    for step in range(steps * config.updates):
        start = step // config.updates * per_step + step % config.updates * share
        stop = min(start + share, (step // config.updates + 1) * per_step)
        yield concatenate([replay.fresh(start, stop), replay.sample(recent, replayed - recent, newest, random)])


__all__ = ["Pairs", "Replay", "concatenate", "mini_batches"]
