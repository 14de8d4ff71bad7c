"""Drift of what is taken, without a learner: millions of records in a minute.

    python -m benchmarks.shares --first-seed 11 --seeds 8 --quiet 1000000

The detectors alone on the shop of `benchmarks/drift.py`: items as they are taken, the users' true intents in place of
those that a learner would find, and the items never seen before. A change of meaning is for the learner to find and is
left out. Per seed, `--drifts` drifts are injected, and one is found when an episode opens before the next one; then a
stationary stream of `--quiet` records whose days, shares and rates swing. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from benchmarks.drift import QUIET, SHOP, delays, say
from benchmarks.simulated import STEP
from learner.drift.config import DriftConfig
from learner.drift.episodes import DriftMonitor, EpisodeChange
from learner.drift.signal import Observed
from stream.sources.simulator.chunk import BAD, Chunk
from stream.sources.simulator.config import SimulatorConfig
from stream.sources.simulator.simulator import Simulator

KINDS = ("shares", "popularity", "new_intent", "lost_intent")
SIGNALS = ("new_items", "intent_shares", "popularity")


class Eyes:
    """Makes of a chunk what an engine would show the detectors."""

    def __init__(self) -> None:
        self._known = np.zeros(1 << 20, dtype=bool)  # by item number
        self._ts = 0

    def look(self, chunk: Chunk) -> Observed:
        """One step."""
        good = chunk.kinds != BAD
        items = chunk.items[good]
        fresh = items[~self._known[items]]
        self._known[fresh] = True
        self._ts = max(self._ts, int(chunk.ts.max()))
        newest = np.unique(chunk.users[::-1], return_index=True)[1]  # of each user the newest record
        nothing = float("nan")
        return Observed(
            events=len(items),
            records=len(chunk),
            dead_letters=len(chunk) - len(items),
            ts=self._ts,
            served=0,
            hits=0,
            loss=nothing,
            distance=nothing,
            intents=chunk.intents[::-1][newest],
            items=items,
            new_items=len(fresh),
            movement=nothing,
            updates=0,
            refused=0,
        )


def opened(config: DriftConfig, shop: SimulatorConfig, seed: int, events: int) -> tuple[list[EpisodeChange], list[Any]]:
    """The episodes that opened, and position and kind of the drifts."""
    simulator, eyes, monitor = Simulator(shop, seed=seed), Eyes(), DriftMonitor(config)
    found: list[EpisodeChange] = []
    drifts = []
    for chunk in _steps(simulator, events):
        found += [one for one in monitor.step(eyes.look(chunk), simulator.position) if one.state == "opened"]
        drifts += [(one.position, one.drift) for one in chunk.truth if one.kind == "drift"]
    return found, drifts


def _steps(simulator: Simulator, events: int) -> Iterator[Chunk]:
    for _ in range(events // STEP):
        yield simulator.next_chunk(STEP)


def main() -> None:
    """Run all seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--drifts", type=int, default=20, help="per seed, the four kinds in turn")
    parser.add_argument("--every", type=int, default=12_000, help="records from one drift to the next")
    parser.add_argument("--quiet", type=int, default=1_000_000, help="records of the stationary stream, per seed")
    parser.add_argument("--config", default="{}", help="JSON of drift settings that differ from the defaults")
    arguments = parser.parse_args()
    detectors = DriftConfig().signals
    watched = {"signals": {name: detectors[name] for name in SIGNALS}, "actions": {}}
    config = msgspec.convert(watched | json.loads(arguments.config), DriftConfig)
    every = arguments.every
    drifting = msgspec.structs.replace(SHOP, drift_first=2 * every, drift_every=every, drift_kinds=KINDS)
    by_kind: dict[str, list[int | None]] = {kind: [] for kind in KINDS}
    needless = false = 0
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        episodes, drifts = opened(config, drifting, seed, every * (2 + arguments.drifts))
        outcome = delays(drifts, [one.at_event for one in episodes], every)
        for kind, delay in outcome:
            by_kind[kind].append(delay)
        of_drifts = sum(delay is not None for _, delay in outcome)
        needless += len(episodes) - of_drifts
        stationary, _ = opened(config, QUIET, seed, arguments.quiet)
        false += len(stationary)
        say(seed=seed, found=of_drifts, quiet=[(one.at_event, one.signals) for one in stationary])
    report: dict[str, Any] = {
        kind: {
            "injected": len(all_of),
            "found": sum(delay is not None for delay in all_of),
            "delay_median": float(np.median([delay for delay in all_of if delay is not None] or [0])),
        }
        for kind, all_of in by_kind.items()
    }
    report["needless"] = needless
    report["quiet"] = {"records": arguments.seeds * arguments.quiet, "episodes": false}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
