"""Ids of the intents: kept while a center moves, new when a dead center is placed anew.

A center keeps its id as long as it lives, however far it moves. A center that few users are near is dead; it is placed
anew among the users whom no center is near to, as another intent with an id never used before. Numpy in, numpy out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learner.errors import LearnerStateError
from learner.intents.config import IdentityConfig
from learner.intents.intent_map import IntentMap
from learner.intents.unserved_users import UnservedUsers

RETIRED: Final = -1
_SPEED_PACE: Final = 0.5  # of the moving average of a center's speed


class Birth(NamedTuple):
    """A dead center that is placed anew."""

    place: int
    """row of the center, 0 to K - 1"""
    died: int
    """id that ends"""
    born: int
    """id that begins"""
    center: NDArray[np.float32]
    """(d,) where it starts, unit length"""


class Successor(NamedTuple):
    """The center with which an intent continues when another of its centers is placed anew."""

    place: int
    """place of the center that has the intent's id from now on"""
    takes_id: bool
    """whether the center that is placed anew had the id so far"""


class Entry(NamedTuple):
    """One intent of the catalog."""

    intent: int
    place: int
    """row among the intents, 0 to G - 1"""
    share: float
    """of recent users"""
    separation: float
    """distance to the nearest other center, 0 to 2"""
    speed: float
    """recent distance per 1,000 events"""
    position: tuple[float, float]
    """on the map, -1 to 1 each"""
    born_at: int
    """event number"""


class IntentIdentity:
    """Ids of K centers in d dimensions, with share, speed and birth of each.

    Examples
    --------
    >>> identity = IntentIdentity(IdentityConfig(), count=3, hidden=2)
    >>> identity.ids_of(np.array([0, 2, -1])).tolist(), identity.places_of(np.array([2, 7, -1])).tolist()
    ([0, 2, -1], [2, -1, -1])
    """

    def __init__(self, config: IdentityConfig, count: int, hidden: int) -> None:
        self.config = config
        self._ids = np.arange(count, dtype=np.int64)
        self._born = np.zeros(count, dtype=np.int64)
        self._counts = np.zeros(count)  # decayed users per center
        self._speed = np.zeros(count)
        self._last: NDArray[np.float32] = np.zeros((count, hidden), dtype=np.float32)  # centers at the last step
        self._has_last = False
        self._marked: NDArray[np.float32] = np.zeros((count, hidden), dtype=np.float32)  # where speed is measured from
        self._marked_at = 0  # event number
        self._unserved = UnservedUsers(config, hidden)
        self._map = IntentMap(hidden)
        # (K, 2) newest ids whose center was placed anew while their intent continued, with the id it continued under
        self._successors = np.full((count, 2), RETIRED, dtype=np.int64)
        self._next_id = count
        self._checked_at = 0  # event number of the last check for dead centers

    @property
    def ids(self) -> NDArray[np.int64]:
        """Id of each center, (K,)."""
        return self._ids.copy()

    def ids_of(self, places: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """Ids of centers by place, -1 stays -1."""
        places = np.asarray(places)
        return np.where(places >= 0, self._ids[places], RETIRED).astype(np.int32)

    def places_of(self, ids: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Places of the centers with these ids; -1 for an id that is retired or none."""
        ids = np.asarray(ids)
        order = np.argsort(self._ids, kind="stable")
        found = np.minimum(np.searchsorted(self._ids[order], ids), len(order) - 1)
        return np.where(self._ids[order][found] == ids, order[found], RETIRED)

    def resolve(self, ids: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """The ids (m,), an id whose intent continues under another one replaced by that, as long as it is known."""
        now: NDArray[np.int64] = np.array(ids, dtype=np.int64)
        gone = np.flatnonzero((now >= 0) & (self.places_of(now) < 0))
        if len(gone):
            same = now[gone, None] == self._successors[:, 0]
            now[gone] = np.where(same.any(axis=1), self._successors[same.argmax(axis=1), 1], now[gone])
        return now

    # -- the stream -------------------------------------------------------------------------------------------------

    def observe(
        self, places: NDArray[np.integer[Any]], distance: NDArray[np.floating[Any]], vectors: NDArray[np.float32]
    ) -> None:
        """Count users at their nearest centers, and keep the vectors of the badly served.

        Parameters
        ----------
        places
            (m,) nearest center, 0 to K - 1
        distance
            (m,) squared distance of unit vectors to it
        vectors
            (m, d) the users' unit vectors
        """
        if not len(places):
            return
        self._counts *= 0.5 ** (len(places) / self.config.half_life_events)
        self._counts += np.bincount(places, minlength=len(self._counts))
        self._unserved.add(vectors[distance > self.config.far_distance])

    def record_movement(self, centers: NDArray[np.float32], event_number: int) -> float:
        """Record the centers (K, d), unit vectors, after a step; return their mean distance since the last."""
        if not self._has_last:
            self._last, self._marked = centers.copy(), centers.copy()
            self._marked_at, self._has_last = event_number, True
            return 0.0
        movement = float(np.linalg.norm(centers - self._last, axis=1).mean())
        self._last = centers.copy()
        passed = event_number - self._marked_at
        if passed >= 1000:
            speed = np.linalg.norm(centers - self._marked, axis=1) * (1000.0 / passed)
            self._speed += _SPEED_PACE * (speed - self._speed)
            self._marked, self._marked_at = centers.copy(), event_number
        return movement

    def replace_dead(
        self,
        centers: NDArray[np.float32],
        event_number: int,
        reseed: bool = False,
        successor_of: Callable[[int], Successor | None] = lambda place: None,
    ) -> list[Birth]:
        """Retire dead centers and say where their successors start; the caller moves them there.

        Checks every `check_events`. A dead center stays until enough badly served users want the same.

        Parameters
        ----------
        centers
            (K, d) unit vectors
        event_number
            events so far
        reseed
            check now, and count the smaller of two crowded centers as dead too
        successor_of
            called with the place of each center that dies: the center with which its intent continues, None for none
        """
        config = self.config
        if not reseed and event_number - self._checked_at < config.check_events:
            return []
        self._checked_at = event_number
        total = float(self._counts.sum())
        if not total:
            return []
        shares = self._counts / total
        dead = shares < config.dead_share / len(shares)
        if reseed:
            dead |= self._crowded(centers, shares)
        dead &= event_number - self._born >= config.youth_events
        births = []
        for place in np.flatnonzero(dead)[np.argsort(shares[dead], kind="stable")].tolist():
            center = self._unserved.pop_group()
            if center is None:
                break
            successor = successor_of(place)
            if successor is not None:  # the intent lives on: what dies is the id of a part of it
                if successor.takes_id:
                    both = [place, successor.place]
                    self._ids[both], self._born[both] = self._ids[both[::-1]], self._born[both[::-1]]
                self._record_successor(int(self._ids[place]), int(self._ids[successor.place]))
            births.append(Birth(place, int(self._ids[place]), self._next_id, center))
            self._ids[place] = self._next_id
            self._next_id += 1
            self._born[place], self._speed[place] = event_number, 0.0
            self._counts[place] = total / len(shares)  # an even share, so that it is not dead at once
            self._last[place] = self._marked[place] = center
        return births

    def _record_successor(self, old: int, new: int) -> None:
        """From now on users who hold the id `old` hold `new`."""
        self._successors[self._successors[:, 1] == old, 1] = new
        self._successors = np.roll(self._successors, 1, axis=0)
        self._successors[0] = old, new

    def _crowded(self, centers: NDArray[np.float32], shares: NDArray[np.float64]) -> NDArray[np.bool_]:
        """The smaller of each two centers that are closer than allowed, (K,)."""
        close = centers @ centers.T > self.config.crowded_cosine
        order = np.arange(len(shares))
        smaller = (shares[:, None] < shares[None, :]) | (
            (shares[:, None] == shares[None, :]) & (order[:, None] > order[None, :])
        )
        return np.asarray((close & smaller).any(axis=1))

    # -- answers ----------------------------------------------------------------------------------------------------

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of each center among recent users, (K,)."""
        return np.asarray(self._counts / max(float(self._counts.sum()), 1e-9))

    def turn_map(self, centers: NDArray[np.float32]) -> None:
        """Turn the map of the catalog some way towards the principal axes of the centers (K, d)."""
        self._map.turn(centers)

    def entries(
        self, centers: NDArray[np.float32], representatives: NDArray[np.integer[Any]] | None = None
    ) -> list[Entry]:
        """All intents as they are now, in the order of their places; centers (K, d) are unit vectors.

        Centers with the same representative (K,) are one intent, which lies at their mean, by share.
        """
        representatives = np.arange(len(centers)) if representatives is None else np.asarray(representatives)
        places = np.flatnonzero(representatives == np.arange(len(representatives)))  # (G,)
        points = np.asarray(intent_vectors(centers, representatives, self.shares), dtype=np.float64)  # (G, d)
        group = np.searchsorted(places, representatives)  # (K,)
        shares = np.bincount(group, weights=self.shares, minlength=len(places))
        members = np.bincount(group, minlength=len(places))
        speed = np.bincount(group, weights=self._speed, minlength=len(places)) / members
        cosine = points @ points.T
        np.fill_diagonal(cosine, -1.0)
        separation = np.sqrt(np.maximum(2 - 2 * cosine.max(axis=1), 0)) if len(points) > 1 else np.full(1, 2.0)
        position = self._map.positions(points)  # (G, 2)
        return [
            Entry(
                int(self._ids[place]),
                row,
                share,
                float(separation[row]),
                float(speed[row]),
                (float(position[row, 0]), float(position[row, 1])),
                int(self._born[place]),
            )
            for row, (place, share) in enumerate(zip(places.tolist(), shares.tolist(), strict=True))
        ]

    # -- durable ----------------------------------------------------------------------------------------------------

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything, as arrays."""
        unserved = self._unserved
        numbers = (
            self._next_id,
            self._checked_at,
            self._marked_at,
            unserved.filled,
            unserved.next,
            int(self._has_last),
        )
        return {
            "ids": self._ids,
            "born": self._born,
            "counts": self._counts,
            "speed": self._speed,
            "last": self._last,
            "marked": self._marked,
            "pool": unserved.vectors,
            "basis": self._map.basis,
            "others": self._successors,
            "numbers": np.array(numbers, dtype=np.int64),
        }

    def load_arrays(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Continue from what `to_arrays` returned; earlier versions have no `others`.

        Raises
        ------
        LearnerStateError
            Another number of centers, dimensions or users in the pool.
        """
        arrays = {"others": np.full_like(self._successors, RETIRED)} | arrays
        for name, mine in self.to_arrays().items():
            if arrays[name].shape != mine.shape:
                raise LearnerStateError(f"intent identity: {name} is {arrays[name].shape}, expected {mine.shape}")
        self._ids, self._born = arrays["ids"].copy(), arrays["born"].copy()
        self._counts, self._speed = arrays["counts"].copy(), arrays["speed"].copy()
        self._last, self._marked = arrays["last"].copy(), arrays["marked"].copy()
        self._unserved.vectors, self._map.basis = arrays["pool"].copy(), arrays["basis"].copy()
        self._successors = arrays["others"].copy()
        numbers = arrays["numbers"].tolist()
        self._next_id, self._checked_at, self._marked_at, self._unserved.filled, self._unserved.next, has_last = numbers
        self._has_last = bool(has_last)


def intent_vectors(
    centers: NDArray[np.float32], representatives: NDArray[np.integer[Any]], shares: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Unit vectors of the intents, (G, d): means of the centers (K, d) with the same representative, by share.

    An intent without users lies at its representative.
    """
    K = len(representatives)
    own = representatives == np.arange(K)
    weight = np.maximum(shares, 1e-12)[:, None]
    total = np.zeros(centers.shape, dtype=np.float64)
    np.add.at(total, representatives, weight * centers)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.asarray(np.where(length > 0, total / np.maximum(length, 1e-30), centers)[own], dtype=np.float32)


__all__ = ["Birth", "Entry", "IntentIdentity", "Successor", "intent_vectors"]
