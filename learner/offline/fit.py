"""`intentstream fit` by the paper's protocol: early stopping and every choice on validation, one test at the end."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from learner.errors import ModelFileError
from learner.model.elcrec import ELCRec
from learner.offline import unfinished_fit
from learner.offline.config import CountsConfig, FitConfig
from learner.offline.counts import ItemCounts, count_items
from learner.offline.evaluation import Mixture, choose_mixture, evaluate
from learner.offline.files import MODEL_FILE, Fitted, load_fitted, replace, save_fitted
from learner.offline.sequences import Sequences
from learner.offline.trainer import EpochLog, FitProgress, Trainer

COUNTS_FILE = "counts.npz"


class FitResult(NamedTuple):
    """A finished training."""

    fitted: Fitted
    report: dict[str, Any]
    log: list[EpochLog]


def fit(
    config: FitConfig,
    sequences: Sequences,
    folder: Path,
    progress: Callable[[FitProgress], None] | None = None,
) -> FitResult:
    """Train, choose everything on the validation items, test once, and write the model to `folder`.

    A second call on the same folder with the same settings and data continues after the last finished epoch, with the
    same bits as an uninterrupted run.

    Raises
    ------
    LearnerError
        the loss is not a number, or `device = "cuda"` where torch sees no graphics card
    DataError
        no user has an item to train on
    ModelFileError
        `folder` holds a training with other settings, data or device, or cannot be written
    """
    started = time.perf_counter()
    members = []
    for place in range(config.members):

        def show(now: FitProgress, member: int = place + 1) -> None:
            if progress is not None:
                progress(now._replace(member=member))

        own = msgspec.structs.replace(config, seed=config.seed + place, members=1)
        members.append(_train(own, sequences, _member_folder(folder, place), show))
    return _conclude(config, sequences, members, folder, time.perf_counter() - started)


class _Member(NamedTuple):
    """A trained network."""

    model: ELCRec
    log: list[EpochLog]
    best_epoch: int


def _member_folder(folder: Path, place: int) -> Path:
    """The first member is the folder's own model, which also starts a stream; the others lie beneath it."""
    return folder if place == 0 else folder / f"member-{place}"


def _train(
    config: FitConfig, sequences: Sequences, folder: Path, progress: Callable[[FitProgress], None] | None
) -> _Member:
    trainer = Trainer(config, sequences)
    if not unfinished_fit.resume(trainer, folder):
        trainer.place_centers()
        unfinished_fit.save(trainer, folder)  # fails now, not after an epoch
    while not trainer.finished:
        trainer.validate(trainer.epoch(progress))
        unfinished_fit.save(trainer, folder)
    return _Member(trainer.best_model(), trainer.log, 0 if trainer.best is None else int(trainer.best["epoch"]))


def _conclude(
    config: FitConfig, sequences: Sequences, members: list[_Member], folder: Path, seconds: float
) -> FitResult:
    """Choose the mixing weights on validation, test once, write model and figures."""
    model, others = members[0].model, [member.model for member in members[1:]]
    counts = count_items(config.counts, sequences)
    mixture = None if counts is None else choose_mixture(model, sequences, counts, others=others)[0]
    report: dict[str, Any] = {}
    if mixture is not None or others:
        report["network"] = {
            "validation": evaluate(model, sequences, "validation").figures(),
            "test": evaluate(model, sequences, "test").figures(),
        }
    if mixture is not None:
        report["mix"] = {"weight": mixture.weight, "floor": mixture.floor}
    report["validation"] = evaluate(model, sequences, "validation", mixture, others=others).figures()
    report["test"] = evaluate(model, sequences, "test", mixture, others=others).figures()
    report |= {
        "epoch_seconds": float(np.median([entry.seconds for member in members for entry in member.log])),
        "epochs": len(members[0].log),
        "best_epoch": members[0].best_epoch,
        "members": len(members),
        "seconds": seconds,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "users": len(sequences),
        "users_left_out": sequences.left_out,
    }
    settings = {"fit": msgspec.to_builtins(config), "best_epoch": report["best_epoch"]}
    names = tuple(str(item) for item in range(1, sequences.item_count + 1))
    fitted = Fitted(model.cpu(), names, None if mixture is None else mixture[1:], settings)
    if counts is not None:
        replace(folder / COUNTS_FILE, counts.save)
    for place, other in enumerate(others, start=1):
        save_fitted(_member_folder(folder, place), Fitted(other.cpu(), names, None, settings))
    save_fitted(folder, fitted)
    return FitResult(fitted, report, members[0].log)


def evaluate_folder(
    folder: Path,
    sequences: Sequences,
    split: Literal["validation", "test"] = "test",
    tick: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """Figures of a fitted model on data with the same items, counts beside the network where it was fitted so."""
    started = time.perf_counter()
    fitted = load_fitted(folder)
    if sequences.item_count != len(fitted.items):
        raise ModelFileError(f"{folder}: fitted on {len(fitted.items)} items, the data have {sequences.item_count}")
    mixture = None
    if fitted.mix is not None:
        try:
            config = msgspec.convert(fitted.settings["fit"]["counts"], CountsConfig)
        except (KeyError, TypeError, msgspec.ValidationError) as error:
            raise ModelFileError(f"{folder / MODEL_FILE}: the settings of the counts are not there: {error}") from None
        mixture = Mixture(ItemCounts.load(folder / COUNTS_FILE, config, sequences.item_count), *fitted.mix)
    members = int(fitted.settings.get("fit", {}).get("members", 1))
    others = [load_fitted(_member_folder(folder, place)).model for place in range(1, members)]
    figures = evaluate(fitted.model, sequences, split, mixture, tick, others).figures()
    return figures | {"seconds": time.perf_counter() - started}


__all__ = ["FitResult", "evaluate_folder", "fit"]
