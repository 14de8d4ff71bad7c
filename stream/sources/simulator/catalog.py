"""The items of the simulated shop: which intent each belongs to, how popular it is, and which items follow it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream.sources.simulator.config import SimulatorConfig

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

WORDS: Final = (
    "lamp sofa tent skates novel comic guitar camera drill paint tulip rake jacket boots watch ring puzzle robot "
    "coffee tea spice knife yoga racket pram crib leash aquarium printer laptop headset vinyl globe atlas canoe"
).split()
_SUCCESSORS: Final = 4  # per item
_SUCCESSOR_STEPS: Final = np.array([0.4, 0.7, 0.9])  # cumulative shares of an item's successors


class Catalog:
    """Items in arrays of fixed size: a new item takes the slot of one that is gone; numbers are never used again.

    Parameters
    ----------
    config
        Sets the number of items, the intents at the start and the skew of the popularity.
    rng
        Draws everything; shared with the simulator.
    """

    def __init__(self, config: SimulatorConfig, rng: np.random.Generator) -> None:
        self._rng = rng
        self._slots = config.intents + config.spare_intents  # of intents
        self.number: Ints = np.arange(config.items)
        self.owner: Ints = np.arange(config.items) % config.intents  # intent slot; every intent has its items
        self.word: Ints = self.owner % len(WORDS)
        self.weight: Floats = np.power(1.0 + np.arange(config.items) // config.intents, -config.skew)
        self.successors: Ints = np.zeros((config.items, _SUCCESSORS), dtype=np.int64)
        self.next_number = config.items
        self.index()
        self.link(np.arange(config.items))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that `restore` takes."""
        return {f"item_{name}": getattr(self, name) for name in _ARRAYS}

    def restore(self, next_number: int, arrays: dict[str, NDArray[Any]]) -> None:
        """Continue from `next_number` and the arrays of another run with the same shapes."""
        for name in _ARRAYS:
            setattr(self, name, arrays[f"item_{name}"])
        self.next_number = next_number
        self.index()

    def index(self) -> None:
        """Sum up the popularity within each intent, so that items of many intents can be drawn at once."""
        order = np.argsort(self.owner, kind="stable")
        self._order = order
        self._cumulative = np.cumsum(self.weight[order])
        counts = np.bincount(self.owner, minlength=self._slots)
        self._stop = np.cumsum(counts)  # in `order`, behind each intent's last item
        self._base = np.concatenate([[0.0], self._cumulative])[self._stop - counts]
        self._mass = np.bincount(self.owner, weights=self.weight, minlength=self._slots)
        self._first = self._stop - counts

    def draw(self, intents: Ints, chance: Floats) -> Ints:
        """Draw an item of each intent by popularity: slots (n,) for intents (n,) and chances (n,) from 0 to 1."""
        place = np.searchsorted(self._cumulative, self._base[intents] + chance * self._mass[intents], side="right")
        slots: Ints = self._order[np.clip(place, self._first[intents], self._stop[intents] - 1)]
        return slots

    def following(self, slots: Ints, chance: Floats) -> Ints:
        """Draw a successor of each item."""
        drawn: Ints = self.successors[slots, np.searchsorted(_SUCCESSOR_STEPS, chance, "right")]
        return drawn

    def ids(self, slots: Ints) -> list[str]:
        """Item ids, as in the events."""
        numbers, words = self.number[slots].tolist(), self.word[slots].tolist()
        return [f"{WORDS[word]}-{number}" for number, word in zip(numbers, words, strict=True)]

    def second_items(self) -> Ints:
        """Every second item of each intent, never its first: what can be taken away and leave no intent empty."""
        rank = np.arange(len(self.number)) - self._first[self.owner[self._order]]
        slots: Ints = self._order[rank % 2 == 1]
        return slots

    def renew(self, slots: Ints, owners: Ints, words: Ints) -> None:
        """Put new items into these slots; they inherit the popularity."""
        self.number[slots] = self.next_number + np.arange(len(slots))
        self.next_number += len(slots)
        self.owner[slots] = owners
        self.word[slots] = words % len(WORDS)

    def link(self, slots: Ints) -> None:
        """Draw successors for these items, and anew those that are no longer of their item's intent.

        After a drift an item determines its successors as much as before: the stream stays as predictable.
        """
        owners = np.repeat(self.owner[slots], _SUCCESSORS)
        self.successors[slots] = self.draw(owners, self._rng.random(len(owners))).reshape(-1, _SUCCESSORS)
        left = self.owner[self.successors] != self.owner[:, None]  # (items, 4)
        owners = self.owner[np.nonzero(left)[0]]
        self.successors[left] = self.draw(owners, self._rng.random(len(owners)))


_ARRAYS: Final = ("number", "owner", "word", "weight", "successors")

__all__ = ["Catalog", "WORDS"]
