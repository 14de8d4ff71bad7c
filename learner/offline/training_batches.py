"""Batches of a training: which users a batch holds, their inputs and targets, and the negatives drawn for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from learner.errors import DataError
from learner.model.elcrec import Batch
from learner.offline.config import FitConfig
from learner.offline.sequences import Sequences

_MOST_REDRAWS = 10  # of a negative that the user has taken


class TrainingBatches:
    """The training part of a data set as batches on a device.

    Parameters
    ----------
    config
        batch sizes, order, and the model's losses, which decide the kind of negatives
    sequences
        the data; only what `train` may see becomes input or target
    device
        where the batches are put
    generator
        draws order and negatives
    """

    def __init__(
        self, config: FitConfig, sequences: Sequences, device: torch.device, generator: torch.Generator
    ) -> None:
        self.config = config
        self.sequences = sequences
        self.device = device
        self.generator = generator
        # inputs per user; 0: nothing to predict
        self._input_count = np.minimum(sequences.lengths - 3, config.model.max_len)
        self._users = torch.from_numpy(np.flatnonzero(self._input_count > 0))
        if not len(self._users):
            raise DataError(
                "no user has 4 items or more: with one each to validate and test, nothing is left to train on"
            )
        self._log_q: Tensor | None = None
        self._cumulative_chance = self._proposal()

    def _proposal(self) -> Tensor | None:
        """Cumulative chances of items 1 to N as shared negatives: how often each is trained on. None: full softmax."""
        c = self.config.model
        if c.next_item == "bce" or self.sequences.item_count <= c.full_softmax_items:
            return None
        counts = torch.ones(self.sequences.item_count, dtype=torch.float64)  # never impossible
        counts += torch.from_numpy(np.bincount(self.sequences.training_items(), minlength=len(counts) + 1)[1:])
        chance = counts / counts.sum()
        self._log_q = (chance * c.sampled_negatives).log().float().to(self.device)
        return chance.cumsum(0)

    def epoch(self) -> list[Tensor]:
        """Users of one epoch's batches, in random order."""
        c = self.config
        users = self._users[torch.randperm(len(self._users), generator=self.generator)]
        if c.batches == "random":
            return list(torch.split(users, max(1, min(c.batch_users, c.batch_positions // c.model.max_len))))
        length = torch.from_numpy(self._input_count)[users]
        order = torch.argsort(length, descending=True, stable=True)
        users, lengths = users[order], length[order].tolist()
        batches, start = [], 0
        while start < len(lengths):
            longest = lengths[start]
            size = max(1, min(c.batch_users, c.batch_positions // longest))
            batches.append(users[start : start + size])
            start += size
        return [batches[i] for i in torch.randperm(len(batches), generator=self.generator).tolist()]

    def batch(self, users: Tensor) -> Batch:
        """Inputs, targets and negatives of `users`, those with the longest histories first."""
        c = self.config.model
        index = users.numpy()[np.argsort(-self._input_count[users.numpy()], kind="stable")]
        lengths = self._input_count[index]
        # the authors' means need the padding; on a graphics card launching more blocks costs more than padding
        blocks = () if c.compat == "authors" or self.device.type != "cpu" else _blocks(lengths)
        longest = c.max_len if c.compat == "authors" else int(lengths[0])
        rows = torch.from_numpy(self.sequences.histories("train", index, longest + 1))  # (B, T + 1)
        inputs, targets = rows[:, :-1], rows[:, 1:]
        targets = torch.where(inputs > 0, targets, 0)  # the first item of a shorter sequence has nothing before it
        inputs, targets = inputs.to(self.device), targets.to(self.device)
        if c.next_item == "bce":
            excluded = rows
            if c.compat == "authors":  # their negatives avoid the held-out answers
                answers = [self.sequences.answers(split, index) for split in ("validation", "test")]
                excluded = torch.cat([rows, torch.from_numpy(np.stack(answers, axis=1))], dim=1)
            return Batch(inputs, targets, self._negatives(excluded, targets), blocks=blocks)
        if self._cumulative_chance is not None:
            draw = torch.rand(c.sampled_negatives, generator=self.generator, dtype=torch.float64)
            negatives = torch.searchsorted(self._cumulative_chance, draw).clamp(max=self.sequences.item_count - 1) + 1
            return Batch(inputs, targets, negatives.to(self.device), self._log_q, blocks)
        return Batch(inputs, targets, blocks=blocks)

    def _negatives(self, excluded: Tensor, targets: Tensor) -> Tensor:
        """Uniform items that are not in the user's row of `excluded` (B, S), (B, T), 0 where there is no target.

        An excluded item is drawn again up to 10 times; the last draw stays.
        """
        N = self.sequences.item_count
        user, place = targets.cpu().nonzero(as_tuple=True)  # (P,) each
        own = excluded[user]  # (P, S)
        drawn = torch.randint(1, N + 1, (len(user),), generator=self.generator)
        for _ in range(_MOST_REDRAWS):
            again = (drawn[:, None] == own).any(-1).nonzero()[:, 0]
            if len(again) == 0:
                break
            drawn[again] = torch.randint(1, N + 1, (len(again),), generator=self.generator)
        negatives = torch.zeros(targets.shape, dtype=torch.int64)
        negatives[user, place] = drawn
        return negatives.to(self.device)


def _blocks(lengths: np.ndarray[Any, np.dtype[np.int64]]) -> tuple[tuple[int, int], ...]:
    """(users, longest history) of stretches of falling `lengths` (B,) in which none is under half of the longest."""
    found, start = [], 0
    while start < len(lengths):
        longest = int(lengths[start])
        stop = int(np.searchsorted(-lengths, -(longest / 2), side="right"))
        found.append((stop - start, longest))
        start = stop
    return tuple(found)


__all__ = ["TrainingBatches"]
