"""Intents on a simulated shop whose intents and switches are known: are they recovered, and do they stay what they are?

    python -m benchmarks.intents --seeds 5

Per seed, three runs of the same stream without drift: with intents, without the clustering loss (k-means on the same
users' vectors, as many centres), and with a rule that follows the nearest centre at once. A shift is right when the
user switched at most `WITHIN` of the own events before. At the end, learning steps on replayed data alone. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.simulated import normalised_mutual_information, published, steps
from learner.intents import effective_number, kmeans
from stream import topics
from stream.config import Config
from stream.engine import Engine
from stream.sources.simulate import SimulatorConfig

SHOP = SimulatorConfig(users=1000, items=600, active=300, intents=12, spare_intents=4, drift_every=0)
WITHIN = 5  # of the user's own events


class Run(NamedTuple):
    """What one run showed."""

    nmi: float
    nmi_kmeans: float
    f1: float
    stable_share: float
    effective_share: float
    hr20: float


def run(config: Config, seed: int, events: int, learning_steps: int) -> Run:
    """One pass over the stream; its first third is left out of the shifts."""
    own: dict[str, int] = defaultdict(int)  # events of each user so far
    switched: dict[str, list[int]] = defaultdict(list)  # own event at which each switch came
    found: dict[str, list[int]] = defaultdict(list)
    truth: dict[str, int] = {}
    engine: Engine | None = None
    result: Run | None = None
    for step in steps(config, SHOP, seed, events):
        engine, chunk = step.engine, step.chunk
        switches = {one.position for one in chunk.truth if one.kind == "switch"}
        event_of = []
        for place, (key, intent) in enumerate(zip(chunk.keys, chunk.intents.tolist(), strict=True)):
            user = key.decode()
            if intent >= 0:
                own[user] += 1
                truth[user] = intent
                if chunk.start + place in switches and chunk.start > events // 3:
                    switched[user].append(own[user])
            event_of.append(own[user])
        if chunk.start > events // 3:
            for shift in published(step.result, topics.INTENT_SHIFTS):
                found[shift["user"]].append(event_of[shift["as_of"]["offset"] - chunk.start])
        if chunk.start + len(chunk) >= events:
            result = _finish(engine, truth, learning_steps, seed, _f1(switched, found, own))
    assert result is not None
    return result


def _f1(switched: dict[str, list[int]], found: dict[str, list[int]], own: dict[str, int]) -> float:
    """F1 of the shifts; switches with too few events behind them to be seen are left out."""
    right = wanted = 0
    for user, moments in switched.items():
        left = list(found[user])
        for moment in moments:
            if own[user] - moment < WITHIN:
                continue
            wanted += 1
            hit = next((one for one in left if 0 <= one - moment < WITHIN), None)
            if hit is not None:
                right += 1
                left.remove(hit)
    told = sum(map(len, found.values()))
    return 2 * right / max(wanted + told, 1)


def _finish(engine: Engine, truth: dict[str, int], learning_steps: int, seed: int, f1: float) -> Run:
    users = [user for user in truth if engine.recommend(user.encode(), 1).history]
    records = engine._read([user.encode() for user in users], np.zeros(len(users), dtype=np.int64))  # noqa: SLF001  # the benchmark looks inside
    histories, actions = np.ascontiguousarray(records["items"]), np.ascontiguousarray(records["actions"])
    learner = engine._learner  # noqa: SLF001
    true = np.array([truth[user] for user in users])
    before = learner.intents(histories, actions).nearest
    vectors = F.normalize(learner._network.encode(learner._liked(histories, actions)), dim=-1)  # noqa: SLF001
    count = learner.config.intents.count
    centers = kmeans(vectors, count, torch.Generator().manual_seed(seed))
    grouped = (vectors @ centers.T).argmax(1).numpy()
    shares = torch.from_numpy(learner.tracker.identity.shares)
    hr20 = engine.prequential.result()["hr@20"]
    margin = engine.config.shifts.margin
    for _ in range(learning_steps // 10):
        engine.learn(10)
    after = learner.intents(histories, actions, before)
    stays = (after.nearest == before) | ((after.lead < margin) & ~after.retired)
    return Run(
        normalised_mutual_information(before, true),
        normalised_mutual_information(grouped, true),
        f1,
        float(stays.mean()),
        effective_number(shares) / count,
        hr20,
    )


def main() -> None:
    """Run all seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--learning-steps", type=int, default=1000)
    parser.add_argument("--centers", type=int, default=SHOP.intents)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    replace = msgspec.structs.replace
    default = Config()
    intents = replace(default.learner.intents, count=arguments.centers)
    base = replace(default, learner=replace(default.learner, intents=intents))
    variants = {
        "intents": base,
        "without": replace(base, learner=replace(base.learner, intents=replace(intents, clustering="none"))),
        "nearest": replace(base, shifts=replace(base.shifts, margin=0.0, sure_margin=0.0)),
    }
    runs: dict[str, list[Run]] = defaultdict(list)
    for seed in range(1, arguments.seeds + 1):
        for name, config in variants.items():
            one = run(config, seed, arguments.events, arguments.learning_steps if name == "intents" else 0)
            runs[name].append(one)
            print(json.dumps({"seed": seed, "run": name, **one._asdict()}), file=sys.stderr, flush=True)

    def mean(name: str, figure: str) -> float:
        return round(float(np.mean([getattr(one, figure) for one in runs[name]])), 4)

    report: dict[str, Any] = {
        "seeds": arguments.seeds,
        "nmi": mean("intents", "nmi"),
        "nmi_kmeans": mean("without", "nmi_kmeans"),
        "shift_f1": mean("intents", "f1"),
        "shift_f1_nearest": mean("nearest", "f1"),
        "stable_share": mean("intents", "stable_share"),
        "effective_share": mean("intents", "effective_share"),
        "hr@20": mean("intents", "hr20"),
        "hr@20_without": mean("without", "hr20"),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
