"""The five kinds of drift of the simulated shop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stream.sources.simulator.config import DriftKind, SimulatorConfig
from stream.sources.simulator.population import Population
from stream.sources.simulator.truth import Truth

Ints = NDArray[np.int64]


class Drifts:
    """Makes the drifts of `config.drift_kinds` in turn.

    Parameters
    ----------
    config
        Kinds and strength of the drifts.
    people
        The population, which drifts together with its items.
    rng
        Draws everything; shared with the simulator.
    """

    def __init__(self, config: SimulatorConfig, people: Population, rng: np.random.Generator) -> None:
        self._config, self._people, self._rng = config, people, rng
        self.made = 0  # so far

    def make(self, position: int) -> None:
        """Make the next drift in turn, or one of the nearest kind that is possible."""
        people = self._people
        kinds = self._config.drift_kinds
        kind = kinds[self.made % len(kinds)]
        self.made += 1
        live, free = np.flatnonzero(people.intent_number >= 0), np.flatnonzero(people.intent_number < 0)
        if kind == "new_intent" and not len(free):
            kind = "lost_intent"
        if kind == "lost_intent" and len(live) < 3:  # a user needs a second one to switch to
            kind = "new_intent" if len(free) else "shares"
        makers: dict[DriftKind, Callable[[Ints, int], list[int]]] = {
            "shares": self._change_shares,
            "popularity": self._change_popularity,
            "concept_drift": self._change_concepts,
            "new_intent": self._add_intent,
            "lost_intent": self._remove_intent,
        }
        touched = makers[kind](live, position)
        people.truth.append(Truth(kind="drift", position=position, drift=kind, intents=touched))

    def _change_shares(self, live: Ints, position: int) -> list[int]:
        """Let part of the population take up intents in other shares."""
        people = self._people
        strength, rng = self._config.drift_strength, self._rng
        other = np.zeros_like(people.shares)
        # a low concentration: a few intents take most of the new share
        other[live] = rng.dirichlet(np.full(len(live), 0.3)) + 1e-6
        old, people.shares = people.shares, other / other.sum()
        moved = np.flatnonzero(rng.random(self._config.users) < strength)
        people.settle(moved)
        people.shares = (1 - strength) * old + strength * people.shares
        return people.numbers(live)

    def _change_popularity(self, live: Ints, position: int) -> list[int]:
        """Let items exchange their popularity within each intent."""
        people, items = self._people, self._people.items
        chosen = self._rng.random(self._config.items) < self._config.drift_strength
        for intent in live.tolist():
            slots = np.flatnonzero(chosen & (items.owner == intent))
            items.weight[slots] = items.weight[self._rng.permutation(slots)]
        items.index()
        return people.numbers(live)

    def _change_concepts(self, live: Ints, position: int) -> list[int]:
        """Move items to other intents; each intent keeps its number of items."""
        people, items = self._people, self._people.items
        slots = np.flatnonzero(self._rng.random(self._config.items) < self._config.drift_strength)
        items.owner[slots] = items.owner[self._rng.permutation(slots)]
        items.index()
        items.link(slots)
        return people.numbers(live)

    def _add_intent(self, live: Ints, position: int) -> list[int]:
        """Add an intent with new items, and give it part of the users."""
        people, items = self._people, self._people.items
        config, rng = self._config, self._rng
        intent = int(np.flatnonzero(people.intent_number < 0)[0])
        people.intent_number[intent] = people.next_intent
        people.next_intent += 1
        slots = np.sort(rng.permutation(items.second_items())[: max(1, config.items // (len(live) + 1))])
        people.replace_items(slots, np.full(len(slots), intent), position)
        share = 0.4 * config.drift_strength
        people.shares *= 1 - share
        people.shares[intent] = share
        moved = np.flatnonzero(rng.random(config.users) < share)
        people.side[moved] = people.main[moved]
        people.main[moved] = intent
        people.held[moved] = 0
        return [int(people.intent_number[intent])]

    def _remove_intent(self, live: Ints, position: int) -> list[int]:
        """Remove an intent with its items; its users turn to others."""
        people, items = self._people, self._people.items
        intent = int(self._rng.choice(live))
        number = int(people.intent_number[intent])
        people.intent_number[intent] = -1
        people.shares[intent] = 0.0
        people.shares /= people.shares.sum()
        slots = np.flatnonzero(items.owner == intent)
        people.replace_items(slots, people.draw_intent(self._rng.random(len(slots))), position)
        people.settle(np.flatnonzero(people.main == intent))
        sides = np.flatnonzero(people.side == intent)
        people.side[sides] = people.draw_other(people.main[sides], self._rng.random(len(sides)))
        return [number]


__all__ = ["Drifts"]
