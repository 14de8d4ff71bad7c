"""Figures of a training as JSON, and its curve as PNG."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from learner.offline.files import replace
from learner.offline.trainer import EpochLog


def write_report(path: Path, figures: Mapping[str, Any]) -> None:
    """Write `figures` as JSON, whole or not at all."""
    replace(path, lambda part: part.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8"))


def draw_curve(path: Path, log: Sequence[EpochLog], title: str) -> None:
    """Draw loss and validation NDCG over epochs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: an evaluation does not need these 60 MB
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    loss = figure.add_subplot()
    loss.plot([entry.epoch for entry in log], [entry.loss for entry in log], color="tab:gray", label="training loss")
    loss.set(xlabel="epoch", ylabel="training loss", title=title)
    accuracy = loss.twinx()
    validated = [(entry.epoch, entry.validation) for entry in log if entry.validation is not None]
    for k, color in ((5, "tab:orange"), (20, "tab:blue")):
        accuracy.plot(
            [epoch for epoch, _ in validated],
            [figures[f"ndcg@{k}"] for _, figures in validated],
            color=color,
            marker="o",
            markersize=3,
            label=f"validation NDCG@{k}",
        )
    accuracy.set_ylabel("validation NDCG, network alone")
    accuracy.set_ylim(bottom=0)
    loss.legend(handles=[*loss.lines, *accuracy.lines], loc="center right")
    replace(path, lambda part: canvas.print_png(part))


__all__ = ["draw_curve", "write_report"]
