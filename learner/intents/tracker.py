"""The intents of a learner by their ids: the intent of each user, leads, births, mergers, catalog figures.

The tracker stands between the network, whose centers it reads and re-seeds, and the parts without torch:
`IntentIdentity` keeps ids, `Merging` groups centers into intents, `change_point` tests users for a change.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learner.config import LearnerConfig
from learner.intents.change_point import change, log_likelihood
from learner.intents.identity import Birth, Entry, IntentIdentity, intent_vectors
from learner.intents.merging import Merging
from learner.model.centers import SEEN_ITEMS, IntentCenters

_KEPT: Final = 1 << 22  # numbers in a table of items by centers that is kept for the rest of a step


class IntentView(NamedTuple):
    """The intents of B users; every field (B,); ids are -1 for a user without history."""

    nearest: NDArray[np.int32]
    """intent id: the intent that leads the held one, else the held one; `best` where none is held"""
    best: NDArray[np.int32]
    """intent id by the newest items alone; `nearest` where not requested"""
    confidence: NDArray[np.float32]
    """probability of `nearest` among all, by the newest items alone; 0 where not requested"""
    runner_up: NDArray[np.int32]
    """intent id, the most likely after `nearest`; -1 where not requested"""
    lead: NDArray[np.float32]
    """log-odds of a change to `nearest` against none; 0 without evidence for a change"""
    began: NDArray[np.int64]
    """events since that change, the first one of the new intent included"""
    before: NDArray[np.bool_]
    """whether the model now assigns the items before the change to the new intent too"""
    stale: NDArray[np.bool_]
    """whether the model now assigns the items since the held intent began, but the newest, to `nearest`"""
    retired: NDArray[np.bool_]
    """whether the held intent is retired"""


class Assignments(NamedTuple):
    """The users of a step by center."""

    places: NDArray[np.int64]
    """(m,) place of the center nearest to each user"""
    distance: float
    """mean squared distance to the nearest center; NaN without users"""


class CenterUpdate(NamedTuple):
    """Changes of the centers since the last call."""

    movement: float
    """mean distance moved"""
    births: list[Birth]
    absorbed: list[int]
    """ids of intents that were merged into another one"""


class _Items(NamedTuple):
    """The m distinct items of a step, with their cosines."""

    there: NDArray[np.bool_]
    """(N,) by table row, whether it is among them"""
    place: NDArray[np.int64]
    """(N,) by table row, its place among them; undefined for other rows"""
    unit: NDArray[np.float32]
    """(m, d) unit vectors, zeros for row 0"""
    cosines: NDArray[np.float32]
    """(m, K) with the centers"""


class CenterNetwork(Protocol):
    """A network whose centers a tracker reads and places anew."""

    table: Tensor
    """(N, d) item vectors by table row"""
    centers: IntentCenters

    @property
    def rows(self) -> int:
        """N, table rows."""

    def place_centers(self, places: NDArray[np.int64], centers: NDArray[np.float32]) -> None:
        """Put the centers at `places` (m,) elsewhere, (m, d)."""


class IntentTracker:
    """Ids, leads, births, mergers and catalog figures of a network's centers.

    Parameters
    ----------
    config
        Its sections `intents`, `identity`, `merging` and `evidence`.
    network
        Its centers move by the gradient of `Network.learn`; `maintain_centers` places dead ones anew.
    """

    def __init__(self, config: LearnerConfig, network: CenterNetwork) -> None:
        self._config, self._network = config, network
        count, hidden = network.centers.weight.shape
        self.identity = IntentIdentity(config.identity, count, hidden)
        self.merging = Merging(config.merging, count)
        self._items: _Items | None = None  # of this step; None once items or centers move
        self._shares: NDArray[np.float32] | None = None  # (m, G) of the intents in these items

    # -- the stream -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def observe(self, contexts: NDArray[np.int64], items: NDArray[np.int64]) -> Assignments:
        """Count users at their centers: table rows of histories before events (n, L), of items (n,), 0 = not liked."""
        known = (contexts[:, -1] > 0) & (items > 0)
        before, after = contexts[known, -1], items[known]
        newest = contexts[:, -SEEN_ITEMS:]
        # the rest of the step asks for the items of these histories and of these events
        remembered = contexts[:, -self._config.evidence.memory :]
        looked_at = self._look_up(np.concatenate([remembered.ravel(), newest.ravel(), items]))
        self.refresh()
        if looked_at.cosines.size <= _KEPT:
            self._items = looked_at
        code = looked_at.cosines.argmax(axis=1)
        self.merging.observe(code[looked_at.place[before]], code[looked_at.place[after]])
        u = self._interests(newest, looked_at)  # (n, d)
        u = u[u.any(axis=1)]
        if not len(u):
            return Assignments(np.zeros(0, dtype=np.int64), float("nan"))
        cosines = u @ self._unit_centers().T  # (n, K)
        places = cosines.argmax(axis=1)
        distance = np.maximum(2 - 2 * np.take_along_axis(cosines, places[:, None], axis=1)[:, 0], 0)
        self.identity.observe(places, distance, u)
        return Assignments(places, float(distance.mean()))

    def refresh(self) -> None:
        """Drop what is cached of items and centers; call it when either move."""
        self._items = self._shares = None

    def _look_up(self, rows: NDArray[np.int64]) -> _Items:
        """The distinct items among table rows (z,), with their present vectors; `np.unique` would sort."""
        there = np.zeros(self._network.rows, dtype=bool)
        there[rows] = True
        distinct = np.flatnonzero(there)
        place = np.empty(self._network.rows, dtype=np.int64)
        place[distinct] = np.arange(len(distinct))
        # in numpy: each small operation of torch takes as long as the product
        unit = _unit(self._network.table.detach().numpy()[distinct])
        return _Items(there, place, unit, unit @ self._unit_centers().T)

    def _unit_centers(self) -> NDArray[np.float32]:
        return _unit(self._network.centers.weight.detach().numpy())

    def _interests(self, newest: NDArray[np.int64], items: _Items) -> NDArray[np.float32]:
        """`learner.model.centers.interests` of the newest rows (n, w), which are all among `items`: (n, d)."""
        age = np.arange(newest.shape[1])[::-1]
        weight = np.where(newest > 0, 0.5 ** (age / self._config.intents.half_life), 0).astype(np.float32)  # (n, w)
        return _unit(np.matmul(weight[:, None], items.unit[items.place[newest]])[:, 0])

    @torch.no_grad()
    def maintain_centers(self, event_number: int, reseed: bool = False) -> CenterUpdate:
        """Measure how the centers moved, place dead ones anew, and merge; call it once after the learning of a step."""
        self.refresh()
        centers = self._network.centers.unit().numpy()
        movement = self.identity.record_movement(centers, event_number)
        shares = self.identity.shares
        births = self.identity.replace_dead(
            centers, event_number, reseed, lambda place: self.merging.detach(place, shares)
        )
        if births:
            places = np.array([birth.place for birth in births])
            self._network.place_centers(places, np.stack([birth.center for birth in births]))
        absorbed = self.merging.update(self.identity.shares, event_number)
        return CenterUpdate(movement, births, self.identity.ids_of(absorbed).tolist())

    # -- answers ----------------------------------------------------------------------------------------------------

    def current(self, ids: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """The ids (m,) under which these intents continue; ids of retired intents and -1 stay as they are."""
        ids = self.identity.resolve(ids)
        places = self.identity.places_of(ids)
        return np.where(places >= 0, self.identity.ids_of(self.merging.representatives[places]), ids).astype(np.int32)

    def codes(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Shares of the G intents in items (B, W), table rows, in the order of `Merging.leaders`: (B, W, G)."""
        items = self._items
        if items is None or not items.there[rows].all():
            items = self._look_up(rows.ravel())
            return self._shared(items).take(items.place[rows], axis=0)
        if self._shares is None:
            self._shares = self._shared(items)
        return self._shares.take(items.place[rows], axis=0)

    def _shared(self, items: _Items) -> NDArray[np.float32]:
        """Shares of the G intents in each of the items, (m, G)."""
        merging = self.merging
        likely = items.cosines * np.float32(1 / self._network.centers.config.temperature)  # (m, K)
        sharpness = self._config.evidence.sharpness
        if (
            not merging.any_merged
        ):  # the same power; grouping tens of thousands of centers, which never merge, would take gigabytes
            likely *= sharpness
        likely -= likely.max(axis=1, keepdims=True)
        share = np.exp(likely, out=likely)
        if merging.any_merged:
            of = merging.intent_of
            share = share @ (of[:, None] == np.arange(of.max() + 1)).astype(np.float32)  # (m, G)
            share **= sharpness
        share /= share.sum(axis=1, keepdims=True)
        if items.there[0]:
            share[0] = 0  # no item
        return np.asarray(share)

    def view(
        self,
        rows: NDArray[np.int64],
        held: NDArray[np.integer[Any]] | None = None,
        span: NDArray[np.integer[Any]] | None = None,
        newest_alone: NDArray[np.bool_] | None = None,
    ) -> IntentView:
        """The intents of users with histories (B, L) of table rows, 0 = none or not liked.

        Parameters
        ----------
        rows
            Newest last.
        held
            (B,) ids that they hold, -1 = none.
        span
            (B,) events for which they hold them; None: the whole history.
        newest_alone
            (B,) users to place by their newest items alone, without a test for a change; None: both for everyone.
        """
        config = self._config.evidence
        newest = rows[:, -config.memory :]
        present = newest > 0  # (B, W)
        codes = self.codes(newest)
        B, W, G = codes.shape
        own = self.identity.ids_of(self.merging.leaders)  # (G,) ids
        users, cold = np.arange(B), ~present.any(axis=1)
        holds = np.full(B, -1) if held is None else np.asarray(held)
        places = self.identity.places_of(holds)
        group = np.where(places >= 0, self.merging.intent_of[places], -1)
        tested = group if newest_alone is None else np.where(newest_alone, -1, group)
        found = change(codes, present, tested, np.full(B, W) if span is None else np.asarray(span), config)
        leads = found.lead > 0
        stale = found.stale & ~leads
        nearest = np.where(leads, found.to, np.where(stale, found.older, group))
        best, confidence, runner_up = nearest.copy(), np.zeros(B, dtype=np.float32), np.full(B, -1)
        alone = np.flatnonzero((group < 0) | newest_alone) if newest_alone is not None else users
        if len(alone):
            likely = log_likelihood(codes[alone], present[alone], config)  # (b, G)
            best[alone] = likely.argmax(axis=1)
            nearest = np.where(group < 0, best, nearest)
            at = (np.arange(len(alone)), nearest[alone])
            likely -= likely.max(axis=1, keepdims=True)
            confidence[alone] = np.exp(likely[at]) / np.exp(likely).sum(axis=1)
            likely[at] = -np.inf
            runner_up[alone] = likely.argmax(axis=1) if G > 1 else nearest[alone]
        return IntentView(
            nearest=np.where(cold, -1, own[nearest]).astype(np.int32),
            best=np.where(cold, -1, own[best]).astype(np.int32),
            confidence=np.where(cold, 0, confidence).astype(np.float32),
            runner_up=np.where(cold | (runner_up < 0), -1, own[runner_up]).astype(np.int32),
            lead=np.where(leads & ~cold, found.lead, 0).astype(np.float32),
            began=found.began,
            before=found.before,
            stale=stale & ~cold,
            retired=(holds >= 0) & (places < 0),
        )

    def attraction(
        self, rows: NDArray[np.int64], origin: NDArray[np.integer[Any]], to: NDArray[np.integer[Any]]
    ) -> NDArray[np.float32]:
        """How much items (m, w), table rows, draw towards `to` (m,) and away from `origin` (m,): -1 to 1, (m, w).

        A retired or unknown origin has a share of 0 in every item.
        """
        codes, group = self.codes(rows), self.merging.intent_of
        shares = []
        for ids in (to, origin):
            places = self.identity.places_of(ids)
            column = group[places]
            share = np.take_along_axis(codes, column[:, None, None], axis=2)[:, :, 0]  # (m, w)
            shares.append(np.where((places >= 0)[:, None], share, 0))
        return np.asarray(shares[0] - shares[1], dtype=np.float32)

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of each intent among recent users, (G,)."""
        return np.asarray(np.bincount(self.merging.intent_of, weights=self.identity.shares))

    @torch.no_grad()
    def vectors(self) -> NDArray[np.float32]:
        """Unit vectors of the intents, (G, d), in the order of `entries`."""
        return intent_vectors(self._network.centers.unit().numpy(), self.merging.representatives, self.identity.shares)

    @torch.no_grad()
    def update_map(self) -> None:
        """Let the map follow the centers."""
        self.identity.turn_map(self._network.centers.unit().numpy())

    @torch.no_grad()
    def entries(self) -> list[Entry]:
        """All intents for the catalog."""
        centers = self._network.centers.unit().numpy()
        return self.identity.entries(centers, self.merging.representatives)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(m, d) of length 1; zeros stay zeros."""
    length = np.sqrt(np.einsum("md,md->m", vectors, vectors))
    return np.asarray(vectors / np.maximum(length, np.float32(1e-12))[:, None])


__all__ = ["Assignments", "CenterNetwork", "CenterUpdate", "IntentTracker", "IntentView"]
