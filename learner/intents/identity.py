"""Which intent is which: ids that survive moves, births where users are badly served, deaths, the catalogue's figures.

A center keeps its id as long as it lives, however far it moves. One that nobody is near any more is placed anew among
the users whom no center is near to; that is another intent, with an id never used before. Numpy in, numpy out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learner.errors import LearnerStateError
from learner.intents.config import IdentityConfig

RETIRED: Final = -1
_MAP_PACE: Final = 0.2  # how far the map turns towards the present principal axes, each time
_SPEED_PACE: Final = 0.5


class Birth(NamedTuple):
    """One center that was placed anew."""

    place: int
    """row of the center, 0 to K - 1"""
    died: int
    """id of the intent that is no more"""
    born: int
    """id of the new one"""
    center: NDArray[np.float32]
    """(d,) where it starts, unit length"""


class Successor(NamedTuple):
    """What goes on of an intent when one of its centers is placed anew."""

    place: int
    """row of the center that has its id from now on"""
    takes_id: bool
    """the center that goes elsewhere gave the id so far"""


class Entry(NamedTuple):
    """One intent, for the catalogue."""

    intent: int
    place: int
    """row among the intents, 0 to G - 1"""
    share: float
    """of the users looked at lately"""
    separation: float
    """distance to the nearest other center, 0 to 2"""
    speed: float
    """distance moved per 1,000 events, lately"""
    position: tuple[float, float]
    """on the map, -1 to 1 each"""
    born_at: int
    """event number"""


class IntentIdentity:
    """Ids of K centers in d dimensions, with what is known about each.

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
        self._marked: NDArray[np.float32] = np.zeros((count, hidden), dtype=np.float32)  # where speed is measured from
        self._pool: NDArray[np.float32] = np.zeros((config.pool, hidden), dtype=np.float32)
        self._basis = np.zeros((hidden, 2))  # of the map
        # newest ids whose center was placed anew while their intent went on under another id, which stands beside them
        self._others = np.full((count, 2), RETIRED, dtype=np.int64)
        # next id, event of the last look for dead ones, event at `_marked`, pool filled, pool's next place, has `_last`
        self._numbers = np.array([count, 0, 0, 0, 0, 0], dtype=np.int64)

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

    def living(self, ids: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """The ids (m,), those whose intent goes on under another one replaced by that, as long as it is remembered."""
        now: NDArray[np.int64] = np.array(ids, dtype=np.int64)
        gone = np.flatnonzero((now >= 0) & (self.places_of(now) < 0))
        if len(gone):
            same = now[gone, None] == self._others[:, 0]
            now[gone] = np.where(same.any(axis=1), self._others[same.argmax(axis=1), 1], now[gone])
        return now

    # -- the stream -------------------------------------------------------------------------------------------------

    def observe(
        self, places: NDArray[np.integer[Any]], distance: NDArray[np.floating[Any]], vectors: NDArray[np.float32]
    ) -> None:
        """Count users at their nearest centers and remember the badly served.

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
        far = vectors[distance > self.config.far_distance][-self.config.pool :]
        if len(far):
            filled, start = self._numbers[3], self._numbers[4]
            self._pool[(start + np.arange(len(far))) % self.config.pool] = far
            self._numbers[3] = min(self.config.pool, filled + len(far))
            self._numbers[4] = (start + len(far)) % self.config.pool

    def moved(self, centers: NDArray[np.float32], event_number: int) -> float:
        """Take the centers (K, d), unit vectors, after a step; return their mean distance to those of the last call."""
        if not self._numbers[5]:
            self._last, self._marked = centers.copy(), centers.copy()
            self._numbers[2], self._numbers[5] = event_number, 1
            return 0.0
        movement = float(np.linalg.norm(centers - self._last, axis=1).mean())
        self._last = centers.copy()
        passed = event_number - int(self._numbers[2])
        if passed >= 1000:
            speed = np.linalg.norm(centers - self._marked, axis=1) * (1000.0 / passed)
            self._speed += _SPEED_PACE * (speed - self._speed)
            self._marked, self._numbers[2] = centers.copy(), event_number
        return movement

    def births(
        self,
        centers: NDArray[np.float32],
        event_number: int,
        reseed: bool = False,
        heir: Callable[[int], Successor | None] = lambda place: None,
    ) -> list[Birth]:
        """Retire dead centers and say where their successors start; the caller moves them there.

        Looks every `check_events`. Without enough badly served users who want the same, the dead stay as they are.

        Parameters
        ----------
        centers
            (K, d) unit vectors
        event_number
            events so far
        reseed
            look now, and count the smaller of two crowded centers as dead too
        heir
            called with the place of each center that dies: what goes on as the same intent, None where nothing does
        """
        config = self.config
        if not reseed and event_number - self._numbers[1] < config.check_events:
            return []
        self._numbers[1] = event_number
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
            center = self._badly_served()
            if center is None:
                break
            rest = heir(place)
            if rest is not None:  # the intent lives on: what dies is the id of a part of it
                if rest.takes_id:
                    both = [place, rest.place]
                    self._ids[both], self._born[both] = self._ids[both[::-1]], self._born[both[::-1]]
                self._goes_on(int(self._ids[place]), int(self._ids[rest.place]))
            births.append(Birth(place, int(self._ids[place]), int(self._numbers[0]), center))
            self._ids[place] = self._numbers[0]
            self._numbers[0] += 1
            self._born[place], self._speed[place] = event_number, 0.0
            self._counts[place] = total / len(shares)  # an even share, so that it is not dead at once
            self._last[place] = self._marked[place] = center
        return births

    def _goes_on(self, old: int, new: int) -> None:
        """Whoever holds the id `old` holds `new` from now on."""
        self._others[self._others[:, 1] == old, 1] = new
        self._others = np.roll(self._others, 1, axis=0)
        self._others[0] = old, new

    def _crowded(self, centers: NDArray[np.float32], shares: NDArray[np.float64]) -> NDArray[np.bool_]:
        """The smaller of each two centers that are closer than allowed, (K,)."""
        close = centers @ centers.T > self.config.crowded_cosine
        order = np.arange(len(shares))
        smaller = (shares[:, None] < shares[None, :]) | (
            (shares[:, None] == shares[None, :]) & (order[:, None] > order[None, :])
        )
        return np.asarray((close & smaller).any(axis=1))

    def _badly_served(self) -> NDArray[np.float32] | None:
        """Where most of the badly served users are, who then count as served; None where too few agree."""
        filled = int(self._numbers[3])
        pool = self._pool[:filled]
        if not filled:
            return None
        near = pool @ pool.T > self.config.near_cosine
        members = near[int(near.sum(axis=1).argmax())]
        if int(members.sum()) < self.config.least_users:
            return None
        center = pool[members].sum(axis=0)
        rest = pool[~members]
        self._pool[: len(rest)] = rest
        self._pool[len(rest) :] = 0
        self._numbers[3], self._numbers[4] = len(rest), len(rest) % self.config.pool
        return np.asarray(center / np.linalg.norm(center), dtype=np.float32)

    # -- answers ----------------------------------------------------------------------------------------------------

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of each center among the users looked at lately, (K,)."""
        return np.asarray(self._counts / max(float(self._counts.sum()), 1e-9))

    def turn_map(self, centers: NDArray[np.float32]) -> None:
        """Turn the map some way towards the present principal axes of the centers (K, d).

        The axes are first rotated to where they place the centers as the map does now (orthogonal Procrustes [1]), so
        that a sign or an order of axes that flips does not make the map flip.

        [1] P. H. Schönemann, A generalized solution of the orthogonal Procrustes problem, Psychometrika 31, 1966.
        """
        points = np.asarray(centers, dtype=np.float64)
        # in C order, as a loaded state has them: products with a transposed view differ in the last bits
        axes = np.ascontiguousarray(np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][:2].T)  # (d, 2)
        if axes.shape[1] < 2:
            axes = np.pad(axes, ((0, 0), (0, 2 - axes.shape[1])))
        if not self._basis.any():
            self._basis = axes
            return
        left, _, right = np.linalg.svd((points @ axes).T @ (points @ self._basis))
        blended = (1 - _MAP_PACE) * self._basis + _MAP_PACE * (axes @ (left @ right))
        u, _, v = np.linalg.svd(blended, full_matrices=False)
        self._basis = u @ v  # the nearest orthonormal pair

    def entries(
        self, centers: NDArray[np.float32], representatives: NDArray[np.integer[Any]] | None = None
    ) -> list[Entry]:
        """All intents as they are now, in the order of their places; centers (K, d) are unit vectors.

        `representatives` (K,) says which centers are one intent: it is where they are in the mean, by their shares.
        """
        representatives = np.arange(len(centers)) if representatives is None else np.asarray(representatives)
        places = np.flatnonzero(representatives == np.arange(len(representatives)))  # (G,)
        points = np.asarray(grouped(centers, representatives, self.shares), dtype=np.float64)  # (G, d)
        group = np.searchsorted(places, representatives)  # (K,)
        shares = np.bincount(group, weights=self.shares, minlength=len(places))
        members = np.bincount(group, minlength=len(places))
        speed = np.bincount(group, weights=self._speed, minlength=len(places)) / members
        cosine = points @ points.T
        np.fill_diagonal(cosine, -1.0)
        separation = np.sqrt(np.maximum(2 - 2 * cosine.max(axis=1), 0)) if len(points) > 1 else np.full(1, 2.0)
        position = np.clip(points @ self._basis, -1, 1)  # (G, 2)
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
        return {
            "ids": self._ids,
            "born": self._born,
            "counts": self._counts,
            "speed": self._speed,
            "last": self._last,
            "marked": self._marked,
            "pool": self._pool,
            "basis": self._basis,
            "others": self._others,
            "numbers": self._numbers,
        }

    def load_arrays(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Continue from what `to_arrays` gave; that of earlier versions was without `others`.

        Raises
        ------
        LearnerStateError
            Another number of centers, dimensions or users in the pool.
        """
        arrays = {"others": np.full_like(self._others, RETIRED)} | arrays
        for name, mine in self.to_arrays().items():
            stored = arrays[name]
            if stored.shape != mine.shape:
                raise LearnerStateError(f"intent identity: {name} is {stored.shape}, expected {mine.shape}")
        for name, stored in arrays.items():
            setattr(self, f"_{name}", stored.copy())


def grouped(
    centers: NDArray[np.float32], representatives: NDArray[np.integer[Any]], shares: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Unit vectors of the intents (G, d): means of the centers (K, d) with the same head, by share; a head stands alone
    where nobody is.
    """
    K = len(representatives)
    own = representatives == np.arange(K)
    weight = np.maximum(shares, 1e-12)[:, None]
    total = np.zeros(centers.shape, dtype=np.float64)
    np.add.at(total, representatives, weight * centers)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.asarray(np.where(length > 0, total / np.maximum(length, 1e-30), centers)[own], dtype=np.float32)


def name_intent(items: Sequence[str], titles: dict[str, tuple[str, str]], most: int = 3) -> str:
    """A name for an intent from its top items, best first.

    Parameters
    ----------
    items
        Item ids.
    titles
        Title and category of items, either may be empty; from the file given with `--items`.
    most
        Titles in a name.

    Returns
    -------
    The category of more than half of the items that have one, else the best titles, or ids.
    """
    categories = [titles[item][1] for item in items if item in titles and titles[item][1]]
    names = [titles[item][0] or item if item in titles else item for item in items]
    if categories:
        best = max(sorted(set(categories)), key=categories.count)
        if 2 * categories.count(best) > len(categories):
            return best
    return ", ".join(names[:most])


__all__ = ["Birth", "Entry", "IntentIdentity", "Successor", "grouped", "name_intent"]
