"""Drift on a simulated shop: is it found, how soon, what does that cost, and does acting on it help?

    python -m benchmarks.drift --seeds 5

Per seed, `--drifts` drifts of the five kinds in turn are injected, `--every` records apart. A drift is found when an
episode opens before the next one; an episode open before it does not count. Three more runs of the same stream: without
actions, with always doubled learning rates, and with ADWIN on the hit rate alone. False episodes are counted on a
stationary stream of `--quiet` records whose days, shares and rates swing. With `--keep FILE` each run is written there
when it is done, and one that is there already, of the same configuration, shop and seed, is not made again: a benchmark
that was stopped goes on, as long as the code is the same. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from benchmarks.run_cache import Kept
from benchmarks.simulated import STEP, Cost, published, steps
from intentstream.config import Config
from learner.drift.config import DriftConfig
from learner.runtime import set_threads
from stream.schema import topics
from stream.sources.simulator.config import SimulatorConfig

SHOP = SimulatorConfig(users=2000, items=1000, active=300, intents=12, spare_intents=12)
# three events a second: a day is 259,200 records, so that the rhythm is one within the run
QUIET = msgspec.structs.replace(SHOP, drift_every=0, events_per_second=3.0)
WINDOWS = (2048, 512)  # records over which accuracy is averaged: the first one decides, the second one is finer
RECOVERED = 0.95
AFTER = 6144  # records after a drift whose accuracy is told
Times = dict[tuple[int, str, int], int]  # seed, kind and position of a drift: records until accuracy was back


class Run(NamedTuple):
    """What one run of the engine showed."""

    opened: list[dict[str, Any]]  # alerts
    drifts: list[tuple[int, str]]  # position and kind of each that was injected
    hits: np.ndarray[Any, Any]  # (steps,) share of the events ranked in the first 20
    cost_share: float


def run(config: Config, shop: SimulatorConfig, seed: int, events: int) -> Run:
    """One pass over the stream."""
    opened: list[dict[str, Any]] = []
    drifts: list[tuple[int, str]] = []
    hits = []
    cost: Cost | None = None
    n = hit = 0.0
    for step in steps(config, shop, seed, events):
        if cost is None:
            cost = Cost(step.engine)
        for alert in published(step.result, topics.DRIFT_ALERTS):
            say(seed=seed, **{key: alert[key] for key in ("at_event", "state", "kind", "signals", "detector")})
            opened += [alert] if alert["state"] == "opened" else []
        for one in step.chunk.truth:
            if one.kind == "drift":
                drifts.append((one.position, one.drift))
                say(seed=seed, injected=one.drift, at_event=one.position)
        figures = step.engine.accuracy.prequential.result()
        total, good = figures["n"], figures["hr@20"] * figures["n"]
        hits.append((good - hit) / max(total - n, 1))
        n, hit = total, good
    assert cost is not None
    return Run(opened, drifts, np.array(hits), cost.share)


def kept_run(kept: Kept, config: Config, shop: SimulatorConfig, seed: int, events: int) -> Run:
    """The run of these settings, made now if it was not before."""

    def make() -> dict[str, Any]:
        made = run(config, shop, seed, events)
        return made._asdict() | {"hits": made.hits.tolist()}

    one = kept.of([config, shop, seed, events], make)
    drifts = [(position, kind) for position, kind in one["drifts"]]
    return Run(one["opened"], drifts, np.array(one["hits"]), one["cost_share"])


def delays(drifts: Sequence[tuple[int, str]], opened: Sequence[int], every: int) -> list[tuple[str, int | None]]:
    """Kind and delay of each drift, from where episodes opened; None for one that was missed."""
    outcome: list[tuple[str, int | None]] = []
    for position, kind in drifts:
        outcome.append((kind, min((at - position for at in opened if 0 < at - position <= every), default=None)))
    return outcome


def found(result: Run, every: int) -> list[tuple[str, int | None]]:
    """The same of a run."""
    return delays(result.drifts, [one["step"] * STEP for one in result.opened], every)


def recovery(result: Run, every: int, window: int, level_of: Run | None = None) -> dict[tuple[str, int], int]:
    """Records until accuracy is back at 95% of its level before, for each drift that took it below; at most `every`.

    The level before is the mean of 8,192 records, whatever the window: its own, or that of the run `level_of`.
    """
    before_it = (level_of or result).hits
    width, before = window // STEP, 4 * WINDOWS[0] // STEP
    smooth = np.convolve(result.hits, np.ones(width) / width, "valid")  # (steps - width + 1,), by first step
    times = {}
    for position, kind in result.drifts:
        at, stop = position // STEP, (position + every) // STEP
        if at < before or stop > len(result.hits):
            continue
        level = RECOVERED * before_it[at - before : at].mean()
        after = smooth[at : stop - width + 1]
        if len(after) and after[0] < level:
            back = np.flatnonzero(after >= level)
            times[kind, position] = int(back[0]) * STEP if len(back) else every
    return times


def ratio(times: Times, none: Times) -> float | None:
    """Records to recovery against those without actions, over the drifts that took accuracy down without actions."""
    total = sum(none.values())
    return round(sum(times.get(drift, 0) for drift in none) / total, 3) if total else None


def of_kind(times: Times, kind: str) -> Times:
    """Those of one kind of drift."""
    return {drift: records for drift, records in times.items() if drift[1] == kind}


def compare(times: dict[str, Times], every: int) -> dict[str, Any]:
    """Drifts that took accuracy down without actions, per variant the mean records to recovery, and the ratio.

    `not_back`: drifts from which accuracy did not come back before the next one, which count as `every` records.
    """
    none = times["none"]
    means = {name: round(sum(one.get(drift, 0) for drift in none) / max(len(none), 1)) for name, one in times.items()}
    not_back = {name: sum(one.get(drift) == every for drift in none) for name, one in times.items()}
    return {"drifts": len(none), "mean": means, "not_back": not_back, "ratio": ratio(times["actions"], none)}


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="file of the runs that were made, which are not made again")
    parser.add_argument("--drifts", type=int, default=20, help="per seed, the five kinds in turn")
    parser.add_argument("--first", type=int, default=20_000, help="records before the first drift")
    parser.add_argument("--every", type=int, default=20_000, help="records from one drift to the next")
    parser.add_argument("--quiet", type=int, default=400_000, help="records of the stationary stream, per seed")
    parser.add_argument("--only", default="", help="comma-separated: detection, comparison, quiet")
    parser.add_argument("--kinds", default=",".join(SHOP.drift_kinds), help="kinds of drift injected, in turn")
    parser.add_argument("--variants", default="actions,none,always_high,adwin_hits", help="compared; actions is first")
    parser.add_argument("--config", default="{}", help="JSON of drift settings that differ from the defaults")
    arguments = parser.parse_args()
    set_threads(1)
    only = set(arguments.only.split(",")) - {""} or {"detection", "comparison", "quiet"}
    base = Config()
    base = msgspec.structs.replace(base, drift=msgspec.json.decode(arguments.config, type=DriftConfig))
    events = arguments.first + arguments.every * arguments.drifts
    kinds = tuple(arguments.kinds.split(","))
    if not set(kinds) <= set(SHOP.drift_kinds):
        parser.error(f"--kinds: unknown in {arguments.kinds!r}; there are {', '.join(SHOP.drift_kinds)}")
    drifting = msgspec.structs.replace(
        SHOP, drift_first=arguments.first, drift_every=arguments.every, drift_kinds=kinds
    )
    variants = {
        "actions": base,
        "none": _drift(base, actions={}),
        "always_high": _rates(_drift(base, actions={}), base.drift.higher_rate),
        "adwin_hits": _drift(base, actions={}, signals={"served_hits": "adwin"}),
    }
    chosen = arguments.variants.split(",") if "comparison" in only else ["actions"]
    variants = {name: variants[name] for name in chosen}
    outcomes: dict[str, list[tuple[str, int | None]]] = {name: [] for name in variants}
    # variant, window, (seed, kind, position): records
    times: dict[str, dict[int, Times]] = {name: {window: {} for window in WINDOWS} for name in variants}
    after: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in SHOP.drift_kinds} for name in variants}
    # at the level before of the run without actions
    same: dict[str, dict[int, Times]] = {name: {window: {} for window in WINDOWS} for name in variants}
    accuracy: dict[str, list[float]] = {name: [] for name in variants}
    shares, false = [], 0
    kept = Kept(arguments.keep)
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        runs: dict[str, Run] = {}
        if only & {"detection", "comparison"}:
            for name, config in variants.items():
                result = runs[name] = kept_run(kept, config, drifting, seed, events)
                outcomes[name] += found(result, arguments.every)
                for window in WINDOWS:
                    found_back = recovery(result, arguments.every, window)
                    times[name][window] |= {(seed, *drift): records for drift, records in found_back.items()}
                for position, kind in result.drifts:
                    after[name][kind].append(float(result.hits[position // STEP :][: AFTER // STEP].mean()))
                accuracy[name].append(float(result.hits[len(result.hits) // 5 :].mean()))
                if name == "actions":
                    shares.append(result.cost_share)
                say(seed=seed, run=name, found=found(result, arguments.every), cost_share=round(result.cost_share, 4))
            for name, result in runs.items() if "none" in runs else ():
                for window in WINDOWS:
                    found_back = recovery(result, arguments.every, window, runs["none"])
                    same[name][window] |= {(seed, *drift): records for drift, records in found_back.items()}
        if "quiet" in only:
            opened = len(kept_run(kept, base, QUIET, seed, arguments.quiet).opened)
            say(seed=seed, run="quiet", records=arguments.quiet, opened=opened)
            false += opened
    report: dict[str, Any] = {"seeds": arguments.seeds}
    if any(outcomes.values()):
        report |= {
            "injected": len(outcomes["actions"]),
            "found": sum(delay is not None for _, delay in outcomes["actions"]),
            "delay_median": _median([delay for _, delay in outcomes["actions"] if delay is not None]),
            "cost_share": round(float(np.mean(shares)), 4),
            "by_kind": {
                kind: {
                    "injected": sum(one == kind for one, _ in outcomes["actions"]),
                    "found": sum(one == kind and delay is not None for one, delay in outcomes["actions"]),
                    "delay_median": _median([d for one, d in outcomes["actions"] if one == kind and d is not None]),
                }
                for kind in kinds
            },
            "accuracy": {name: round(float(np.mean(values)), 4) for name, values in accuracy.items()},
            f"accuracy_{AFTER}_after": {
                name: {kind: round(float(np.mean(values)), 4) for kind, values in one.items() if values}
                for name, one in after.items()
            },
        }
    if "none" in variants:
        report["recovery_ratio"] = ratio(times["actions"][WINDOWS[0]], times["none"][WINDOWS[0]])
        report["recovery_ratio_same_level"] = ratio(same["actions"][WINDOWS[0]], same["none"][WINDOWS[0]])
        report["recovery"] = {
            f"window_{window}": {
                kind: compare({name: of_kind(times[name][window], kind) for name in variants}, arguments.every)
                for kind in kinds
            }
            for window in WINDOWS
        }
    if "adwin_hits" in variants:
        report["found_adwin_hits"] = sum(delay is not None for _, delay in outcomes["adwin_hits"])
    if "quiet" in only:
        report["false_per_million"] = round(1e6 * false / (arguments.quiet * arguments.seeds), 2)
    print(json.dumps(report))


def _drift(config: Config, **changes: Any) -> Config:
    return msgspec.structs.replace(config, drift=msgspec.structs.replace(config.drift, **changes))


def _rates(config: Config, factor: float) -> Config:
    rates = {name: factor * getattr(config.learner, name) for name in ("learning_rate", "item_learning_rate")}
    return msgspec.structs.replace(config, learner=msgspec.structs.replace(config.learner, **rates))


def _median(values: list[int]) -> float | None:
    return float(np.median(values)) if values else None


def say(**what: Any) -> None:
    """A line on standard error."""
    print(json.dumps(what), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
