"""The event stream of a simulated shop whose truth is known: intents, switches, drifts, and faulty records.

Each intent has its own items, popularity and transitions. A user holds one main and one side intent and switches at
known moments; the population drifts at known moments in one of five ways. The records carry none of this: it goes into
`Truth` lines and the arrays of a `Chunk`.

Records are made in blocks of a size that does not depend on the calls, so that the stream is a function of
configuration and seed alone. A block makes the first event of every user at once, then the second, and so on; each
such round costs a handful of array operations.
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.errors import SourceError
from stream.sources.simulator.chunk import (
    BAD,
    BOT,
    COLUMNS,
    DUPLICATE,
    NORMAL,
    Chunk,
    chunk_of_columns,
    join_chunks,
    slice_chunk,
)
from stream.sources.simulator.config import SimulatorConfig
from stream.sources.simulator.drifts import Drifts
from stream.sources.simulator.population import Population
from stream.sources.simulator.truth import Truth

Ints = NDArray[np.int64]
_FORMAT: Final = 3  # 3: other names of the arrays
_BLOCK: Final = 8192
_MINUTE_MS: Final = 60_000
_WEEK_MINUTES: Final = 7 * 24 * 60


class Simulator:
    """The endless stream of a shop, in chunks.

    Parameters
    ----------
    config
        The shop.
    seed
        Seed of the one generator that draws everything.

    Examples
    --------
    >>> shop = Simulator(SimulatorConfig(), seed=1)
    >>> chunk = shop.next_chunk(3)
    >>> len(chunk.values), shop.position
    (3, 3)
    """

    def __init__(self, config: SimulatorConfig, seed: int = 0) -> None:
        self.config = config
        self.seed = seed
        self.position = 0  # records returned so far
        self._made = 0  # records made so far
        self._elapsed = 0.0  # events due so far by the rhythm; see _times
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._curve = _week_curve(config)
        self._blocks: list[Chunk] = []  # made, not returned yet
        self._population = Population(config, self._rng)
        self._drifts = Drifts(config, self._population, self._rng)

    def next_chunk(self, n: int) -> Chunk:
        """Return the next `n` records; the stream does not depend on how it is divided into calls."""
        while self._made - self.position < n:
            self._blocks.append(self._make_block())
        parts: list[Chunk] = []
        left = n
        while left:
            block = self._blocks.pop(0)
            parts.append(slice_chunk(block, 0, left))
            if len(block) > left:
                self._blocks.insert(0, slice_chunk(block, left, len(block)))
            left -= len(parts[-1])
        self.position += n
        return join_chunks(parts, self.position - n)

    def save(self, file: Path) -> None:
        """Write the state to `file` (npz), atomically; `load` continues with the very next record."""
        rest = join_chunks(self._blocks, self.position)
        small = {
            "format": _FORMAT,
            "config": msgspec.to_builtins(self.config),
            "seed": self.seed,
            "position": self.position,
            "made": self._made,
            "drifts": self._drifts.made,
            "elapsed": self._elapsed,
            "population": self._population.counts(),
            "generator": self._rng.bit_generator.state,
            "truth": msgspec.to_builtins(rest.truth),
            "untold": msgspec.to_builtins(self._population.truth),  # before the first block takes it
        }
        arrays: dict[str, NDArray[Any]] = {f"rest.{name}": getattr(rest, name) for name in COLUMNS}
        arrays |= self._population.arrays()
        arrays["small"] = np.frombuffer(json.dumps(small).encode(), dtype=np.uint8)
        temporary = file.with_name(file.name + ".tmp")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as out:
                np.savez(out, **arrays)  # type: ignore[arg-type]  # the stub takes the arrays for allow_pickle
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(file)
        except OSError as exc:
            raise SourceError(f"{file}: the simulator's state cannot be written: {exc.strerror}") from exc

    @classmethod
    def load(cls, file: Path, config: SimulatorConfig) -> Simulator:
        """Continue where `save` was called.

        Raises
        ------
        SourceError
            The file holds no such state, or one of another format or another configuration.
        """
        try:
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            small: dict[str, Any] = json.loads(arrays["small"].tobytes())
            if small["format"] != _FORMAT:
                raise SourceError(f"{file}: simulator state of format {small['format']}, expected {_FORMAT}: remove it")
            if msgspec.convert(small["config"], SimulatorConfig) != config:
                raise SourceError(
                    f"{file}: made with another configuration of the shop: give that one (--shop), or remove the file"
                )
            simulator = cls(config, small["seed"])
            simulator._restore(small, arrays)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, msgspec.ValidationError) as exc:
            raise SourceError(f"{file}: not a simulator state ({exc}): remove it to start the shop again") from exc
        return simulator

    def _restore(self, small: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        self.position, self._made = small["position"], small["made"]
        self._drifts.made, self._elapsed = small["drifts"], small["elapsed"]
        self._population.restore(small["population"], arrays)
        self._population.truth = msgspec.convert(small["untold"], list[Truth])
        self._rng.bit_generator.state = small["generator"]
        truth = msgspec.convert(small["truth"], list[Truth])
        rest = chunk_of_columns(self.position, [arrays[f"rest.{name}"] for name in COLUMNS], truth)
        self._blocks = [rest] if len(rest) else []

    def _times(self, elapsed: NDArray[np.float64]) -> NDArray[np.float64]:
        """Event times, epoch ms, at which `elapsed` (n,) events are due by the rhythm: the cumulative rate inverted."""
        total = self._curve[-1]  # mean events of a week
        weeks = np.floor(elapsed / total)
        minutes = np.interp(elapsed - weeks * total, self._curve, np.arange(_WEEK_MINUTES + 1))
        times: NDArray[np.float64] = self.config.start_ts + (weeks * _WEEK_MINUTES + minutes) * _MINUTE_MS
        return times

    def _make_block(self) -> Chunk:
        config, rng, people, start = self.config, self._rng, self._population, self._made
        size = _BLOCK
        if config.drift_every:
            due = config.drift_first + self._drifts.made * config.drift_every
            if due <= start:
                self._drifts.make(start)
                due += config.drift_every
            size = min(size, due - start)  # a drift is exact to the record
        people.churn(size, start)
        kinds = self._kinds(size)
        due_at = self._elapsed + np.cumsum(rng.exponential(1.0, size))
        ts = self._times(due_at).astype(np.int64)
        now_ms = float(ts[0])
        delays = np.where(rng.random(size) < config.late_share, rng.exponential(config.late_ms, size), 0.0)
        ts = np.maximum(ts - delays.astype(np.int64), config.start_ts)
        actions = np.searchsorted(np.cumsum(config.action_shares[:-1]), rng.random(size), "right").astype(np.uint8)

        users = rng.integers(0, config.users, size)  # for bad records
        items = rng.integers(0, config.items, size)  # for bad records and bots
        intents = np.full(size, -1)
        bots = np.flatnonzero(kinds == BOT)
        users[bots] = config.users - 1 - rng.integers(0, max(config.bots, 1), len(bots))
        normal = np.flatnonzero(kinds == NORMAL)
        users[normal] = people.visitors(len(normal), now_ms)
        items[normal], intents[normal] = people.choose_items(users[normal], start + normal)
        repeats = np.flatnonzero(kinds == DUPLICATE)
        source = np.searchsorted(normal, repeats) - 1 - rng.integers(0, 8, len(repeats))
        source = normal[np.maximum(source, 0)]
        for column in (users, items, ts, actions):
            column[repeats] = column[source]

        truth, people.truth = people.truth, []
        self._elapsed = float(due_at[-1])
        self._made += size
        return Chunk(
            start,
            people.user_number[users],
            people.items.number[items],
            people.items.word[items],
            ts,
            actions,
            kinds,
            intents,
            truth,
        )

    def _kinds(self, size: int) -> NDArray[np.uint8]:
        config = self.config
        steps = np.cumsum([config.bad_share, config.duplicate_share, config.bot_share if config.bots else 0.0])
        kinds = np.array([BAD, DUPLICATE, BOT, NORMAL], dtype=np.uint8)
        drawn: NDArray[np.uint8] = kinds[np.searchsorted(steps, self._rng.random(size), "right")]
        drawn[0] = NORMAL  # a duplicate needs something before it
        return drawn


def _week_curve(config: SimulatorConfig) -> NDArray[np.float64]:
    """Events due since the start of a week, at every minute; weeks begin at `start_ts`."""
    minutes = np.arange(_WEEK_MINUTES) + 0.5
    day = 1 - config.day_rhythm * np.cos(2 * np.pi * minutes / (24 * 60))
    week = 1 - config.week_rhythm * np.cos(2 * np.pi * minutes / _WEEK_MINUTES)
    rate = day * week
    rate *= config.events_per_second * 60 / rate.mean()
    return np.concatenate([[0.0], np.cumsum(rate)])


__all__ = ["Simulator"]
