"""The learner that the engine drives: arrays of handles in, ranks, lists and intents out, weights that move in between.

One step of the stream is `admit`, `observe` (test, then train), `recommend`, `intents`, and after publishing `learn`.
Only `admit`, `observe`, `learn`, `forget` and what the actions against drift call change anything. The whole state is a
function of the calls made, bit for bit, on one type of machine with one thread count; `save` and `load` lose none of
it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from learner.config import LearnerConfig
from learner.digest import Hash
from learner.drift.fallback import Serving
from learner.errors import LearnerStateError
from learner.intents.tracker import CenterUpdate, IntentTracker, IntentView
from learner.metrics import NOT_EVALUATED
from learner.model.centers import effective_number
from learner.model.elcrec import ELCRec
from learner.online import persistence
from learner.online.carry_over import CarriedOver, carry_over
from learner.online.copy_buffers import CopyBuffers
from learner.online.histories import Histories
from learner.online.network import Network, StepOutcome
from learner.online.parts import LearnerParts
from learner.online.prequential import Events, learn_in_chunks
from learner.online.ranker import Ranker
from learner.online.recommender import HistoryRows, Recommender, batches_of
from learner.online.replay_buffer import Pairs, mini_batches
from learner.online.step import IntentInfo, LearnReport, PrequentialResult, Ranking, StepBatch
from learner.online.trial import Trial


class Learner:
    """An ELCRec network, item statistics and the mix of both, learning on a stream.

    Parameters
    ----------
    config
        Everything that shapes it, the seed included.
    action_weights
        Weight by action code; a negative one is a dislike. Codes beyond the list count as 1.
    """

    def __init__(self, config: LearnerConfig, action_weights: Sequence[float] = ()) -> None:
        self.config = config
        self._disliked = np.zeros(256, dtype=bool)
        self._disliked[: len(action_weights)] = np.array(action_weights, dtype=np.float64) < 0
        self._parts = LearnerParts.new(config)
        self._buffers = CopyBuffers()

    @property
    def tracker(self) -> IntentTracker:
        """The intents: ids, mergers, figures."""
        return self._parts.tracker

    @property
    def ranker(self) -> Ranker:
        """The weights that mix statistics and network, of the learner itself."""
        return self._parts.ranker

    # -- items ------------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Items held."""
        return self._parts.vocabulary.size

    @property
    def model_step(self) -> int:
        """Optimizer steps behind the weights that learn."""
        return self._parts.network.steps

    @property
    def serving_step(self) -> int:
        """Optimizer steps behind the weights that answer."""
        snapshot = self._parts.snapshot if self.serving == "snapshot" else None
        return self.model_step if snapshot is None else snapshot.steps

    def lookup(self, items: Sequence[str]) -> NDArray[np.int64]:
        """Handles of the items, (n,), 0 where unknown."""
        return self._parts.vocabulary.lookup(items)

    def item_ids(self, handles: NDArray[np.int64]) -> list[str]:
        """Item ids of handles (n,); the empty string where there is none any more."""
        return self._parts.vocabulary.ids(handles)

    def admit(self, items: Sequence[str], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Handles of the items, (n,); unknown ones are admitted, and where the table is full the longest-unseen leave.

        Parameters
        ----------
        items
            Item id of each event, in order.
        numbers
            (n,) number of each event in the stream.
        """
        return self._parts.admit(items, numbers)

    def start_from(self, items: Sequence[str], model: ELCRec) -> None:
        """Begin with a fitted model of the same shape, whose row i + 1 is items[i]; see `init_learner`."""
        if self.size:
            raise LearnerStateError(f"the learner holds {self.size} items; a fitted model can only be its start")
        handles = self.admit(items, np.zeros(len(items), dtype=np.int64))
        self._parts.network.start_from(self._parts.vocabulary.rows(handles), model)

    # -- the stream -------------------------------------------------------------------------------------------------

    def observe(self, batch: StepBatch, evaluate: bool = True, update_window: int = 0) -> PrequentialResult:
        """Test on the events, then update statistics, ranker and replay with them; the network's weights stay.

        Statistics and ranker are updated every `mix.chunk` events, each chunk being ranked before it is learned. With
        `update_window` an event is a follower of so many of the newest items, for example for a while after a drift, as
        far as `item_statistics.candidate_window` or `item_statistics.update_window` reach.
        """
        parts = self._parts
        gap = np.maximum(batch.ts - batch.histories.ts[:, -1], 0) / 1000.0
        histories, rows = self._history_rows(batch.histories), parts.vocabulary.rows(batch.items)
        events = Events(histories, rows, gap, batch.weights > 0)
        found = learn_in_chunks(self.config, parts.vocabulary, parts.model, events, parts.trial, update_window)
        assigned = parts.tracker.observe(histories.liked, np.where(events.positive, rows, 0))
        liked = np.where(histories.liked > 0, batch.histories.items, 0)
        parts.replay.add(batch.users, Pairs(liked, batch.items, batch.weights))
        shown = found.ranks if evaluate else np.full_like(found.ranks, NOT_EVALUATED)
        return PrequentialResult(shown, found.loss, found.new_items, assigned.distance, assigned.places, found.ranks)

    @property
    def unlearned(self) -> int:
        """Pairs received since the last learning step."""
        return self._parts.replay.unlearned

    def learn(
        self, steps: int = 1, rate: float = 1.0, newest: int = 0, control_steps: int | None = None
    ) -> LearnReport:
        """Make `steps` learning steps from the pairs that came since the last, spread over them, and replayed ones.

        Parameters
        ----------
        steps
            Learning steps, each of `config.updates` optimizer steps.
        rate
            Multiplies the learning rates, for example for a while after a drift.
        newest
            Replay only so many of the newest pairs, for example those since a drift; 0 = recent ones and old ones.
        control_steps
            Learning steps of a trial's control, at the usual rate and with the usual replay; as many where not given.
        """
        parts = self._parts
        parts.tracker.refresh()
        random = None
        if parts.trial is not None:
            random, control = parts.trial.random, parts.trial.control.network
            for pairs in mini_batches(parts.replay, self.config, steps if control_steps is None else control_steps):
                self._learn(control, pairs, 1.0)
        losses, made, refused, examples = 0.0, 0, 0, 0
        for pairs in mini_batches(parts.replay, self.config, steps, newest, random):
            outcome = self._learn(parts.network, pairs, rate)
            if not outcome.accepted:
                refused += 1
            elif outcome.examples:
                made, losses, examples = made + 1, losses + outcome.loss, examples + outcome.examples
        parts.replay.mark_learned()
        return LearnReport(made, losses / made if made else float("nan"), refused, examples)

    def _learn(self, network: Network, pairs: Pairs, rate: float) -> StepOutcome:
        rows = self._parts.vocabulary.rows
        return network.learn(rows(pairs.contexts), rows(pairs.items), pairs.weights, self._parts.table_rows, rate)

    # -- trials -----------------------------------------------------------------------------------------------------

    @property
    def trial(self) -> Trial | None:
        """The trial that is on: the learner acts against a drift, and a control does not."""
        return self._parts.trial

    def begin_trial(self, seed: int) -> None:
        """Go on as two: this learner, which may act from now on, and a control, which does not.

        `seed` is of the generator that draws what this learner replays meanwhile.
        """
        parts = self._parts
        parts.trial = Trial.of(parts.model, self.config, parts.table_rows, seed)

    def end_trial(self) -> bool:
        """Keep whoever did better and drop the other; true where the actions are kept.

        Where they are not, network, statistics and ranker are those of the control, and so what they would be had
        nothing been done. The intents' ids stay as they are.
        """
        return self._parts.end_trial()

    def maintain_centers(self, event_number: int, reseed: bool = False) -> CenterUpdate:
        """How the centers moved in a step's learning; dead ones are placed anew, also in a control, similar ones merge.

        Call once after a step's learning.
        """
        return self._parts.maintain_centers(event_number, reseed)

    # -- the snapshot -----------------------------------------------------------------------------------------------

    @property
    def serving(self) -> Serving:
        """Whose lists `recommend` gives."""
        return self._parts.serving

    @serving.setter
    def serving(self, serving: Serving) -> None:
        self._parts.serving = serving

    @property
    def has_snapshot(self) -> bool:
        """Whether there is a snapshot that could serve."""
        return self._parts.snapshot is not None

    def keep_snapshot(self) -> None:
        """Copy what the gradients made, in place of the copy before: it can serve, and `roll_back` restores it."""
        self._parts.keep_snapshot()

    def roll_back(self) -> bool:
        """Restore the snapshot's weights, with fresh moments; false where there is none.

        Items that came after it start anew. Statistics, pairs to replay and the intents' ids stay as they are.
        """
        return self._parts.roll_back()

    def _recommender(self, serving: Serving) -> Recommender:
        parts = self._parts
        if serving == "snapshot" and parts.snapshot is not None:
            weights, ranker = parts.snapshot.weights, parts.snapshot.ranker
            return Recommender(self.config, parts.vocabulary, weights, parts.statistics, ranker)
        trial = parts.trial
        model = trial.control if trial is not None and trial.control_leads else parts.model
        return Recommender(self.config, parts.vocabulary, *model)

    # -- answers ----------------------------------------------------------------------------------------------------

    def recommend(
        self,
        histories: Histories,
        k: int,
        now: NDArray[np.int64] | None = None,
        by: Serving | None = None,
    ) -> Ranking:
        """Top-k of all items but those in the histories; changes nothing.

        Parameters
        ----------
        histories
            Of B users.
        k
            Length of the lists.
        now
            (B,) when the lists are to be used, epoch milliseconds; None = right after the newest event.
        by
            Whose lists; None = those of the one who serves.
        """
        recommender = self._recommender(by or self.serving)
        rankings = [
            recommender.recommend(
                self._history_rows(histories.select(part)),
                histories.ts[part],
                k,
                None if now is None else now[part],
            )
            for part in batches_of(len(histories))
        ]
        return Ranking(*(np.concatenate(columns) for columns in zip(*rankings, strict=True)))

    def popular(self, count: int) -> NDArray[np.int64]:
        """Handles of the most popular items, best first, (count,), 0 where there are fewer: for unknown users."""
        best = self._parts.statistics.most_popular(self._parts.table_rows, count)
        return self._parts.vocabulary.handles(np.pad(best, (0, count - len(best))))

    def reasons(self, history: Histories, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Handles of the newest items of one user's history that led to each of `items` (k,) most, (k, 3)."""
        return self._recommender(self.serving).reasons(self._history_rows(history), items)

    def _history_rows(self, histories: Histories) -> HistoryRows:
        rows = self._parts.vocabulary.rows(histories.items)
        return HistoryRows(np.where(self._disliked[histories.actions], 0, rows), rows)

    def intents(
        self,
        histories: Histories,
        held: NDArray[np.integer[Any]] | None = None,
        span: NDArray[np.integer[Any]] | None = None,
        newest_alone: NDArray[np.bool_] | None = None,
    ) -> IntentView:
        """Where users with these B histories stand among the intents; changes nothing.

        Against the ids `held` (B,), held for `span` (B,) events. For those in `newest_alone` (B,) the view says where
        the newest items alone put them, and not whether they have left what they hold; without it, both for all.
        """
        rows = self._history_rows(histories).liked
        views = [
            self.tracker.view(
                rows[part],
                None if held is None else held[part],
                None if span is None else span[part],
                None if newest_alone is None else newest_alone[part],
            )
            for part in batches_of(len(rows))
        ]
        return views[0] if len(views) == 1 else IntentView(*(np.concatenate(c) for c in zip(*views, strict=True)))

    def current_intents(self, ids: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """The ids (m,) under which these intents continue; merged ones have the id of the intent they are part of."""
        return self.tracker.current(ids)

    def attraction(
        self, histories: Histories, origin: NDArray[np.integer[Any]], to: NDArray[np.integer[Any]]
    ) -> NDArray[np.float32]:
        """How much each item of m histories of w items draws to intent `to` (m,), away from `origin` (m,), (m, w)."""
        return self.tracker.attraction(self._history_rows(histories).liked, origin, to)

    def intent_health(self) -> dict[str, float]:
        """`active`: intents with at least 0.1% of recent events; `effective`: exp(entropy) of the shares."""
        shares = self.tracker.shares
        active = int((shares > 0.001).sum())
        return {"active": active, "effective": effective_number(torch.from_numpy(shares))}

    def update_map(self) -> None:
        """Move the map of intents part of the way toward the centers."""
        self.tracker.update_map()

    def catalog(self, items: int = 10) -> list[IntentInfo]:
        """All intents with their figures and their nearest items; changes nothing."""
        return self._parts.catalog(items)

    # -- actions and erasure ----------------------------------------------------------------------------------------

    def age_popularity(self, events: float) -> None:
        """Let the popularity decay as if so many events had passed."""
        self._parts.statistics.age(events)

    def fade_followers(self, factor: float) -> None:
        """Multiply the counts of all followers and predecessors so far, so that those to come outweigh them."""
        self._parts.statistics.fade_neighbors(factor)

    def forget(self, user_key: int) -> None:
        """Erase every pair of the user with this key from what may be replayed.

        Refused mini-batches are dropped whole: they are kept without keys, so any of them may hold the user's history.
        """
        self._parts.replay.forget(user_key)
        self._parts.network.refused.clear()
        if self._parts.trial is not None:
            self._parts.trial.control.network.refused.clear()

    # -- durable ----------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write everything into a new folder: tensors in network.pt, arrays.npz, learner.json. Nothing is pickled."""
        self.begin_save()(folder)

    def begin_save(self) -> Callable[[Path], None]:
        """Copy everything that changes; the function returned writes it, see `persistence.begin_save`."""
        return persistence.begin_save(self._parts, self.config, self._buffers)

    def load(self, folder: Path) -> None:
        """Continue from what `save` wrote, bit for bit as the learner that was saved; see `persistence.load`."""
        self._load(persistence.read(folder))

    def carry_over(self, stored: persistence.StoredLearner) -> CarriedOver:
        """Continue from a learner that an earlier release may have saved: what fits goes on, the rest starts anew."""
        carried = carry_over(stored, self.config)
        self._load(carried.stored)
        return carried

    def _load(self, stored: persistence.StoredLearner) -> None:
        self._parts = persistence.load(stored, self.config, LearnerParts.new(self.config))
        self.begin_save()  # takes the memory for the copies now, not in the first checkpoint

    def update_digest(self, digest: Hash) -> None:
        """Add all state to a hash: learners with equal digests continue equally."""
        persistence.update_digest(self._parts, digest)


__all__ = ["Learner"]
