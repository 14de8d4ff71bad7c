"""The learner's intents as others see them: ids instead of places, how far one leads another, what drew a user there.

Sits between the network, whose centres it reads and re-seeds, and `IntentIdentity`, which knows no torch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from learner.identity import Birth, Entry, IdentityConfig, IntentIdentity
from learner.network import Network


class IntentView(NamedTuple):
    """Where users stand among the intents; every field (B,); ids are -1 for a user without history."""

    nearest: NDArray[np.int32]
    """intent id"""
    confidence: NDArray[np.float32]
    """probability of the nearest among all, by softmax of the cosines"""
    runner_up: NDArray[np.int32]
    """intent id"""
    distance: NDArray[np.float32]
    """squared distance of unit vectors to the nearest, 0 to 4"""
    lead: NDArray[np.float32]
    """log-odds of the nearest against the held intent; 0 where that is the nearest, there is none, or it is retired"""
    retired: NDArray[np.bool_]
    """the held intent exists no more"""


class Seen(NamedTuple):
    """What the users of a step showed of the intents."""

    places: NDArray[np.int64]
    """(m,) nearest centre of each user"""
    distance: float
    """mean squared distance to it; not a number where there was nobody"""


class Turned(NamedTuple):
    """What happened to the centres since the last call."""

    movement: float
    """mean distance moved"""
    births: list[Birth]


class IntentTracker:
    """Ids, leads, births and catalogue figures of a network's centres.

    Parameters
    ----------
    config
        When an intent is dead.
    network
        Whose centres these are; only `turn` changes it.
    """

    def __init__(self, config: IdentityConfig, network: Network) -> None:
        self._network = network
        count, hidden = network.centers.weight.shape
        self.identity = IntentIdentity(config, count, hidden)

    def observe(self, h: Tensor) -> Seen:
        """Count users h (m, d) at their nearest centres."""
        if not len(h):
            return Seen(np.zeros(0, dtype=np.int64), float("nan"))
        nearest = self._network.centers.nearest(h)
        places = nearest.intent.numpy()
        self.identity.observe(places, nearest.distance.numpy(), F.normalize(h, dim=-1).numpy())
        return Seen(places, float(nearest.distance.mean()))

    @torch.no_grad()
    def view(self, h: Tensor, cold: NDArray[np.bool_], held: NDArray[np.integer[Any]] | None = None) -> IntentView:
        """Where users h (B, d) stand; `cold` (B,) ones stand nowhere; `held` (B,) are the ids they hold, -1 = none."""
        centers = self._network.centers
        nearest = centers.nearest(h)
        holds = np.full(len(h), -1) if held is None else np.asarray(held)
        places = self.identity.places_of(holds)  # (B,)
        known = (places >= 0) & ~cold
        there = centers.unit()[torch.from_numpy(np.maximum(places, 0))]  # (B, d)
        cosine = (F.normalize(h, dim=-1) * there).sum(-1)  # (B,) to the held centre
        best = 1 - nearest.distance / 2  # (B,) cosine to the nearest one
        lead = ((best - cosine).clamp(min=0) / centers.config.temperature).numpy()
        intent, runner_up = nearest.intent.numpy(), nearest.runner_up.numpy()
        return IntentView(
            self.identity.ids_of(np.where(cold, -1, intent)),
            np.where(cold, 0, nearest.confidence.numpy()).astype(np.float32),
            self.identity.ids_of(np.where(cold, -1, runner_up)),
            np.where(cold, 0, nearest.distance.numpy()).astype(np.float32),
            np.where(known & (places != intent), lead, 0).astype(np.float32),
            (holds >= 0) & (places < 0),
        )

    @torch.no_grad()
    def pull(
        self, rows: NDArray[np.int64], origin: NDArray[np.integer[Any]], to: NDArray[np.integer[Any]]
    ) -> NDArray[np.float32]:
        """How much items (m, w), table rows, draw towards `to` (m,) and away from `origin` (m,): cosines, (m, w).

        A retired or unknown origin counts as nothing.
        """
        unit = self._network.centers.unit().numpy()
        ends = [self.identity.places_of(ids) for ids in (to, origin)]
        vectors = [np.where((places >= 0)[:, None], unit[np.maximum(places, 0)], 0) for places in ends]  # (m, d) each
        items = F.normalize(self._network.table[torch.from_numpy(rows)], dim=-1).numpy()  # (m, w, d)
        pull = np.einsum("mwd,md->mw", items, vectors[0] - vectors[1])
        return np.where(rows > 0, pull, 0).astype(np.float32)

    @torch.no_grad()
    def turn(self, event_number: int, reseed: bool = False) -> Turned:
        """Call once after a step's learning: measures how the centres moved, and places the dead ones anew."""
        centers = self._network.centers.unit().numpy()
        movement = self.identity.moved(centers, event_number)
        births = self.identity.births(centers, event_number, reseed)
        if births:
            self._network.place_centers(
                np.array([birth.place for birth in births]), np.stack([birth.center for birth in births])
            )
        return Turned(movement, births)

    @torch.no_grad()
    def entries(self, turn_map: bool = False) -> list[Entry]:
        """All intents for the catalogue; `turn_map` lets the map follow the centres, which changes the state."""
        centers = self._network.centers.unit().numpy()
        if turn_map:
            self.identity.turn_map(centers)
        return self.identity.entries(centers)


__all__ = ["IntentTracker", "IntentView", "Seen", "Turned"]
