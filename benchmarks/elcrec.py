"""ELCRec on the paper's data: published weights, cost of an epoch, the paper's training, the best model.

    python -m benchmarks.elcrec FOLDER [--parts authors,speed,paper,best] [--seeds 0,1,2] [--threads 2]

FOLDER holds Beauty.txt, Sports_and_Outdoors.txt and ELCRec-Beauty-1.pt. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace

from learner.checkpoint import load_authors
from learner.evaluation import evaluate
from learner.offline import FitConfig, Trainer, fit
from learner.presets import MODERN, PRESETS
from learner.sequences import Sequences, read_sequences

KEYS = ("hr@5", "ndcg@5", "hr@10", "ndcg@10", "hr@20", "ndcg@20")


def show(title: str, figures: dict[str, float]) -> None:
    print(f"{title:<44}" + "  ".join(f"{key} {figures[key]:.4f}" for key in KEYS), flush=True)


def authors(folder: Path, beauty: Sequences) -> dict[str, Any]:
    """The published Beauty weights under the paper's protocol."""
    started = time.perf_counter()
    figures = evaluate(load_authors(folder / "ELCRec-Beauty-1.pt", items=beauty.item_count), beauty, "test").figures()
    show("authors' Beauty weights, test", figures)
    return figures | {"seconds": time.perf_counter() - started}


def epochs(config: FitConfig, data: Sequences, count: int = 4) -> list[float]:
    """Seconds of each epoch after the first."""
    trainer = Trainer(config, data)
    trainer.place_centers()
    return [trainer.epoch().seconds for _ in range(count)][1:]


def speed(beauty: Sequences) -> dict[str, Any]:
    """Median seconds of an epoch: the paper's losses as they should be, and full softmax with intents, d = 64 both."""
    found: dict[str, Any] = {}
    small = replace(MODERN.model, encoder=replace(MODERN.model.encoder, hidden=64))
    for name, config in {
        "paper losses": PRESETS["beauty"],
        "full softmax and intents, float32": replace(MODERN, model=small, precision="float32"),
        "full softmax and intents, bfloat16": replace(MODERN, model=small, precision="bfloat16"),
        "best model": MODERN,
    }.items():
        seconds = epochs(config, beauty)
        found[name] = {"median": statistics.median(seconds), "all": seconds}
        print(f"one epoch of Beauty, {name:<40}{found[name]['median']:6.2f} s", flush=True)
    return found


def trainings(config: FitConfig, data: Sequences, seeds: list[int], title: str) -> dict[str, Any]:
    """Fit with each seed; mean and spread of the test figures."""
    reports = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            result = fit(replace(config, seed=seed), data, Path(folder))
        reports.append(result.report)
        if "network" in result.report:
            show(f"{title}, seed {seed}, network alone", result.report["network"]["test"])
        show(f"{title}, seed {seed}", result.report["test"])
        test = result.report["test"]
        print(
            f"    {result.report['epochs']} epochs of {result.report['epoch_seconds']:.1f} s, "
            f"{result.report['seconds'] / 60:.1f} min; effective intents {test['intents.effective']:.0f}; "
            f"peak {result.report['peak_rss_mb']:.0f} MB",
            flush=True,
        )

    def spread(read: Callable[[dict[str, Any]], dict[str, float]]) -> dict[str, Any]:
        return {
            key: {
                "mean": statistics.mean(read(report)[key] for report in reports),
                "spread": statistics.pstdev(read(report)[key] for report in reports),
            }
            for key in (*KEYS, "intents.effective")
        }

    found = {"seeds": seeds, "test": spread(lambda report: report["test"]), "runs": reports}
    if "network" in reports[0]:
        found["network"] = spread(lambda report: report["network"]["test"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parts", default="authors,speed,best")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    beauty = read_sequences(given.folder / "Beauty.txt")
    found: dict[str, Any] = {"threads": given.threads}
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "authors": lambda: authors(given.folder, beauty),
        "speed": lambda: speed(beauty),
        "paper": lambda: trainings(PRESETS["beauty"], beauty, seeds, "paper's settings, Beauty"),
        "best": lambda: trainings(MODERN, beauty, seeds, "best, Beauty"),
        "sports": lambda: trainings(
            MODERN, read_sequences(given.folder / "Sports_and_Outdoors.txt"), seeds, "best, Sports"
        ),
    }
    for part in given.parts.split(","):
        if part not in parts:
            parser.error(f"--parts {part}: expected some of {', '.join(parts)}")
        found[part] = parts[part]()
    found["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(found))


if __name__ == "__main__":
    main()
