"""Everything in a learner that changes with the stream, in one place: what is saved, restored and digested together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learner.config import LearnerConfig
from learner.drift.fallback import Serving
from learner.intents.tracker import CenterUpdate, IntentTracker
from learner.online.item_statistics import ItemStatistics
from learner.online.model_snapshot import ModelSnapshot
from learner.online.network import Network
from learner.online.prequential import Model
from learner.online.ranker import Ranker
from learner.online.replay_buffer import Replay
from learner.online.step import IntentInfo
from learner.online.trial import Trial
from learner.online.vocabulary import Vocabulary


@dataclass(slots=True)
class LearnerParts:
    """Everything in a learner that changes with the stream."""

    vocabulary: Vocabulary
    network: Network
    statistics: ItemStatistics
    ranker: Ranker
    replay: Replay
    tracker: IntentTracker
    snapshot: ModelSnapshot | None = None
    trial: Trial | None = None
    serving: Serving = "learner"

    @classmethod
    def new(cls, config: LearnerConfig) -> LearnerParts:
        """The parts of a learner that has seen nothing."""
        network = Network(config)
        generator = torch.Generator().manual_seed((config.seed * 1000 + 100) % 2**63)
        return cls(
            Vocabulary(config.capacity),
            network,
            ItemStatistics(config.item_statistics, network.rows),
            Ranker(config.mix, config.item_statistics, generator),
            Replay(config.recent_pairs, config.uniform_pairs, config.max_len, config.seed),
            IntentTracker(config, network),
        )

    @property
    def model(self) -> Model:
        """What learns from the stream."""
        return Model(self.network, self.statistics, self.ranker)

    @property
    def table_rows(self) -> int:
        """Table rows in use, row 0 included."""
        return self.vocabulary.size + 1

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays but the vocabulary's; some are views of what changes."""
        arrays: dict[str, NDArray[Any]] = {}
        for name, part in (
            ("item_statistics", self.statistics.to_arrays(self.table_rows)),
            ("mix", self.ranker.to_arrays()),
            ("replay", self.replay.to_arrays()),
            ("identity", self.tracker.identity.to_arrays()),
            ("merging", self.tracker.merging.to_arrays()),
            ("snapshot", {} if self.snapshot is None else self.snapshot.to_arrays()),
        ):
            arrays |= add_prefix(name, part)
        return arrays if self.trial is None else arrays | self.trial.arrays(self.table_rows)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, those of snapshot and trial included; views of what changes."""
        tensors = self.network.to_tensors(self.table_rows)
        if self.snapshot is not None:
            tensors |= self.snapshot.to_tensors(self.table_rows)
        return tensors if self.trial is None else tensors | self.trial.tensors(self.table_rows)

    def reserve(self, rows: int) -> None:
        """Make room for `rows` table rows, row 0 included."""
        while self.network.rows < rows:
            self.network.grow(2 * self.network.rows)
            self.statistics.grow(self.network.rows)
            if self.trial is not None:
                self.trial.grow(self.network.rows)

    # -- what happens to all of them together -----------------------------------------------------------------------

    def admit(self, items: Sequence[str], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Handles of the items, (n,); see `Learner.admit`."""
        admission = self.vocabulary.admit(items, numbers)
        if len(admission.new_rows):
            self.reserve(self.table_rows)
            self.statistics.clear(admission.new_rows)
            self.network.start_items(admission.new_rows)
            self.tracker.refresh()
            if self.trial is not None:
                self.trial.admit(admission.new_rows)
            if self.snapshot is not None:
                self.snapshot.admit(admission.new_rows, self.network.rows)
        return admission.handles

    def keep_snapshot(self) -> None:
        """Copy what the gradients made, in place of the copy before."""
        self.snapshot = ModelSnapshot(self.network, self.ranker, self.table_rows)

    def roll_back(self) -> bool:
        """Restore the snapshot's weights; see `Learner.roll_back`."""
        if self.snapshot is None:
            return False
        self.tracker.refresh()
        self.network.roll_back(self.snapshot.weights, self.snapshot.known(self.table_rows))
        self.ranker = self.snapshot.copy_of_ranker()
        return True

    def maintain_centers(self, event_number: int, reseed: bool) -> CenterUpdate:
        """Measure how far the centers moved, re-place dead ones and merge intents, those of a control too; see
        `Learner.maintain_centers`.
        """
        update = self.tracker.maintain_centers(event_number, reseed)
        if update.births and self.trial is not None:
            places = np.array([birth.place for birth in update.births])
            self.trial.control.network.place_centers(places, np.stack([birth.center for birth in update.births]))
        return update

    def catalog(self, items: int) -> list[IntentInfo]:
        """All intents with their figures and the ids of the `items` items nearest to each."""
        entries, size = self.tracker.entries(), self.vocabulary.size
        nearest: list[list[str]] = [[] for _ in entries]
        if size:
            with torch.no_grad():
                vectors = torch.nn.functional.normalize(self.network.table[1 : size + 1], dim=1)
                cosines = torch.from_numpy(self.tracker.vectors()) @ vectors.T
                rows = cosines.topk(min(items, size), dim=1).indices + 1
            nearest = [self.vocabulary.ids(self.vocabulary.handles(row)) for row in rows.numpy()]
        return [
            IntentInfo(one.intent, one.share, one.separation, one.speed, one.position, one.born_at, nearest[one.place])
            for one in entries
        ]

    def end_trial(self) -> bool:
        """Keep whoever did better and drop the other; see `Learner.end_trial`."""
        trial, self.trial = self.trial, None
        if trial is None or trial.won:
            return True
        self.tracker.refresh()
        steps = self.network.steps  # it counts what was made, for the messages
        self.network.load_tensors(trial.control.network.to_tensors(self.table_rows))
        self.network.steps = steps
        self.statistics, self.ranker = trial.control.statistics, trial.control.ranker
        return False


def add_prefix(name: str, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The arrays under names that begin with `name` and a dot."""
    return {f"{name}.{key}": value for key, value in arrays.items()}


__all__ = ["LearnerParts", "add_prefix"]
