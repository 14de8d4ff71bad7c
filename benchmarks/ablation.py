"""What each part of the offline learner is worth: validation figures with one part changed, same seeds.

    python -m benchmarks.ablation FILE --markdown [--hidden 64] [--epochs 16] [--seeds 0,1,2] [--only NAME]...
                                  [--device auto] [--keep FILE]

Mean and spread over the seeds, one line per part; `--markdown` prints the table of docs/ablation.md. The test items are
not read. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch

from benchmarks.run_cache import Kept
from learner.offline.config import FitConfig
from learner.offline.counts import count_items
from learner.offline.evaluation import choose_mixture
from learner.offline.presets import MODERN
from learner.offline.sequences import Sequences, read_sequences
from learner.offline.trainer import Trainer, each_epoch

PARTS: dict[str, dict[str, Any]] = {
    "all parts": {},
    "next item only, no later ones": {"model": {"future": 0.0}},
    "no intents": {"model": {"intents": {"clustering": "none"}}},
    "intents: encoder not moved by them": {"model": {"intents": {"stop_gradient": True}}},
    "intents: the paper's clustering": {"model": {"intents": {"clustering": "paper"}}},
    "intents: the paper's contrasts too": {"model": {"sequence_contrast": 0.1, "intent_contrast": 0.1}},
    "intents: contrasts of cosines": {
        "model": {"sequence_contrast": 0.1, "intent_contrast": 0.1, "contrast": "cosine"}
    },
    "ranked from the newest output alone": {"model": {"lookback": 0.0}},
    "no average of weights": {"average": 0.0},
    "learned positions": {"model": {"encoder": {"positions": "learned"}}},
    "causal frequency branch, half": {"model": {"encoder": {"frequency": 0.5}}},
    "two layers": {"model": {"encoder": {"layers": 2}}},
    "cosine score": {"model": {"score": "cosine"}},
    "sampled softmax, 4096 negatives": {"model": {"full_softmax_items": 1}},
    "hidden 128": {"model": {"encoder": {"hidden": 128}}},
    "hidden 256": {"model": {"encoder": {"hidden": 256}}},
    "batches of 256 positions, rate 5e-4": {"batch_positions": 256, "learning_rate": 5e-4},
}


def overlay(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in given.items():
        merged[key] = overlay(merged[key], value) if isinstance(value, dict) else value
    return merged


def measure(config: FitConfig, data: Sequences) -> dict[str, float]:
    """Best validation figures of one training, network alone and with counts."""
    trainer = Trainer(config, data)
    log = list(each_epoch(trainer))
    best = max((entry.validation for entry in log if entry.validation), key=lambda figures: figures["ndcg@20"])
    counts = count_items(config.counts, data)
    assert counts is not None
    mixed = max(choose_mixture(trainer.best_model(), data, counts)[1].values())
    return {
        "ndcg@20": best["ndcg@20"],
        "ndcg@5": best["ndcg@5"],
        "with counts, ndcg@20": mixed,
        "effective intents": best["intents.effective"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--only", action="append", default=[], help="a part, as the table names it; again for more")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--keep", type=Path, help="file of finished trainings, which are not repeated")
    parser.add_argument("--markdown", action="store_true", help="the lines as a Markdown table")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    data = read_sequences(given.file)
    names = given.only or list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"--only {unknown[0]}: expected one of: {'; '.join(PARTS)}")
    base = overlay(
        msgspec.to_builtins(MODERN),
        {
            "epochs": given.epochs,
            "evaluate_every": 2,
            "device": given.device,
            "model": {"encoder": {"hidden": given.hidden}},
        },
    )
    found: dict[str, Any] = {}
    columns = ("ndcg@20", "ndcg@5", "with counts, ndcg@20", "effective intents")
    kept = Kept(given.keep)
    if given.markdown:
        print("| | " + " | ".join(columns) + " |")
        print("|---|" + "---|" * len(columns))
    for name in names:
        runs = []
        for seed in (int(seed) for seed in given.seeds.split(",")):
            config = msgspec.convert(overlay(overlay(base, PARTS[name]), {"seed": seed}), FitConfig)
            runs.append(kept.of((given.file.name, config), partial(measure, config, data)))
        found[name] = {
            column: [statistics.mean(run[column] for run in runs), statistics.pstdev(run[column] for run in runs)]
            for column in columns
        }
        cells = [f"{mean:.4f} ± {spread:.4f}" if mean < 1 else f"{mean:.1f}" for mean, spread in found[name].values()]
        shown = zip(columns, cells, strict=True)
        line = "; ".join(f"{column} {cell}" for column, cell in shown)
        print(f"| {name} | " + " | ".join(cells) + " |" if given.markdown else f"{name}: {line}", flush=True)
    settings = {"file": given.file.name, "hidden": given.hidden, "epochs": given.epochs, "seeds": given.seeds}
    print(json.dumps({**settings, "validation": found}))


if __name__ == "__main__":
    main()
