"""The drift of a real stream: episodes found, on a plot with accuracy, what is new, and the intents' shares.

    python -m benchmarks.drift_plot globo.csv.gz --users 8 --plot docs/images/drift-globo.png

`--users N` keeps every N-th user, so that a long stream is gone through from its beginning to its end in less time.
The last line is JSON: the episodes, and how many of their top 100 items neighboring tenths of the stream share.
"""

from __future__ import annotations

import argparse
import collections
import json
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import msgspec
import numpy as np

from benchmarks.simulated import one_partition, published
from intentstream.config import Config
from learner.runtime import set_threads
from stream.engine.engine import Engine
from stream.log.base import RecordBatch
from stream.replay.report import DriftEpisodes
from stream.schema import topics
from stream.sources.files.event_file import EventFile

STEP = 256
WINDOW = 16  # steps over which lines are smoothed
RECENT = 40  # steps whose most frequent items are looked for in the next one
TOP = 100
COLORS = {"new_intent": "tab:green", "popularity": "tab:orange", "shares": "tab:purple", "concept_drift": "tab:red"}


def batches(file: Path, users: int, most: int) -> Iterator[RecordBatch]:
    """Steps of the records of every `users`-th user, at most `most` records in all."""
    kept: list[tuple[bytes | None, bytes | None]] = []
    start = 0
    for chunk in EventFile(file):
        pairs = zip(chunk.keys, chunk.values, strict=True)
        kept += [(key, value) for key, value in pairs if zlib.crc32(key or b"") % users == 0]
        while len(kept) >= STEP and start < most:
            keys, values = [key for key, _ in kept[:STEP]], [value for _, value in kept[:STEP]]
            offsets = list(range(start, start + STEP))
            yield RecordBatch(topics.EVENTS, 0, offsets, keys, values, [0] * STEP, [()] * STEP, start + STEP)
            del kept[:STEP]
            start += STEP
        if start >= most:
            return


def follow(config: Config, steps: Iterator[RecordBatch]) -> dict[str, Any]:
    """Run the stream; what each step showed."""
    episodes, seen = DriftEpisodes(), set[str]()
    hits, new, known, shares, taken = [], [], [], [], []
    recent: collections.deque[list[str]] = collections.deque(maxlen=RECENT)
    scored = good = 0.0
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine.open(one_partition(config), Path(folder))
        for batch in steps:
            result = engine.step([batch])
            engine.learn(engine.plan_learning(result.records, 0))
            episodes.add(result)
            figures = engine.accuracy.prequential.result()
            total, hit = figures["n"], figures["hr@20"] * figures["n"]
            hits.append((hit - good) / max(total - scored, 1))
            scored, good = total, hit
            items = [str(msgspec.json.decode(value or b"")["item"]) for value in batch.values]
            counts = collections.Counter(item for step in recent for item in step)
            top = {item for item, _ in counts.most_common(TOP)}
            known.append(sum(item in top for item in items) / len(items))
            new.append(sum(item not in seen for item in items) / len(items))
            seen |= set(items)
            recent.append(items)
            taken.append(items)
            entries = [one for one in published(result, topics.INTENT_CATALOG) if "share" in one]
            if entries:
                shares.append((batch.next_offset, sorted((one["share"] for one in entries), reverse=True)))
        engine.close()
    return {"hits": hits, "new": new, "known": known, "shares": shares, "taken": taken, "episodes": episodes.report()}


def shared_tops(taken: list[list[str]]) -> list[int]:
    """How many of their most frequent items neighboring tenths of the stream share."""
    tenths = np.array_split(np.arange(len(taken)), 10)
    tops = []
    for tenth in tenths:
        counts = collections.Counter(item for step in tenth.tolist() for item in taken[step])
        tops.append({item for item, _ in counts.most_common(TOP)})
    return [len(one & other) for one, other in zip(tops[:-1], tops[1:], strict=True)]


def draw(run: dict[str, Any], path: Path) -> None:
    """Three panels, the episodes as bands behind them."""
    figure, panels = plt.subplots(3, 1, figsize=(11, 8), sharex=True, constrained_layout=True)
    smooth = np.ones(WINDOW) / WINDOW

    def line(panel: Any, values: list[float], label: str) -> None:
        averaged = np.convolve(values, smooth, "valid")
        panel.plot((np.arange(len(averaged)) + WINDOW) * STEP, averaged, label=label, linewidth=1.2)

    line(panels[0], run["hits"], "HR@20, each event before it was learned")
    line(panels[1], run["known"], f"events on the top {TOP} items of the {RECENT * STEP:,} events before")
    line(panels[1], run["new"], "events on an item never seen before")
    places = [place for place, _ in run["shares"]]
    width = max(len(one) for _, one in run["shares"])
    table = np.array([one + [0.0] * (width - len(one)) for _, one in run["shares"]])
    panels[2].stackplot(places, table[:, :10].T, alpha=0.8)
    panels[2].set_ylabel("share of the ten largest intents")
    for panel in panels[:2]:
        panel.legend(loc="center left", fontsize=8)
        panel.set_ylim(bottom=0)
    panels[2].set_xlabel("events of the stream")
    told = set[str]()
    for episode in run["episodes"]:
        end = episode["closed"] or len(run["hits"]) * STEP
        color = COLORS.get(episode["kind"], "tab:gray")
        for panel in panels:
            panel.axvspan(episode["opened"], end, color=color, alpha=0.25, linewidth=0)
        if episode["kind"] not in told:
            panels[0].plot([], [], color=color, alpha=0.4, linewidth=8, label=f"episode: {episode['kind']}")
            told.add(episode["kind"])
    panels[0].legend(loc="lower left", fontsize=8, ncols=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--users", type=int, default=1, help="keep every N-th user")
    parser.add_argument("--events", type=int, default=10**9, help="most records")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    set_threads(1)
    run = follow(Config(), batches(arguments.file, arguments.users, arguments.events))
    if arguments.plot is not None:
        draw(run, arguments.plot)
    print(
        json.dumps(
            {
                "records": len(run["hits"]) * STEP,
                "hr@20": round(float(np.mean(run["hits"])), 4),
                "shared_top_100": shared_tops(run["taken"]),
                "episodes": run["episodes"],
            }
        )
    )


if __name__ == "__main__":
    main()
