"""Prequential accuracy of the learner on streams, beside what a user would pick instead and beside itself in parts.

    python -m benchmarks.online beauty.csv.gz globo.csv.gz:200000 --methods learner,popular,item_to_item --markdown

Each stream is a CSV file with a header and the columns user, item, timestamp, sorted by time; `:LIMIT` takes its first
events. Test, then train: each event is ranked among all items known, the user's own history excluded, with the network
as of the start of its step of 256 events; the baselines learn after every single event. Counted are events of users
with a history, after the first tenth of the stream. `--markdown` prints the tables of docs/online.md.
The last line is JSON: one row per stream and method.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from river import reco

from learner.config import LearnerConfig
from learner.metrics import NOT_EVALUATED, UNRANKED, RankMetrics
from learner.offline.tuning import Recorded, batches
from learner.online.histories import Histories
from learner.online.learner import Learner
from learner.runtime import set_threads
from stream.replay.baselines import BASELINES

STEP = 256
NEW_ITEM = 1000  # events since an item was first seen, up to which it is new


class Stream(Recorded):
    """A recorded stream with a name."""

    name: str


def read(source: str) -> Stream:
    """Read FILE or FILE:LIMIT."""
    path, _, limit = source.partition(":")
    with gzip.open(path, "rt") if path.endswith(".gz") else open(path) as file:
        columns = file.readline().strip().split(",")
        rows = np.loadtxt(file, delimiter=",", dtype=np.int64, max_rows=int(limit) if limit else None)
    users, items, ts = (rows[:, columns.index(name)] for name in ("user", "item", "timestamp"))
    stream = Stream(users.tolist(), items.tolist(), ts if ts.max() > 10**11 else ts * 1000)
    stream.name = Path(path).name.split(".")[0] + (f":{limit}" if limit else "")
    return stream


def subsets(stream: Stream) -> dict[str, NDArray[np.bool_]]:
    """Which events belong to each part of the report."""
    event = np.arange(len(stream.items))
    first = np.full(int(stream.items.max()) + 1, -1)
    _, where = np.unique(stream.items, return_index=True)
    first[stream.items[where]] = where
    age = event - first[stream.items]
    counted = (event >= len(event) // 10) & (stream.nth > 0)
    return {
        "all": counted,
        "early": (event >= 10_000) & (event < 30_000) & (stream.nth > 0),
        "new_items": counted & (age > 0) & (age < NEW_ITEM),
        "one_event": counted & (stream.nth == 1),
    }


class RiverRanker:
    """A matrix factorisation of river as a ranker: 1 for the item taken, 0 for one drawn among the known; every 50th
    event is ranked, among all items known, the user's own history excluded.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._random = np.random.default_rng(0)
        self._known: dict[int, None] = {}
        self._taken = 0

    def take(
        self, contexts: NDArray[np.int64], items: NDArray[np.int64], users: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Ranks of items (n,); NOT_EVALUATED for most."""
        ranks = np.full(len(items), NOT_EVALUATED, dtype=np.int64)
        for event, (user, item) in enumerate(zip(users.tolist(), items.tolist(), strict=True)):
            self._taken += 1
            history = contexts[event][contexts[event] > 0]
            if len(history) and self._taken % 50 == 0:
                ranks[event] = self._rank(user, item, history)
            self._model.learn_one(user=user, item=item, y=1.0)
            self._known[item] = None
            other = int(self._random.integers(1, max(self._known) + 1))
            if other != item:
                self._model.learn_one(user=user, item=other, y=0.0)
        return ranks

    def _rank(self, user: int, item: int, history: NDArray[np.int64]) -> int:
        if item not in self._known or item in history:
            return UNRANKED
        known = np.array([other for other in self._known if other not in set(history.tolist())])
        latents = self._model.i_latents
        scores = np.array([latents[other] for other in known.tolist()]) @ self._model.u_latents[user]
        if hasattr(self._model, "i_biases"):
            scores = scores + np.array([self._model.i_biases[other] for other in known.tolist()])
        return int((scores > scores[known == item]).sum())


RIVER: dict[str, Callable[[], RiverRanker]] = {
    "river_biased_mf": lambda: RiverRanker(reco.BiasedMF(seed=0)),
    "river_funk_mf": lambda: RiverRanker(reco.FunkMF(seed=0)),
}


def run_river(stream: Stream, make: Callable[[], RiverRanker]) -> NDArray[np.int64]:
    """Ranks of all events, most of them not evaluated."""
    ranker = make()
    parts = [slice(start, min(start + STEP, len(stream))) for start in range(0, len(stream), STEP)]
    return np.concatenate(
        [
            ranker.take(stream.contexts(part.start, part.stop, 50)[0], stream.items[part], stream.users[part])
            for part in parts
        ]
    )


def run_baseline(stream: Stream, make: Callable[[], Any]) -> NDArray[np.int64]:
    """Ranks of all events."""
    baseline = make()
    ranks = []
    for start in range(0, len(stream.items), STEP):
        stop = min(start + STEP, len(stream.items))
        contexts, _ = stream.contexts(start, stop, 50)
        ranks.append(baseline.rank_then_count(contexts, stream.items[start:stop]))
    return np.concatenate(ranks)


def run_learner(
    stream: Stream, config: LearnerConfig, recommend: bool = False, progress: bool = False
) -> tuple[NDArray[np.int64], dict[str, float], Learner]:
    """Ranks of all events, seconds by part, and the learner as it is at the end."""
    learner = Learner(config)
    seconds = {"take": 0.0, "recommend": 0.0, "learn": 0.0}
    ranks, tail = [], RankMetrics()
    clock = time.perf_counter

    for step, batch in enumerate(batches(stream, learner, STEP), start=1):
        begin = clock()
        ranks.append(learner.observe(batch).ranks)
        taken = clock()
        if recommend:
            items = np.concatenate([batch.histories.items[:, 1:], batch.items[:, None]], axis=1)
            learner.recommend(Histories(items, batch.histories.actions, batch.histories.ts), 20)
        listed = clock()
        if config.mix.parts != "item_statistics":
            learner.learn(1)
        seconds["learn"] += clock() - listed
        seconds["recommend"] += listed - taken
        seconds["take"] += taken - begin
        tail.add(ranks[-1])
        if progress and step % 200 == 0:
            figures = {key: round(value, 4) for key, value in tail.result().items() if "20" in key}
            print(stream.name, step * STEP, figures, learner.ranker.describe(), file=sys.stderr, flush=True)
            tail = RankMetrics()
    return np.concatenate(ranks), seconds, learner


def summary(stream: Stream, ranks: NDArray[np.int64]) -> dict[str, dict[str, float]]:
    """HR@20 and NDCG@20 of each part of the report."""
    parts = {}
    for name, chosen in subsets(stream).items():
        metrics = RankMetrics()
        metrics.add(ranks[chosen])
        result = metrics.result()
        parts[name] = {"hr@20": round(result["hr@20"], 4), "ndcg@20": round(result["ndcg@20"], 4), "n": metrics.n}
    return parts


def variants(base: LearnerConfig) -> dict[str, LearnerConfig]:
    """The learner and the learner in parts."""
    replace = msgspec.structs.replace
    return {
        "learner": base,
        "without_network": replace(base, mix=replace(base.mix, parts="item_statistics")),
        "without_item_statistics": replace(base, mix=replace(base.mix, parts="network")),
        "without_intents": replace(base, intents=replace(base.intents, clustering="none")),
    }


def rows(
    sources: list[str], methods: list[str], config: LearnerConfig, recommend: bool, progress: bool
) -> Iterator[dict[str, Any]]:
    """One row per stream and method."""
    for source in sources:
        stream = read(source)
        for method in methods:
            start = time.perf_counter()
            row: dict[str, Any] = {"stream": stream.name, "events": len(stream.items), "method": method}
            if method in BASELINES:
                ranks = run_baseline(stream, BASELINES[method])
            elif method in RIVER:
                ranks = run_river(stream, RIVER[method])
            else:
                ranks, parts, learner = run_learner(stream, variants(config)[method], recommend, progress)
                row["intents"] = learner.intent_health()
                row["seconds_by_part"] = {name: round(value, 2) for name, value in parts.items()}
            row["seconds"] = round(time.perf_counter() - start, 1)
            row |= summary(stream, ranks)
            print(json.dumps(row), flush=True)
            yield row


def markdown(found: list[dict[str, Any]]) -> str:
    """One table per stream: HR@20 / NDCG@20 by method and part of the events, and NDCG@20 against the best baseline."""
    lines = []
    parts = ("all", "early", "new_items", "one_event")
    for name in dict.fromkeys(row["stream"] for row in found):
        mine = [row for row in found if row["stream"] == name]
        best = max((row["all"]["ndcg@20"] for row in mine if row["method"] in BASELINES), default=0.0)
        lines += [f"**{name}**, {mine[0]['events']:,} events", ""]
        lines += ["| method | " + " | ".join(parts) + " | against the best baseline |"]
        lines += ["|---|" + "---|" * (len(parts) + 1)]
        for row in mine:
            cells = [
                f"{row[part]['hr@20']:.4f} / {row[part]['ndcg@20']:.4f}" if row[part]["n"] else "–" for part in parts
            ]
            against = f"{row['all']['ndcg@20'] / best:.3f} x" if best else "–"
            lines.append(f"| {row['method']} | " + " | ".join([*cells, against]) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Run the methods on the streams."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("streams", nargs="+", metavar="FILE[:LIMIT]")
    parser.add_argument("--methods", default="popular,item_to_item,learner,without_network,without_item_statistics")
    parser.add_argument("--config", default="{}", help="JSON of learner settings that differ from the defaults")
    parser.add_argument("--progress", action="store_true")
    parser.add_argument("--markdown", action="store_true", help="print the tables of docs/online.md at the end")
    parser.add_argument("--recommend", action="store_true", help="make the lists too, for the time they take")
    arguments = parser.parse_args()
    torch.manual_seed(0)  # nothing draws from it; a change of the figures with it would be a fault
    config = msgspec.json.decode(arguments.config, type=LearnerConfig)
    set_threads(config.threads)
    methods = arguments.methods.split(",")
    known = [*BASELINES, *RIVER, *variants(config)]
    if unknown := [method for method in methods if method not in known]:
        parser.error(f"--methods {unknown[0]}: expected some of {', '.join(known)}")
    found = list(rows(arguments.streams, methods, config, arguments.recommend, arguments.progress))
    if arguments.markdown:
        print(markdown(found))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
