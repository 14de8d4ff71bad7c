"""Training by the paper's protocol: epochs over fixed sequences, early stopping on validation, one test at the end.

An interrupted `fit` goes on with the same bits: weights, optimizer moments, moving average, generator and the best
model so far are written after every epoch, in one step.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import math
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import torch
from torch import Tensor

from learner.errors import DataError, LearnerError, ModelFileError
from learner.model.centers import kmeans
from learner.model.elcrec import Batch, ELCRec
from learner.offline.config import CountsConfig, FitConfig
from learner.offline.counts import ItemCounts
from learner.offline.device import device_of
from learner.offline.evaluation import Mixture, choose_mixture, evaluate
from learner.offline.files import MODEL_FILE, Fitted, load_fitted, replace, save_fitted
from learner.offline.sequences import Sequences
from learner.tensor_files import load_tensors, save_tensors

logger = logging.getLogger(__name__)

STATE_FILE, COUNTS_FILE = "training.pt", "counts.npz"
STATE_FORMAT = 3


class Progress(NamedTuple):
    """Where a training stands, for a progress bar."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    """mean of this epoch so far"""
    validation: float | None
    """latest NDCG@20, of the network alone"""
    best: float | None
    member: int = 1


class EpochLog(msgspec.Struct, kw_only=True):
    """One line of the training's history."""

    epoch: int
    seconds: float
    loss: float
    parts: dict[str, float]
    validation: dict[str, float] | None = None


class Stopped(Exception):  # noqa: N818 (not an error)
    """Raised by a progress callback to stop after the current step; the last finished epoch is on disk."""


def train_items(sequences: Sequences) -> np.ndarray[Any, np.dtype[np.int64]]:
    """All items that may be trained on, user after user: without each user's last two."""
    keep = np.ones(len(sequences.items), dtype=bool)
    keep[sequences.offsets[1:] - 1] = keep[sequences.offsets[1:] - 2] = False
    return sequences.items[keep]


def count_items(config: FitConfig, sequences: Sequences) -> ItemCounts | None:
    """Counts of the training part, where the settings want any."""
    if config.counts is None:
        return None
    offsets = np.concatenate([[0], np.cumsum(sequences.lengths - 2)])
    return ItemCounts(config.counts, train_items(sequences), offsets, sequences.item_count)


class Trainer:
    """The state of a training and its steps. `fit` drives it.

    Parameters
    ----------
    config
        all settings
    sequences
        the data; only what `train` may see is trained on
    """

    def __init__(self, config: FitConfig, sequences: Sequences) -> None:
        self.config = config
        self.sequences = sequences
        self.device = device_of(config.device)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.model = ELCRec(config.model, sequences.item_count, self.generator).to(self.device)
        self._draws = self.generator  # of dropout and views, which are drawn where the model is
        if self.device.type != "cpu":
            self._draws = torch.Generator(self.device).manual_seed(config.seed)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate, fused=True)
        self.average = copy.deepcopy(self.model) if config.average > 0 else None
        self.steps_done = 0
        self.log: list[EpochLog] = []
        self.best: dict[str, Any] | None = None  # epoch, score, state_dict
        self._length = np.minimum(sequences.lengths - 3, config.model.max_len)  # inputs per user; 0: nothing to predict
        self._users = torch.from_numpy(np.flatnonzero(self._length > 0))
        if not len(self._users):
            raise DataError(
                "no user has 4 items or more: with one each to validate and test, nothing is left to train on"
            )
        fast = config.precision == "auto" and _multiplies_bfloat16(self.device)
        self._half = fast or config.precision == "bfloat16"
        self._log_q: Tensor | None = None
        self._cumulative = self._proposal()

    @property
    def eval_model(self) -> ELCRec:
        """The model that is validated and saved: the moving average where there is one."""
        return self.average if self.average is not None else self.model

    def _proposal(self) -> Tensor | None:
        """Cumulative chances of items 1 to N as shared negatives: how often each is trained on. None: full softmax."""
        c = self.config.model
        if c.next_item == "bce" or self.sequences.item_count <= c.full_softmax_items:
            return None
        counts = torch.ones(self.sequences.item_count, dtype=torch.float64)  # never impossible
        train = train_items(self.sequences)
        counts += torch.from_numpy(np.bincount(train, minlength=len(counts) + 1)[1:])
        chance = counts / counts.sum()
        self._log_q = (chance * c.sampled_negatives).log().float().to(self.device)
        return chance.cumsum(0)

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

    def batches(self) -> list[Tensor]:
        """Users of one epoch's batches, in random order."""
        c = self.config
        users = self._users[torch.randperm(len(self._users), generator=self.generator)]
        if c.batches == "random":
            return list(torch.split(users, max(1, min(c.batch_users, c.batch_positions // c.model.max_len))))
        length = torch.from_numpy(self._length)[users]
        order = torch.argsort(length, descending=True, stable=True)
        users, lengths = users[order], length[order].tolist()
        cuts, start = [], 0
        while start < len(lengths):
            longest = lengths[start]
            size = max(1, min(c.batch_users, c.batch_positions // longest))
            cuts.append(users[start : start + size])
            start += size
        return [cuts[i] for i in torch.randperm(len(cuts), generator=self.generator).tolist()]

    def batch(self, users: Tensor) -> Batch:
        """Inputs, targets and negatives of `users`, those with the longest histories first."""
        c = self.config.model
        index = users.numpy()[np.argsort(-self._length[users.numpy()], kind="stable")]
        lengths = self._length[index]
        # the authors' means need the padding, and a graphics card has more to do with launching than with padding
        parts = () if c.compat == "authors" or self.device.type != "cpu" else _parts(lengths)
        longest = c.max_len if c.compat == "authors" else int(lengths[0])
        rows = torch.from_numpy(self.sequences.histories("train", index, longest + 1))  # (B, T + 1)
        inputs, targets = rows[:, :-1], rows[:, 1:]
        targets = torch.where(inputs > 0, targets, 0)  # the first item of a shorter sequence has nothing before it
        inputs, targets = inputs.to(self.device), targets.to(self.device)
        if c.next_item == "bce":
            taken = rows
            if c.compat == "authors":  # theirs are told what the answers are not
                answers = [self.sequences.answers(split, index) for split in ("validation", "test")]
                taken = torch.cat([rows, torch.from_numpy(np.stack(answers, axis=1))], dim=1)
            return Batch(inputs, targets, self._others(taken, targets), parts=parts)
        if self._cumulative is not None:
            draw = torch.rand(c.sampled_negatives, generator=self.generator, dtype=torch.float64)
            negatives = torch.searchsorted(self._cumulative, draw).clamp(max=self.sequences.item_count - 1) + 1
            return Batch(inputs, targets, negatives.to(self.device), self._log_q, parts)
        return Batch(inputs, targets, parts=parts)

    def _others(self, taken: Tensor, targets: Tensor) -> Tensor:
        """Items that are not in the user's row of `taken` (B, S), uniform, (B, T), 0 where there is no target.

        Drawn again up to 10 times, then taken as they are.
        """
        N = self.sequences.item_count
        user, place = targets.cpu().nonzero(as_tuple=True)  # (P,) each
        own = taken[user]  # (P, S)
        drawn = torch.randint(1, N + 1, (len(user),), generator=self.generator)
        for _ in range(10):
            again = (drawn[:, None] == own).any(-1).nonzero()[:, 0]
            if len(again) == 0:
                break
            drawn[again] = torch.randint(1, N + 1, (len(again),), generator=self.generator)
        others = torch.zeros(targets.shape, dtype=torch.int64)
        others[user, place] = drawn
        return others.to(self.device)

    def step(self, users: Tensor) -> dict[str, float]:
        """One optimizer step on a batch of users; the loss and its parts."""
        self.model.train()
        mixed = self.config.precision == "bfloat16"
        losses = self.model.losses(self.batch(users), self._draws, self._half, mixed)
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
            decay = min(
                self.config.average, (1 + self.steps_done) / (10 + self.steps_done)
            )  # young averages forget faster
            self._average(1 - decay)
        return values

    @torch.no_grad()
    def _average(self, share: float) -> None:
        assert self.average is not None
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), share)

    def epoch(self, progress: Callable[[Progress], None] | None = None) -> EpochLog:
        """One pass over the data, without validation."""
        started = time.perf_counter()
        batches = self.batches()
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

    def _progress(self, step: int, steps: int, loss: float) -> Progress:
        latest = next((entry.validation for entry in reversed(self.log) if entry.validation), None)
        best = None if self.best is None else float(self.best["score"])
        shown = None if latest is None else latest["ndcg@20"]
        return Progress(len(self.log) + 1, self.config.epochs, step, steps, loss, shown, best)

    def validate(self, entry: EpochLog) -> None:
        """Validate, where `entry` is due, and keep the model if it is the best; then count the epoch as done."""
        if entry.epoch % self.config.evaluate_every == 0 or entry.epoch == self.config.epochs:
            entry.validation = evaluate(self.eval_model, self.sequences, "validation").figures()
            score = entry.validation["ndcg@20"]
            if self.best is None or score > self.best["score"]:
                state = {name: value.to("cpu", copy=True) for name, value in self.eval_model.state_dict().items()}
                self.best = {"epoch": entry.epoch, "score": score, "state": state}
        self.log.append(entry)

    @property
    def finished(self) -> bool:
        """All epochs done, or none better for too long; an epoch that was not validated is not held against it."""
        eval_model = max((entry.epoch for entry in self.log if entry.validation is not None), default=0)
        stale = self.best is not None and eval_model - int(self.best["epoch"]) >= self.config.patience
        return len(self.log) >= self.config.epochs or stale

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on, tensors and plain values only."""
        return {
            "format": STATE_FORMAT,
            "fingerprint": fingerprint(self.config, self.sequences),
            "device": self.device.type,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "generator": self.generator.get_state(),
            "draws": None if self._draws is self.generator else self._draws.get_state(),
            "steps": self.steps_done,
            "best": self.best,
            "log": msgspec.to_builtins(self.log),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.generator.set_state(state["generator"])
        if self._draws is not self.generator:
            self._draws.set_state(state["draws"])
        self.steps_done = int(state["steps"])
        self.best = state["best"]
        self.log = msgspec.convert(state["log"], list[EpochLog])

    def best_model(self) -> ELCRec:
        """The model with the best validation NDCG@20, in evaluation mode."""
        model = ELCRec(self.config.model, self.sequences.item_count)
        model.load_state_dict(self.eval_model.state_dict() if self.best is None else self.best["state"])
        return model.to(self.device).eval()


def _parts(lengths: np.ndarray[Any, np.dtype[np.int64]]) -> tuple[tuple[int, int], ...]:
    """(users, longest history) of stretches of falling `lengths` (B,) in which none is under half of the longest."""
    found, start = [], 0
    while start < len(lengths):
        longest = int(lengths[start])
        stop = int(np.searchsorted(-lengths, -(longest / 2), side="right"))
        found.append((stop - start, longest))
        start = stop
    return tuple(found)


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    native = torch.cpu.get_capabilities()
    return bool(native.get("avx512_bf16") or native.get("amx_bf16"))


def fingerprint(config: FitConfig, sequences: Sequences) -> str:
    """Names a training: equal for equal settings and data. The device is told apart from them: `auto` may be either."""
    digest = hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(config, device="auto")))
    digest.update(sequences.items.tobytes())
    digest.update(sequences.offsets.tobytes())
    return digest.hexdigest()


class FitResult(NamedTuple):
    """A finished training."""

    fitted: Fitted
    report: dict[str, Any]
    log: list[EpochLog]


def fit(
    config: FitConfig,
    sequences: Sequences,
    folder: Path,
    progress: Callable[[Progress], None] | None = None,
) -> FitResult:
    """Train, choose everything on the validation items, test once, and write the model to `folder`.

    Called again on the same folder with the same settings and data it goes on after the last finished epoch, with the
    same bits as a run that was never interrupted.

    Raises
    ------
    LearnerError
        the loss is no number, or `device = "cuda"` where torch sees no graphics card
    DataError
        no user has an item to train on
    ModelFileError
        `folder` holds a training with other settings or data or one begun on another device, or cannot be written
    """
    started = time.perf_counter()
    members = []
    for place in range(config.members):

        def show(now: Progress, member: int = place + 1) -> None:
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
    config: FitConfig, sequences: Sequences, folder: Path, progress: Callable[[Progress], None] | None
) -> _Member:
    trainer = Trainer(config, sequences)
    if not _resume(trainer, folder / STATE_FILE):
        trainer.place_centers()
        replace(folder / STATE_FILE, lambda path: save_tensors(trainer.state(), path))  # fails now, not after an epoch
    while not trainer.finished:
        trainer.validate(trainer.epoch(progress))
        replace(folder / STATE_FILE, lambda path: save_tensors(trainer.state(), path))
    return _Member(trainer.best_model(), trainer.log, 0 if trainer.best is None else int(trainer.best["epoch"]))


def _resume(trainer: Trainer, path: Path) -> bool:
    if not path.exists():
        return False
    try:
        state = load_tensors(path)
        known = state["format"] == STATE_FORMAT and all(
            isinstance(state[key], str) for key in ("fingerprint", "device")
        )
    except Exception as error:
        raise ModelFileError(f"{path}: not a training that can be continued; delete it to start again") from error
    if not known:
        raise ModelFileError(
            f"{path}: format {state['format']}, this version reads {STATE_FORMAT}; delete it to start again"
        )
    if state["fingerprint"] != fingerprint(trainer.config, trainer.sequences):
        raise ModelFileError(
            f"{path}: a training with other settings or data; delete it to start again, or choose another folder"
        )
    if state["device"] != trainer.device.type:
        raise ModelFileError(
            f"{path}: begun on device = '{state['device']}', this run is on '{trainer.device.type}' and would draw "
            f"other numbers; take '{state['device']}' to go on, or delete it to start again"
        )
    try:
        trainer.restore(state)
        trainer.best_model()
    except Exception as error:
        raise ModelFileError(f"{path}: not a training that can be continued; delete it to start again") from error
    logger.info("fit: going on after epoch %d of %s", len(trainer.log), path)
    return True


def _conclude(
    config: FitConfig, sequences: Sequences, members: list[_Member], folder: Path, seconds: float
) -> FitResult:
    """Choose the mixing weights on validation, test once, write model and figures."""
    model, others = members[0].model, [member.model for member in members[1:]]
    counts = count_items(config, sequences)
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


def each_epoch(trainer: Trainer) -> Iterator[EpochLog]:
    """Train epoch by epoch without a folder, for benchmarks."""
    trainer.place_centers()
    while not trainer.finished:
        entry = trainer.epoch()
        trainer.validate(entry)
        yield entry
