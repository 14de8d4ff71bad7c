"""One network's training: optimizer steps, epochs over fixed sequences, validation and early stopping."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from torch import Tensor

from learner.errors import LearnerError
from learner.model.centers import kmeans
from learner.model.elcrec import ELCRec
from learner.offline.config import FitConfig
from learner.offline.device import device_of
from learner.offline.evaluation import evaluate
from learner.offline.sequences import Sequences
from learner.offline.training_batches import TrainingBatches


class FitProgress(NamedTuple):
    """State of a training, for a progress bar."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    """mean over the steps of this epoch so far"""
    validation: float | None
    """latest NDCG@20, of the network alone"""
    best: float | None
    member: int = 1


class EpochLog(msgspec.Struct, kw_only=True):
    """Figures of one epoch."""

    epoch: int
    seconds: float
    loss: float
    parts: dict[str, float]
    validation: dict[str, float] | None = None


class Stopped(Exception):  # noqa: N818 (not an error)
    """Raised by a progress callback to stop after the current step; the last finished epoch is on disk."""


class Trainer:
    """A network in training. `fit` runs it to the end.

    Parameters
    ----------
    config
        all settings
    sequences
        the data; only the `train` split is trained on
    """

    def __init__(self, config: FitConfig, sequences: Sequences) -> None:
        self.config = config
        self.sequences = sequences
        self.device = device_of(config.device)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.model = ELCRec(config.model, sequences.item_count, self.generator).to(self.device)
        self._device_generator = self.generator  # of dropout and views, which are drawn where the model is
        if self.device.type != "cpu":
            self._device_generator = torch.Generator(self.device).manual_seed(config.seed)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate, fused=True)
        self.average = copy.deepcopy(self.model) if config.average > 0 else None
        self.steps_done = 0
        self.log: list[EpochLog] = []
        self.best: dict[str, Any] | None = None  # epoch, score, state_dict
        self.batches = TrainingBatches(config, sequences, self.device, self.generator)
        fast = config.precision == "auto" and _multiplies_bfloat16(self.device)
        self._bfloat16_softmax = fast or config.precision == "bfloat16"

    @property
    def eval_model(self) -> ELCRec:
        """The model that is validated and saved: the moving average where there is one."""
        return self.average if self.average is not None else self.model

    @torch.no_grad()
    def place_centers(self) -> None:
        """Start the centers at the k-means of all users, as the authors do before the first epoch."""
        points = torch.zeros(len(self.sequences), self.config.model.encoder.hidden)
        self.model.eval()
        for length, group in self.sequences.by_length("train", self.config.model.max_len):
            for users in np.array_split(group, math.ceil(len(group) / 1024)):
                rows = torch.from_numpy(self.sequences.histories("train", users, length)).to(self.device)
                points[torch.from_numpy(users)] = self.model.pool(self.model.encode(rows), rows).cpu()
        self.model.intents.start_from(kmeans(points, self.config.model.intents.count, self.generator))
        if self.average is not None:
            self.average.load_state_dict(self.model.state_dict())

    def step(self, users: Tensor) -> dict[str, float]:
        """One optimizer step on a batch of users; the loss and its parts."""
        self.model.train()
        losses = self.model.losses(
            self.batches.batch(users),
            self._device_generator,
            bfloat16_softmax=self._bfloat16_softmax,
            bfloat16_encoder=self.config.precision == "bfloat16",
        )
        terms = {"loss": losses.total, "next_item": losses.next_item, "sequence": losses.sequence}
        terms |= {"intent": losses.intent, "cluster": losses.cluster}
        given = {name: term.detach() for name, term in terms.items() if term is not None}
        values = dict(zip(given, torch.stack(list(given.values())).tolist(), strict=True))  # one wait for the device
        total = values["loss"]
        if not math.isfinite(total):
            raise LearnerError(
                f"epoch {len(self.log) + 1}: the loss is {total}; lower learning_rate ({self.config.learning_rate})"
            )
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.model.intents.remember(losses.users)
        self.steps_done += 1
        if self.average is not None:
            self._move_average(self.average)
        return values

    @torch.no_grad()
    def _move_average(self, average: ELCRec) -> None:
        # a young average forgets faster
        decay = min(self.config.average, (1 + self.steps_done) / (10 + self.steps_done))
        torch._foreach_lerp_(list(average.parameters()), list(self.model.parameters()), 1 - decay)

    def epoch(self, progress: Callable[[FitProgress], None] | None = None) -> EpochLog:
        """One pass over the data, without validation."""
        started = time.perf_counter()
        batches = self.batches.epoch()
        sums: dict[str, float] = {}
        for step, users in enumerate(batches, start=1):
            for name, value in self.step(users).items():
                sums[name] = sums.get(name, 0.0) + value
            if progress is not None:
                progress(self._progress(step, len(batches), sums["loss"] / step))
        parts = {name: total / len(batches) for name, total in sums.items()}
        return EpochLog(
            epoch=len(self.log) + 1, seconds=time.perf_counter() - started, loss=parts.pop("loss"), parts=parts
        )

    def _progress(self, step: int, steps: int, loss: float) -> FitProgress:
        latest = next((entry.validation for entry in reversed(self.log) if entry.validation), None)
        best = None if self.best is None else float(self.best["score"])
        shown = None if latest is None else latest["ndcg@20"]
        return FitProgress(len(self.log) + 1, self.config.epochs, step, steps, loss, shown, best)

    def validate(self, entry: EpochLog) -> None:
        """Add an epoch to the log; where it is due, validate the model first, and keep it if it is the best."""
        if entry.epoch % self.config.evaluate_every == 0 or entry.epoch == self.config.epochs:
            entry.validation = evaluate(self.eval_model, self.sequences, "validation").figures()
            score = entry.validation["ndcg@20"]
            if self.best is None or score > self.best["score"]:
                state = {name: value.to("cpu", copy=True) for name, value in self.eval_model.state_dict().items()}
                self.best = {"epoch": entry.epoch, "score": score, "state": state}
        self.log.append(entry)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or `patience` epochs of those validated so far brought no better one."""
        validated = max((entry.epoch for entry in self.log if entry.validation is not None), default=0)
        stale = self.best is not None and validated - int(self.best["epoch"]) >= self.config.patience
        return len(self.log) >= self.config.epochs or stale

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on, as tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "generator": self.generator.get_state(),
            "draws": None if self._device_generator is self.generator else self._device_generator.get_state(),
            "steps": self.steps_done,
            "best": self.best,
            "log": msgspec.to_builtins(self.log),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.generator.set_state(state["generator"])
        if self._device_generator is not self.generator:
            self._device_generator.set_state(state["draws"])
        self.steps_done = int(state["steps"])
        self.best = state["best"]
        self.log = msgspec.convert(state["log"], list[EpochLog])

    def best_model(self) -> ELCRec:
        """The model with the best validation NDCG@20, in evaluation mode."""
        model = ELCRec(self.config.model, self.sequences.item_count)
        model.load_state_dict(self.eval_model.state_dict() if self.best is None else self.best["state"])
        return model.to(self.device).eval()


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    native = torch.cpu.get_capabilities()
    return bool(native.get("avx512_bf16") or native.get("amx_bf16"))


def each_epoch(trainer: Trainer) -> Iterator[EpochLog]:
    """Train epoch by epoch without a folder, for benchmarks."""
    trainer.place_centers()
    while not trainer.finished:
        entry = trainer.epoch()
        trainer.validate(entry)
        yield entry


__all__ = ["EpochLog", "FitProgress", "Stopped", "Trainer", "each_epoch"]
