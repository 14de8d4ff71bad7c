"""Intents on a simulated shop whose intents and switches are known: are they recovered, and do they stay what they are?

    python -m benchmarks.intents --seeds 5
    python -m benchmarks.intents --seeds 0 --streams globo.csv.gz beauty.csv.gz

Per seed, two runs of the same stream without drift: with intents, and without the clustering loss, for k-means and
river's online k-means on the encoder's user vectors. A shift is right when the user switched at most `WITHIN` of the
own events before, that event included; switches with fewer events behind them are left out, with their shifts, and so
is the first third of the stream. Beside it stands an observer who is told each item's true intent and the shop's rates:
what it does not find, the items do not say. At the end, learning steps on replayed data alone. With `--streams`,
recorded streams with the balanced form, the paper's, and without intents. With `--keep FILE` each run is written there
when it is done and not made again, which is right as long as the code is the same. Parameters were chosen on seeds 10
to 12; the figures are for seeds 1 to N. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict, deque
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from river import cluster
from torch.nn import functional as F

from benchmarks.run_cache import Kept
from benchmarks.simulated import Cost, Step, normalised_mutual_information, one_partition, steps
from intentstream.config import Config
from learner.model.centers import interests, kmeans
from learner.model.config import IntentConfig
from learner.online.histories import Histories
from learner.runtime import set_threads
from stream.engine.engine import Engine
from stream.replay.runner import replay
from stream.sources.files.event_file import EventFile
from stream.sources.simulator.config import SimulatorConfig

SHOP = SimulatorConfig(users=1000, items=600, active=300, intents=12, spare_intents=4, drift_every=0)
WITHIN = 5  # of the user's own events
TOLD_ALL_FROM = 0.9  # probability from which the observer who is told all tells a shift
RIVER_USERS = 8  # per step, from which river's k-means learns: it takes a millisecond each


class Told(NamedTuple):
    """A shift that was told."""

    at: int
    """the user's own event"""
    confidence: float
    explained: bool
    """the user's newest items do not all belong to the intent that he has in truth, and had before"""


class Run(NamedTuple):
    """What one run showed."""

    nmi: float
    nmi_kmeans: float
    nmi_kmeans_true_count: float
    nmi_river: float
    intents: int
    f1: float
    precision: float
    recall: float
    f1_nearest: float
    f1_told_all: float
    model_share: float
    false_share: float
    sure_share: float
    sure_held: float
    stable_share: float
    cost_share: float
    hr20: float


class ToldAll:
    """Bayes' rule for the simulator's own way of choosing items, on their true intents: main and side intent of a user.

    It leaves out only that nobody switches within `min_hold` events.
    """

    def __init__(self, shop: SimulatorConfig) -> None:
        self._shop = shop
        self._users: dict[str, np.ndarray[Any, Any]] = {}  # (G, G) probability of main and side intent
        self._held: dict[str, int] = {}
        self._seen: dict[str, int] = defaultdict(int)

    def take(self, user: str, intent: int) -> bool:
        """The user takes an item of this intent; whether that makes a shift."""
        shop, G = self._shop, self._shop.intents
        apart = (1 - np.eye(G)) / (G - 1)
        was = self._users.get(user, apart / G)
        switched = apart * was.sum(axis=1)  # whoever switches has what he left for his side intent
        now = (1 - shop.switch_rate) * was + shop.switch_rate * switched
        likely = np.full((G, G), shop.noise / G)
        likely[intent] += (1 - shop.noise) * (1 - shop.side_share)
        likely[:, intent] += (1 - shop.noise) * shop.side_share
        now = now * likely
        self._users[user] = now / now.sum()
        self._seen[user] += 1
        chance = self._users[user].sum(axis=1)
        best = int(chance.argmax())
        held = self._held.setdefault(user, best)
        if best == held or (chance[best] < TOLD_ALL_FROM and self._seen[user] > WITHIN):
            return False
        self._held[user] = best
        return self._seen[user] > WITHIN


class Watcher:
    """Follows one run: the truth of each user, and what was told."""

    def __init__(self, events: int, seed: int, count: int) -> None:
        self.from_event = events // 3
        self.own: dict[str, int] = defaultdict(int)  # events of each user so far
        self.switched: dict[str, list[int]] = defaultdict(list)  # own event at which each switch came
        self.told: dict[str, list[Told]] = defaultdict(list)
        self.any: dict[str, list[int]] = defaultdict(list)  # also those that the model caused
        self.nearest: dict[str, list[int]] = defaultdict(list)
        self.told_all: dict[str, list[int]] = defaultdict(list)
        self.truth: dict[str, int] = {}
        self._at: dict[str, int] = {}  # nearest intent at the last look
        self._newest: dict[str, deque[int]] = defaultdict(lambda: deque(maxlen=WITHIN))
        self._intent_of: dict[str, int] = {}
        self._observer = ToldAll(SHOP)
        self.river = cluster.KMeans(n_clusters=count, sigma=0.125, seed=seed)  # as spread as unit vectors of 64 numbers

    def take(self, step: Step) -> None:
        """Take one step of the run."""
        chunk = step.chunk
        for one in chunk.truth:
            if one.kind == "item":
                self._intent_of[one.item] = one.intent
        switches = {one.position for one in chunk.truth if one.kind == "switch"}
        event_of, explained = [], []
        for place, (key, item, intent) in enumerate(
            zip(chunk.keys, chunk.item_ids, chunk.intents.tolist(), strict=True)
        ):
            user = key.decode()
            if intent >= 0:
                self.own[user] += 1
                self.truth[user] = intent
                self._newest[user].append(self._intent_of.get(item, -1))
                if self._observer.take(user, self._intent_of[item]) and chunk.start > self.from_event:
                    self.told_all[user].append(self.own[user])
                if chunk.start + place in switches and chunk.start > self.from_event:
                    self.switched[user].append(self.own[user])
            event_of.append(self.own[user])
            explained.append(any(one != self.truth.get(user) for one in self._newest[user]))
        late = chunk.start > self.from_event
        for shift in step.result.shifts:
            place = shift.as_of.offset - chunk.start
            self.any[shift.user].append(event_of[place])
            if late and shift.cause == "user":
                moment = event_of[place]
                moved = any(0 <= moment - at < 2 * WITHIN for at in self.switched[shift.user])
                self.told[shift.user].append(Told(moment, shift.confidence, moved or explained[place]))
        self._look(step, late)

    def _look(self, step: Step, late: bool) -> None:
        """Follow the nearest center, and let river learn."""
        users = sorted(
            {key.decode() for key, intent in zip(step.chunk.keys, step.chunk.intents, strict=True) if intent >= 0}
        )
        if not users:
            return
        rows = user_rows(step.engine, users)[0]
        learner = step.engine.learner
        u = interests(learner._parts.network.table, torch.from_numpy(rows), learner.config.intents.half_life)  # noqa: SLF001
        places = learner.tracker.merging.representatives[learner._parts.network.centers.nearest(u).intent.numpy()]  # noqa: SLF001
        for user, place in zip(users, places.tolist(), strict=True):
            if late and self._at.get(user, place) != place:
                self.nearest[user].append(self.own[user])
            self._at[user] = place
        h = F.normalize(learner._parts.network.encode(rows[:RIVER_USERS]), dim=-1)  # noqa: SLF001
        for vector in h.tolist():
            self.river.learn_one(dict(enumerate(vector)))

    def score(self, found: dict[str, list[int]]) -> tuple[float, float, float]:
        """F1, precision and recall of shifts at these events of each user."""
        right = wanted = skipped = 0
        for user, moments in self.switched.items():
            left = list(found.get(user, []))
            for moment in moments:
                hit = next((one for one in left if 0 <= one - moment < WITHIN), None)
                if hit is not None:
                    left.remove(hit)
                if self.own[user] - moment < WITHIN - 1:
                    skipped += hit is not None
                    continue
                wanted += 1
                right += hit is not None
        told = sum(map(len, found.values())) - skipped
        return 2 * right / max(wanted + told, 1), right / max(told, 1), right / max(wanted, 1)

    def sure(self, held_for: int) -> tuple[float, float]:
        """Share of the shifts told with a confidence of .9 or more, and how many of them held for so many events."""
        ended = [
            (told.confidence, not any(told.at < one < told.at + held_for for one in self.any[user]))
            for user, shifts in self.told.items()
            for told in shifts
            if self.own[user] - told.at >= held_for
        ]
        sure = [held for confidence, held in ended if confidence >= 0.9]
        return len(sure) / max(len(ended), 1), float(np.mean(sure)) if sure else float("nan")


def user_rows(engine: Engine, users: list[str]) -> tuple[Any, Any]:
    """Table rows of what the users liked, (B, L), and their records."""
    records = engine.records([user.encode() for user in users])
    return engine.learner._history_rows(Histories.of_records(records)).liked, records  # noqa: SLF001


def run(config: Config, seed: int, events: int, learning_steps: int) -> Run:
    """One pass over the stream."""
    watcher = Watcher(events, seed, SHOP.intents)
    cost: Cost | None = None
    result: Run | None = None
    for step in steps(config, SHOP, seed, events):
        if cost is None:
            cost = Cost(step.engine)
        watcher.take(step)
        if step.chunk.start + len(step.chunk) >= events:
            result = _finish(step.engine, watcher, learning_steps, seed, cost.share)
    assert result is not None
    return result


def kept_run(kept: Kept, config: Config, seed: int, events: int, learning_steps: int) -> Run:
    """The run of these settings, made now if it was not before."""

    def make() -> dict[str, Any]:
        return {name: float(value) for name, value in run(config, seed, events, learning_steps)._asdict().items()}

    return Run(**kept.of([config, SHOP, seed, events, learning_steps], make))


def _finish(engine: Engine, watcher: Watcher, learning_steps: int, seed: int, cost: float) -> Run:
    learner = engine.learner
    users = [user for user, count in watcher.own.items() if count >= WITHIN]
    rows, records = user_rows(engine, users)
    true = np.array([watcher.truth[user] for user in users])
    held, span = learner.current_intents(records["intent"]), records["intent_events"].astype(np.int64)
    vectors = F.normalize(learner._parts.network.encode(rows), dim=-1)  # noqa: SLF001
    nmi = normalised_mutual_information

    def grouped(count: int) -> Any:
        centers = kmeans(vectors, count, torch.Generator().manual_seed(seed))
        return (vectors @ centers.T).argmax(1).numpy()

    river = np.array([watcher.river.predict_one(dict(enumerate(vector))) for vector in vectors.tolist()])
    f1, precision, recall = watcher.score({user: [one.at for one in told] for user, told in watcher.told.items()})
    told = [one for shifts in watcher.told.values() for one in shifts]
    sure_share, sure_held = watcher.sure(engine.config.shifts.hold_events)
    hr20 = engine.accuracy.prequential.result()["hr@20"]
    for _ in range(learning_steps // 10):
        engine.learn(10)
    after = learner.tracker.view(rows, held, span)
    stays = (after.nearest == learner.current_intents(held)) | (
        (after.lead < engine.config.shifts.margin) & ~after.stale
    )
    return Run(
        nmi=nmi(held, true),
        nmi_kmeans=nmi(grouped(learner.config.intents.count), true),
        nmi_kmeans_true_count=nmi(grouped(SHOP.intents), true),
        nmi_river=nmi(river, true),
        intents=len(learner.tracker.shares),
        f1=f1,
        precision=precision,
        recall=recall,
        f1_nearest=watcher.score(watcher.nearest)[0],
        f1_told_all=watcher.score(watcher.told_all)[0],
        model_share=float(np.mean([not one.explained for one in told])) if told else 0.0,
        false_share=1 - precision,
        sure_share=sure_share,
        sure_held=sure_held,
        stable_share=float((stays & ~after.retired).mean()),
        cost_share=cost,
        hr20=hr20,
    )


def recorded(config: Config, path: Path, limit: int) -> dict[str, Any]:
    """A recorded stream with each form of the clustering loss: effective number of intents, and accuracy."""
    out: dict[str, Any] = {"stream": path.name, "events": limit}
    for form in ("balanced", "paper", "none"):
        chosen = with_intents(config, clustering=form)
        with tempfile.TemporaryDirectory() as folder:
            report = replay(
                one_partition(chosen),
                EventFile(path, limit=limit),
                Path(folder),
                keep=False,
                step_records=256,
                baselines=False,
            )
        share = report["intents"]["effective"] / chosen.learner.intents.count
        out[form] = {
            "effective_share": round(share, 4),
            "hr@20": round(report["prequential"]["hr@20"], 4),
            "ndcg@20": round(report["prequential"]["ndcg@20"], 4),
            "shifts": report["shifts"],
        }
        print(json.dumps({"stream": path.name, "run": form, **out[form]}), file=sys.stderr, flush=True)
    return out


def with_intents(config: Config, **settings: Any) -> Config:
    """The configuration with other settings of the intents."""
    replace = msgspec.structs.replace
    intents: IntentConfig = replace(config.learner.intents, **settings)
    return replace(config, learner=replace(config.learner, intents=intents))


def main() -> None:
    """Run all seeds, then the recorded streams."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="file of the runs that were made, which are not made again")
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--learning-steps", type=int, default=1000)
    parser.add_argument("--centers", type=int, default=Config().learner.intents.count)
    parser.add_argument("--streams", type=Path, nargs="*", default=[], help="recorded streams: user,item,timestamp")
    parser.add_argument("--limit", type=int, default=40_000, help="events of each recorded stream")
    arguments = parser.parse_args()
    set_threads(1)
    base = with_intents(Config(), count=arguments.centers)
    kept = Kept(arguments.keep)
    runs: dict[str, list[Run]] = defaultdict(list)
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for name, config in {"intents": base, "without": with_intents(base, clustering="none")}.items():
            learning_steps = arguments.learning_steps if name == "intents" else 0
            one = kept_run(kept, config, seed, arguments.events, learning_steps)
            runs[name].append(one)
            print(json.dumps({"seed": seed, "run": name, **one._asdict()}), file=sys.stderr, flush=True)

    def mean(name: str, figure: str) -> float | None:
        values = [getattr(one, figure) for one in runs[name]]
        return round(float(np.mean(values)), 4) if values else None

    figures = {
        "nmi": "nmi",
        "intents": "intents",
        "shift_f1": "f1",
        "shift_precision": "precision",
        "shift_recall": "recall",
        "shift_f1_nearest": "f1_nearest",
        "shift_f1_told_all": "f1_told_all",
        "shift_model_share": "model_share",
        "shift_sure_share": "sure_share",
        "shift_sure_held": "sure_held",
        "stable_share": "stable_share",
        "cost_share": "cost_share",
        "hr@20": "hr20",
    }
    beside = {"nmi_kmeans": "nmi_kmeans", "nmi_kmeans_true_count": "nmi_kmeans_true_count", "nmi_river": "nmi_river"}
    streams = [recorded(base, path, arguments.limit) for path in arguments.streams]
    report: dict[str, Any] = {"seeds": arguments.seeds, "centers": arguments.centers, "events": arguments.events}
    report |= {key: mean("intents", figure) for key, figure in figures.items()}
    report |= {key: mean("without", figure) for key, figure in beside.items()} | {
        "hr@20_without": mean("without", "hr20")
    }
    report["effective_share"] = min((one["balanced"]["effective_share"] for one in streams), default=None)
    report["streams"] = streams
    print(json.dumps(report))


if __name__ == "__main__":
    main()
