"""The paper's protocol: rank every item for every user, the user's own history excluded; HR and NDCG at 5, 10, 20."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from learner.errors import LearnerError
from learner.metrics import UNRANKED, RankMetrics
from learner.model.centers import effective_number
from learner.model.elcrec import ELCRec
from learner.offline.counts import ItemCounts, log_shares, mix
from learner.offline.sequences import Sequences, Split

Ints = npt.NDArray[np.int64]
CHUNK = 256  # most users scored at once: 256 x 12,101 scores are 12 MB, and a mix holds a dozen of these
MOST_SCORES = 1 << 25  # 128 MB, several times over: with millions of items few users are scored at once

Point = tuple[float, float]  # weight of the network, floor of the counts
GRID: tuple[Point, ...] = tuple(
    (weight, floor) for floor in (1e-3, 3e-3, 1e-2, 2e-2, 4e-2, 8e-2) for weight in (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4)
)


class Mixture(NamedTuple):
    """Counts beside the network: `weight * log p_network + log(p_counts + floor)`."""

    counts: ItemCounts
    weight: float
    floor: float


class Outcome(NamedTuple):
    """The result of an evaluation."""

    ranks: Ints
    """(users,) place of the answer from 0; `UNRANKED` where the answer is in the user's own history"""
    intents: Ints
    """(users,) nearest intent of each user"""
    intent_count: int

    def figures(self) -> dict[str, float]:
        """`hr@K`, `ndcg@K`, `users`, `intents.active`, `intents.effective`."""
        metrics = RankMetrics()
        metrics.add(self.ranks)
        figures = metrics.result()
        figures["users"] = figures.pop("n")
        counts = torch.from_numpy(np.bincount(self.intents, minlength=self.intent_count))
        figures["intents.active"] = int((counts > 0).sum())
        figures["intents.effective"] = effective_number(counts)
        return figures


class _Part(NamedTuple):
    """A chunk of users of equal length, without padding."""

    users: Ints
    history: Ints
    """(n, T) the newest T items"""
    answer: Tensor
    """(n, 1) column of the answer"""
    seen: tuple[Tensor, Tensor]
    """rows and columns of the users' own histories"""


def _parts(sequences: Sequences, split: Split, model: ELCRec) -> Iterator[_Part]:
    device, max_len = model.items.device, model.config.max_len
    chunk = max(1, min(CHUNK, MOST_SCORES // sequences.item_count))
    for length, group in sequences.by_length(split, max_len):
        for start in range(0, len(group), chunk):
            users = group[start : start + chunk]
            answer = torch.from_numpy(sequences.answers(split, users)).to(device)[:, None] - 1
            row, item = (torch.from_numpy(part).to(device) for part in sequences.seen(split, users))
            yield _Part(users, sequences.histories(split, users, length), answer, (row, item - 1))


def ranks_of(scores: Tensor, answer: Tensor, seen: tuple[Tensor, Tensor]) -> Ints:
    """Place from 0 of each answer (n, 1) among scores (n, N), `seen` excluded; ties count against it. Changes `scores`.

    The authors write 0 over the scores of the user's own items, which then outrank negative scores; here those items
    leave the list.
    """
    scores[seen] = -torch.inf
    own = scores.gather(1, answer)  # (n, 1)
    if torch.isnan(own).any():
        raise LearnerError(
            "the model gives scores that are not numbers: its weights are damaged or its training diverged"
        )
    ranks = scores.shape[1] - 1 - (scores < own).sum(1)  # NaN counts against it, as a tie does
    ranks[own[:, 0] == -torch.inf] = UNRANKED
    result: Ints = ranks.cpu().numpy()
    return result


@torch.inference_mode()
def evaluate(
    model: ELCRec,
    sequences: Sequences,
    split: Split,
    mixture: Mixture | None = None,
    tick: Callable[[int], None] | None = None,
    others: Sequence[ELCRec] = (),
) -> Outcome:
    """Rank the answer of every user.

    Parameters
    ----------
    model
        unchanged, its mode included
    sequences
        users and items
    split
        `validation` or `test`
    mixture
        counts beside the network; None: the network alone
    tick
        called with the number of users done since the last call
    others
        further members of an ensemble, in evaluation mode: log-probabilities are averaged; intents are `model`'s
    """
    ranks = np.zeros(len(sequences), np.int64)
    intents = np.zeros(len(sequences), np.int64)
    training = model.training
    model.eval()
    for part in _parts(sequences, split, model):
        user, pooled = _encode(model, part.history)
        scores = model.scores(user)  # (n, N)
        if mixture is not None or others:
            scores = _log_probabilities(scores, others, part.history)
        if mixture is not None:
            scores = mix(scores, log_shares(_shares(mixture.counts, part), mixture.floor), mixture.weight)
        ranks[part.users] = ranks_of(scores, part.answer, part.seen)
        intents[part.users] = model.intents.nearest(pooled).intent.cpu().numpy()
        if tick is not None:
            tick(len(part.users))
    model.train(training)
    return Outcome(ranks, intents, model.config.intents.count)


@torch.inference_mode()
def choose_mixture(
    model: ELCRec,
    sequences: Sequences,
    counts: ItemCounts,
    grid: tuple[Point, ...] = GRID,
    others: Sequence[ELCRec] = (),
) -> tuple[Mixture, dict[Point, float]]:
    """The point with the best validation NDCG@20, and the NDCG@20 of every point.

    Training pairs cannot choose: the network has memorized them, so they would give it too much weight.
    """
    metrics = {point: RankMetrics((20,)) for point in grid}
    training = model.training
    model.eval()
    for part in _parts(sequences, "validation", model):
        network = _log_probabilities(model.scores(_encode(model, part.history)[0]), others, part.history)  # (n, N)
        shares = _shares(counts, part)  # (n, N)
        for floor in {floor: None for _, floor in grid}:  # the logarithm costs more than the rest of a point
            logged = log_shares(shares, floor)
            for weight in (w for w, f in grid if f == floor):
                metrics[weight, floor].add(ranks_of(mix(network, logged, weight), part.answer, part.seen))
    model.train(training)
    found = {point: metric.result()["ndcg@20"] for point, metric in metrics.items()}
    best = max(found, key=lambda point: found[point])
    return Mixture(counts, *best), found


def _encode(model: ELCRec, history: Ints) -> tuple[Tensor, Tensor]:
    """The vectors that rank items, and those that tell the intent, (n, d) each."""
    rows = torch.from_numpy(history).to(model.items.device)
    if model.config.pool == "last" and model.config.lookback == 0:
        user = model.user(rows)
        return user, user
    if model.config.compat == "authors":  # their mean runs over the padding too
        rows = F.pad(rows, (model.config.max_len - rows.shape[1], 0))
    h = model.encode(rows)  # (n, T, d)
    return model.user_representation(h, rows), model.pool(h, rows)


def _log_probabilities(scores: Tensor, others: Sequence[ELCRec], history: Ints) -> Tensor:
    """Mean log-probabilities of a model that gave `scores` (n, N) and of the other members, (n, N)."""
    total = F.log_softmax(scores, dim=-1)
    for other in others:
        total += F.log_softmax(other.scores(_encode(other, history)[0]), dim=-1)
    return total / (1 + len(others))


def _shares(counts: ItemCounts, part: _Part) -> Tensor:
    return torch.from_numpy(counts.scores(part.history)[:, 1:]).to(part.answer.device)  # (n, N)


__all__ = ["GRID", "Mixture", "Outcome", "Point", "choose_mixture", "evaluate", "ranks_of"]
