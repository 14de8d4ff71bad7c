"""ELCRec on the paper's data: published weights, cost of an epoch, the paper's training, the best model.

    python -m benchmarks.elcrec FOLDER [--parts authors,speed,paper,best,sports] [--seeds 0,1,2] [--threads 2]
                                [--members 1] [--device auto] [--keep FILE] [--networks DIR]

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
from functools import partial
from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace

from benchmarks.run_cache import Kept
from learner.offline.config import FitConfig
from learner.offline.evaluation import evaluate
from learner.offline.files import load_authors
from learner.offline.fit import fit
from learner.offline.presets import MODERN, PRESETS
from learner.offline.sequences import Sequences, read_sequences
from learner.offline.trainer import Trainer

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
    trainer = Trainer(replace(config, device="cpu"), data)
    trainer.place_centers()
    return [trainer.epoch().seconds for _ in range(count)][1:]


def speed(beauty: Sequences) -> dict[str, Any]:
    """Median seconds of an epoch: the paper's losses, and full softmax with intents, both with d = 64."""
    found: dict[str, Any] = {}
    small = replace(MODERN.model, encoder=replace(MODERN.model.encoder, hidden=64))
    for name, config in {
        "paper losses": PRESETS["beauty"],
        "paper losses, neighbors in length": replace(PRESETS["beauty"], batches="length"),
        "full softmax and intents, float32": replace(MODERN, model=small, precision="float32"),
        "full softmax and intents, bfloat16": replace(MODERN, model=small, precision="bfloat16"),
        "best model": MODERN,
    }.items():
        seconds = epochs(config, beauty)
        found[name] = {"median": statistics.median(seconds), "all": seconds}
        print(f"one epoch of Beauty, {name:<40}{found[name]['median']:6.2f} s", flush=True)
    return found


def training(config: FitConfig, data: Sequences, networks: Path) -> dict[str, Any]:
    """The report of one fit; each seed's network has a folder in `networks`, which a later run reads."""
    folders = [networks / str(config.seed + place) for place in range(config.members)]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for place, folder in enumerate(folders[1:], start=1):
        member = folders[0] / f"member-{place}"
        if not member.exists():
            member.symlink_to(Path("..", folder.name), target_is_directory=True)
    return fit(config, data, folders[0]).report


def trainings(config: FitConfig, file: Path, seeds: list[int], kept: Kept, networks: Path) -> dict[str, Any]:
    """Fit with each seed; mean and spread of the test figures."""
    data, reports = read_sequences(file), []
    for seed in seeds:
        own = replace(config, seed=seed)
        report = kept.of((file.name, own), partial(training, own, data, networks))
        reports.append(report)
        if "network" in report:
            show(f"{file.name}, seed {seed}, network alone", report["network"]["test"])
        show(f"{file.name}, seed {seed}", report["test"])
        print(
            f"    {report['epochs']} epochs of {report['epoch_seconds']:.1f} s, the best {report['best_epoch']}, "
            f"{report['seconds'] / 60:.1f} min; effective intents {report['test']['intents.effective']:.0f}; "
            f"peak {report['peak_rss_mb']:.0f} MB",
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
    parser.add_argument("--members", type=int, default=1, help="networks of best and sports, averaged")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="of the trainings")
    parser.add_argument("--keep", type=Path, help="file of finished trainings, which are not repeated")
    parser.add_argument("--networks", type=Path, help="folder of the networks, shared by runs with other --members")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    kept, best = Kept(given.keep), replace(MODERN, members=given.members, device=given.device)
    paper = replace(PRESETS["beauty"], device=given.device)
    file, sports = given.folder / "Beauty.txt", given.folder / "Sports_and_Outdoors.txt"
    beauty = read_sequences(file)
    found: dict[str, Any] = {"threads": given.threads}
    with tempfile.TemporaryDirectory() as forgotten:
        networks = given.networks or Path(forgotten)
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "authors": lambda: authors(given.folder, beauty),
            "speed": lambda: speed(beauty),
            "paper": lambda: trainings(paper, file, seeds, kept, networks / "paper"),
            "best": lambda: trainings(best, file, seeds, kept, networks / "best"),
            "sports": lambda: trainings(best, sports, seeds, kept, networks / "sports"),
        }
        for part in given.parts.split(","):
            if part not in parts:
                parser.error(f"--parts {part}: expected some of {', '.join(parts)}")
            found[part] = parts[part]()
    found["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(found))


if __name__ == "__main__":
    main()
