"""The learner that the engine drives: arrays of handles in, ranks, lists and intents out, weights that move in between.

One step of the stream is `admit`, `take` (test, then train), `recommend`, `intents`, and after publishing `learn`. Only
`admit`, `take`, `learn` and `forget` change anything. The whole state is a function of the calls made, bit for bit, on
one type of machine with one thread count; `save` and `load` lose none of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learner.config import LearnerConfig
from learner.drift.fallback import Serving
from learner.errors import LearnerError, LearnerStateError
from learner.intents.tracker import IntentTracker, IntentView
from learner.metrics import NOT_EVALUATED
from learner.model.centers import effective_number
from learner.model.elcrec import ELCRec
from learner.online.copy_buffers import CopyBuffers
from learner.online.item_statistics import ItemStatistics
from learner.online.model_snapshot import PREFIX, ModelSnapshot
from learner.online.network import Network, Weights, strip_prefix
from learner.online.ranker import Ranker, RankingQuery
from learner.online.replay_buffer import Pairs, Replay, concatenate
from learner.online.vocabulary import Vocabulary
from learner.tensor_files import TensorFileError, load_tensors

FORMAT: Final = 4  # 2: a stand-in, and who serves; 3: mergers of intents; 4: neighbours in one table
SOURCE_MODEL: Final = 0
SOURCE_INTENT: Final = 1
SOURCE_POPULAR: Final = 2
_RANKED_AT_ONCE: Final = 256  # users; bounds the memory of a matrix of users by items, and of users by intents
_SOON: Final = 30.0  # seconds after a user's newest event at which a list is used, if nothing else is said
_BECAUSE: Final = 3  # recent items named as reasons


class Hash(Protocol):
    """What `hashlib` objects can do."""

    def update(self, data: Any, /) -> None:
        """Add bytes."""


class StepBatch(NamedTuple):
    """The accepted events of one step, in arrival order; n events, L items of history."""

    users: NDArray[np.uint64]
    """(n,) stable key of the user"""
    contexts: NDArray[np.int64]
    """(n, L) handles of the user's history just before the event, right-aligned, 0 = empty"""
    context_actions: NDArray[np.uint8]
    """(n, L) action codes"""
    context_ts: NDArray[np.int64]
    """(n, L) epoch milliseconds"""
    items: NDArray[np.int64]
    """(n,) handle of the item taken"""
    weights: NDArray[np.float32]
    """(n,) weight of the action, negative = dislike"""
    ts: NDArray[np.int64]
    """(n,) epoch milliseconds"""


class PrequentialResult(NamedTuple):
    """What `take` saw."""

    ranks: NDArray[np.int64]
    """(n,) rank from 0 of the item taken; NOT_EVALUATED without history, UNRANKED where it could not be ranked: new,
    already taken, or no candidate (those rank behind all candidates)"""
    loss: float
    """mean loss of the whole ranking on the step's fresh pairs, nats; not a number where there were none"""
    new_items: int
    """events on an item never seen before"""
    distance: float
    """mean squared distance of the users to their nearest center; not a number where nobody had a history"""
    intents: NDArray[np.int64]
    """(m,) place of the nearest intent, for each event of a user with a history"""
    placed: NDArray[np.int64]
    """(n,) as `ranks`, whether they were to be evaluated or not"""


class Ranking(NamedTuple):
    """Top-k lists; B users."""

    items: NDArray[np.int64]
    """(B, k) handles, best first, 0 where there were too few items"""
    scores: NDArray[np.float32]
    """(B, k) falling, 0 where there is no item"""
    source: NDArray[np.uint8]
    """(B,) SOURCE_MODEL, SOURCE_INTENT or SOURCE_POPULAR"""
    because: NDArray[np.int64]
    """(B, 3) handles of the recent items that drove the list, strongest first, 0 = none"""


class LearnReport(NamedTuple):
    """What `learn` did."""

    steps: int
    """optimizer steps made"""
    loss: float
    """mean next-item loss of the network over those steps, nats; not a number where there was none"""
    refused: int
    """steps refused by the guard"""
    examples: int
    """pairs learned from"""


class IntentInfo(NamedTuple):
    """One intent for the catalogue."""

    intent: int
    """id, never used for another"""
    share: float
    """of the users looked at lately"""
    separation: float
    """distance to the nearest other center, 0 to 2"""
    speed: float
    """distance moved per 1,000 events"""
    position: tuple[float, float]
    """on the map, -1 to 1 each"""
    born_at: int
    """event number"""
    items: list[str]
    """nearest items, best first"""


class Learner:
    """An ELCRec network, memories and the mix of both, learning on a stream.

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
        self._vocabulary = Vocabulary(config.capacity)
        self._network = Network(config)
        self._memories = ItemStatistics(config.memory, self._network.rows)
        mixing = torch.Generator().manual_seed((config.seed * 1000 + 100) % 2**63)
        self.mix = Ranker(config.mix, config.memory, mixing)
        self._replay = Replay(config.recent_pairs, config.uniform_pairs, config.max_len, config.seed)
        self.tracker = IntentTracker(config, self._network)
        self._weights: Weights = self._network  # whose answers are given; another's only inside `_answered_by`
        self._stand_in: ModelSnapshot | None = None
        self.serving: Serving = "learner"  # who answers
        self._snapshot = CopyBuffers()

    # -- items ------------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Items held."""
        return self._vocabulary.size

    @property
    def model_step(self) -> int:
        """Optimizer steps behind the weights that learn."""
        return self._network.steps

    @property
    def serving_step(self) -> int:
        """Optimizer steps behind the weights that answer."""
        stand_in = self._stand_in if self.serving == "snapshot" else None
        return self._network.steps if stand_in is None else stand_in.steps

    def lookup(self, items: Sequence[str]) -> NDArray[np.int64]:
        """Handles of the items, (n,), 0 where unknown."""
        return self._vocabulary.lookup(items)

    def item_ids(self, handles: NDArray[np.int64]) -> list[str]:
        """Item ids of handles (n,); the empty string where there is none any more."""
        return self._vocabulary.ids(handles)

    def admit(self, items: Sequence[str], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Handles of the items, (n,); unknown ones are taken in, and where the table is full the longest-unseen leave.

        Parameters
        ----------
        items
            Item id of each event, in order.
        numbers
            (n,) number of each event in the stream.
        """
        admission = self._vocabulary.admit(items, numbers)
        if len(admission.new_rows):
            while self._network.rows <= self.size:
                self._network.grow(2 * self._network.rows)
                self._memories.grow(self._network.rows)
            self._memories.clear(admission.new_rows)
            self._network.start_items(admission.new_rows)
            self.tracker.refresh()
            if self._stand_in is not None:
                self._stand_in.admit(admission.new_rows, self._network.rows)
        return admission.handles

    def start_from(self, items: Sequence[str], model: ELCRec) -> None:
        """Begin with a fitted model of the same shape, whose row i + 1 is items[i]; see `learner.start`."""
        if self.size:
            raise LearnerStateError(f"the learner holds {self.size} items; a fitted model can only be its start")
        handles = self.admit(items, np.zeros(len(items), dtype=np.int64))
        self._network.start_from(self._vocabulary.rows(handles), model)

    # -- the stream -------------------------------------------------------------------------------------------------

    def take(self, batch: StepBatch, evaluate: bool = True, written: int = 0) -> PrequentialResult:
        """Test on the events, then let memories, mix and replay have them; the network's weights stay.

        Memories and mixing weights move every `mix.chunk` events, each chunk being ranked before it is learned. With
        `written` an event is a follower of so many of the newest items, for example for a while after a drift, as far
        as `memory.read` or `memory.written` reach.
        """
        n = len(batch.items)
        generations = self._vocabulary.generations
        excluded = self._vocabulary.rows(batch.contexts)
        liked = np.where(self._disliked[batch.context_actions], 0, excluded)
        rows = self._vocabulary.rows(batch.items)
        h = self._network.encode(liked)
        gap = np.maximum(batch.ts - batch.context_ts[:, -1], 0) / 1000.0
        anchors = self._anchors(liked)
        popular = self._memories.popular(self.size + 1, self.config.mix.popular)
        ranks = np.full(n, NOT_EVALUATED, dtype=np.int64)
        losses, learned, new_items = 0.0, 0, 0
        has_history = np.asarray((liked > 0).any(axis=1))
        wanted = has_history & (batch.weights > 0)
        for start in range(0, n, self.config.mix.chunk):
            chunk = slice(start, start + self.config.mix.chunk)
            new = self._first_events(rows[chunk])
            new_items += int(new.sum())
            places = start + np.flatnonzero(wanted[chunk])
            if len(places):
                asked = self._asked(liked[places], excluded[places], gap[places], h[torch.from_numpy(places)])
                candidates = self.mix.candidates(self._memories, generations, asked, popular)
                seen = self._memories.seen[rows[places]] > 0
                ranks[places], loss = self.mix.learn(candidates, rows[places], seen | ~new[places - start])
                if np.isfinite(loss):
                    losses, learned = losses + loss * len(places), learned + len(places)
            self._memories.update(anchors[chunk], rows[chunk], generations, batch.weights[chunk] > 0, written)
            self._warm_start(rows[chunk], liked[chunk], new)
        looked_at = self.tracker.observe(liked, np.where(batch.weights > 0, rows, 0))
        self._replay.add(batch.users, Pairs(np.where(liked > 0, batch.contexts, 0), batch.items, batch.weights))
        loss = losses / learned if learned else float("nan")
        shown = ranks if evaluate else np.full(n, NOT_EVALUATED, dtype=np.int64)
        return PrequentialResult(shown, loss, new_items, looked_at.distance, looked_at.places, ranks)

    def _asked(
        self, liked: NDArray[np.int64], excluded: NDArray[np.int64], gap: NDArray[np.float64], h: Tensor
    ) -> RankingQuery:
        """What the ranking needs to know of users with histories (B, L) of rows, dislikes left out of `liked`."""
        network = None
        if self.config.mix.parts != "memories":
            network = self._weights.log_probabilities(h, self.size + 1)
        return RankingQuery(self._anchors(liked), excluded, (liked > 0).sum(axis=1), gap, network)

    def _anchors(self, liked: NDArray[np.int64]) -> NDArray[np.int64]:
        """The newest items of histories (B, L), newest first, (B, A)."""
        depth = max(self.config.memory.read, self.config.memory.written)
        return np.ascontiguousarray(liked[:, ::-1][:, :depth])

    def _first_events(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which events (n,) are the first of their item ever."""
        first = np.zeros(len(rows), dtype=bool)
        first[np.unique(rows, return_index=True)[1]] = True
        return np.asarray(first & (self._memories.seen[rows] == 0) & (rows > 0))

    def _warm_start(self, rows: NDArray[np.int64], contexts: NDArray[np.int64], new: NDArray[np.bool_]) -> None:
        place = np.flatnonzero(new)
        if len(place):
            self._network.warm_start(rows[place], contexts[place])

    @property
    def unlearned(self) -> int:
        """Pairs that came since the last learning step."""
        return self._replay.unlearned

    def learn(self, steps: int = 1, rate: float = 1.0, newest: int = 0) -> LearnReport:
        """Make `steps` learning steps from the pairs that came since the last, spread over them, and replayed ones.

        Parameters
        ----------
        steps
            Learning steps, each of `config.updates` optimizer steps.
        rate
            Multiplies the learning rates, for example for a while after a drift.
        newest
            Replay only so many of the newest pairs, for example those since a drift; 0 = recent ones and old ones.
        """
        self.tracker.refresh()
        config = self.config
        per_step = min(-(-self._replay.last // max(steps, 1)), config.batch)
        share = -(-per_step // config.updates)
        replayed = min(config.replay, round(config.replay_ratio * per_step)) // config.updates
        recent = round(replayed * config.replay_recent)
        losses, made, refused, examples = 0.0, 0, 0, 0
        for step in range(steps * config.updates):
            start = step // config.updates * per_step + step % config.updates * share
            stop = min(start + share, (step // config.updates + 1) * per_step)
            pairs = concatenate(
                [self._replay.fresh(start, stop), self._replay.sample(recent, replayed - recent, newest)]
            )
            outcome = self._network.learn(
                self._vocabulary.rows(pairs.contexts),
                self._vocabulary.rows(pairs.items),
                pairs.weights,
                self.size + 1,
                rate,
            )
            if not outcome.accepted:
                refused += 1
            elif outcome.examples:
                made, losses, examples = made + 1, losses + outcome.loss, examples + outcome.examples
        self._replay.learned()
        return LearnReport(made, losses / made if made else float("nan"), refused, examples)

    # -- the stand-in -----------------------------------------------------------------------------------------------

    @property
    def has_snapshot(self) -> bool:
        """Whether there is anything to stand in for this learner."""
        return self._stand_in is not None

    def keep_snapshot(self) -> None:
        """Copy what the gradients made, in place of the copy before: it can answer, and be gone back to."""
        self._stand_in = ModelSnapshot(self._network, self.mix, self.size + 1)

    def go_back(self) -> bool:
        """Take the stand-in's weights, with fresh moments; false where there is none.

        Items that came after it start anew. Memories, pairs to replay and the intents' ids stay as they are.
        """
        if self._stand_in is None:
            return False
        self.tracker.refresh()
        self._network.go_back(self._stand_in.weights, self._stand_in.known(self.size + 1))
        self.mix = self._stand_in.copy_of_mix()
        return True

    @contextmanager
    def _answered_by(self, who: Serving) -> Iterator[None]:
        if who == "learner" or self._stand_in is None:
            yield
            return
        mix = self.mix
        self._weights, self.mix = self._stand_in.weights, self._stand_in.mix
        try:
            yield
        finally:
            self._weights, self.mix = self._network, mix

    # -- answers ----------------------------------------------------------------------------------------------------

    def recommend(
        self,
        histories: NDArray[np.int64],
        actions: NDArray[np.uint8],
        ts: NDArray[np.int64],
        k: int,
        now: NDArray[np.int64] | None = None,
        by: Serving | None = None,
    ) -> Ranking:
        """Top-k of all items but those in the histories; changes nothing.

        Parameters
        ----------
        histories
            (B, L) handles, right-aligned, newest last, 0 = empty.
        actions, ts
            (B, L) action codes and epoch milliseconds of the same events.
        k
            Length of the lists.
        now
            (B,) when the lists are to be used, epoch milliseconds; None = right after the newest event.
        by
            Whose answer it is; None = that of the one who serves.
        """
        with self._answered_by(by or self.serving):
            parts = [
                self._recommend(histories[part], actions[part], ts[part], k, None if now is None else now[part])
                for start in range(0, max(len(histories), 1), _RANKED_AT_ONCE)
                for part in [slice(start, start + _RANKED_AT_ONCE)]
            ]
        return Ranking(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def _recommend(
        self,
        histories: NDArray[np.int64],
        actions: NDArray[np.uint8],
        ts: NDArray[np.int64],
        k: int,
        now: NDArray[np.int64] | None,
    ) -> Ranking:
        B = len(histories)
        items, scores = np.zeros((B, k), dtype=np.int64), np.zeros((B, k), dtype=np.float32)
        excluded = self._vocabulary.rows(histories)
        liked = np.where(self._disliked[actions], 0, excluded)
        cold = np.asarray(~(liked > 0).any(axis=1))
        source = np.where(cold, SOURCE_POPULAR, SOURCE_MODEL).astype(np.uint8)
        because = self._newest(liked, _BECAUSE)
        if B and self.size:
            gap = np.full(B, _SOON) if now is None else np.maximum(now - ts[:, -1], 0) / 1000.0
            asked = self._asked(liked, excluded, gap, self._weights.encode(liked))
            rows, scores, reasons = self._listed(asked, cold, k, self.config.mix.popular)
            short = np.flatnonzero((rows == 0).any(axis=1) | cold)
            if len(short):  # so many popular ones that k remain when the whole history is taken out
                most = 2 * (k + int((excluded[short] > 0).sum(axis=1).max()))
                rows[short], scores[short], reasons[short] = self._listed(asked.of(short), cold[short], k, most)
            items = self._vocabulary.handles(rows)
            because = np.where((reasons > 0).any(axis=1, keepdims=True), reasons, because)
        return Ranking(items, scores, source, self._vocabulary.handles(because))

    def _listed(
        self, asked: RankingQuery, cold: NDArray[np.bool_], k: int, popular: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
        """Rows of the best items of B users, (B, k), 0 where there are too few candidates, their scores, (B, k), and
        rows of the items that led to them, (B, 3).
        """
        everybody = self._memories.popular(self.size + 1, popular)
        candidates = self.mix.candidates(self._memories, self._vocabulary.generations, asked, everybody)
        best, scores = self.mix.best(candidates, cold, k)  # (B, k) places, -1 = none
        rows = np.where(best >= 0, candidates.rows[best], 0) if len(candidates.rows) else np.zeros_like(best)
        return rows, scores, self.mix.reasons(candidates, best, asked.anchors, _BECAUSE)

    def popular(self, count: int) -> NDArray[np.int64]:
        """Handles of the most popular items, best first, (count,), 0 where there are fewer: the list for nobody."""
        rows = self._memories.popular(self.size + 1, 2 * count)
        order = np.argsort(-self._memories.log_popularity(rows).mean(axis=0), kind="stable")[:count]
        best = rows[order]
        return self._vocabulary.handles(np.pad(best, (0, count - len(best))))

    def reasons(
        self, history: NDArray[np.int64], actions: NDArray[np.uint8], ts: NDArray[np.int64], items: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Handles of the newest items of one user's history (L,) that led to each of `items` (k,) most, (k, 3)."""
        excluded = self._vocabulary.rows(history[None])
        liked = np.where(self._disliked[actions[None]], 0, excluded)
        popular = self._memories.popular(self.size + 1, self.config.mix.popular)
        found = np.zeros((len(items), _BECAUSE), dtype=np.int64)
        with self._answered_by(self.serving):
            asked = self._asked(liked, excluded, np.full(1, _SOON), self._weights.encode(liked))
            candidates = self.mix.candidates(self._memories, self._vocabulary.generations, asked, popular)
            for place, row in enumerate(self._vocabulary.rows(items).tolist()):
                best = np.flatnonzero(candidates.rows == row)[None, :1]
                if best.size:
                    found[place] = self.mix.reasons(candidates, best, asked.anchors, _BECAUSE)[0]
        return self._vocabulary.handles(found)

    def _newest(self, rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """The newest `count` items of each history (B, L), holes left out, newest first, (B, count)."""
        reverse = rows[:, ::-1]
        order = np.argsort(reverse == 0, axis=1, kind="stable")[:, :count]
        newest = np.take_along_axis(reverse, order, axis=1)
        return np.pad(newest, ((0, 0), (0, count - newest.shape[1])))

    def intents(
        self,
        histories: NDArray[np.int64],
        actions: NDArray[np.uint8],
        held: NDArray[np.integer[Any]] | None = None,
        span: NDArray[np.integer[Any]] | None = None,
        newest_alone: NDArray[np.bool_] | None = None,
    ) -> IntentView:
        """Where users with histories (B, L) stand among the intents; changes nothing.

        Against the ids `held` (B,), held for `span` (B,) events. Where the newest items alone put them is asked for
        those in `newest_alone` (B,), and not whether they have left what they hold; both for all where it is not given.
        """
        rows = self._liked(histories, actions)
        parts = [
            self.tracker.view(
                rows[part],
                None if held is None else held[part],
                None if span is None else span[part],
                None if newest_alone is None else newest_alone[part],
            )
            for start in range(0, max(len(rows), 1), _RANKED_AT_ONCE)
            for part in [slice(start, start + _RANKED_AT_ONCE)]
        ]
        return parts[0] if len(parts) == 1 else IntentView(*(np.concatenate(c) for c in zip(*parts, strict=True)))

    def current_intents(self, ids: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """The ids (m,) under which these intents go on, those that were merged into others under theirs."""
        return self.tracker.current(ids)

    def pull(
        self,
        histories: NDArray[np.int64],
        actions: NDArray[np.uint8],
        origin: NDArray[np.integer[Any]],
        to: NDArray[np.integer[Any]],
    ) -> NDArray[np.float32]:
        """How much each item of histories (m, w) draws to intent `to` (m,), away from `origin` (m,), (m, w)."""
        return self.tracker.pull(self._liked(histories, actions), origin, to)

    def _liked(self, histories: NDArray[np.int64], actions: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Rows of histories (B, L), 0 where disliked or gone."""
        return np.where(self._disliked[actions], 0, self._vocabulary.rows(histories))

    def intent_health(self) -> dict[str, float]:
        """`active`: intents with at least 0.1% of recent events; `effective`: exp(entropy) of the shares."""
        shares = self.tracker.shares
        active = int((shares > 0.001).sum())
        return {"active": active, "effective": effective_number(torch.from_numpy(shares))}

    def catalog(self, items: int = 10, turn_map: bool = False) -> list[IntentInfo]:
        """All intents with their figures and their nearest items; only `turn_map` changes anything, the map."""
        entries = self.tracker.entries(turn_map)
        tops: list[list[str]] = [[] for _ in entries]
        if self.size:
            with torch.no_grad():
                vectors = torch.nn.functional.normalize(self._network.table[1 : self.size + 1], dim=1)
                best = (torch.from_numpy(self.tracker.vectors()) @ vectors.T).topk(
                    min(items, self.size), dim=1
                ).indices + 1
            tops = [self.item_ids(self._vocabulary.handles(row)) for row in best.numpy()]
        return [
            IntentInfo(one.intent, one.share, one.separation, one.speed, one.position, one.born_at, tops[one.place])
            for one in entries
        ]

    def age_memories(self, events: float) -> None:
        """Let what the memories know of popularity decay as if so many events had passed."""
        self._memories.age(events)

    def fade_followers(self, factor: float) -> None:
        """Let the neighbours of items that are known so far weigh `factor` of what they did, against those to come."""
        self._memories.fade_neighbours(factor)

    def forget(self, user_key: int) -> None:
        """Erase every pair of the user with this key from what may be replayed.

        Refused mini-batches are dropped whole: they are kept without keys, so any of them may hold the user's history.
        """
        self._replay.forget(user_key)
        self._network.refused.clear()

    @property
    def refused_batches(self) -> list[Any]:
        """The newest mini-batches that the guard refused."""
        return list(self._network.refused)

    # -- durable ----------------------------------------------------------------------------------------------------

    def _arrays(self) -> dict[str, NDArray[Any]]:
        """All but the vocabulary; some are views of what changes."""
        arrays: dict[str, NDArray[Any]] = {}
        for name, part in (
            ("memory", self._memories.to_arrays(self.size + 1)),
            ("mix", self.mix.to_arrays()),
            ("replay", self._replay.to_arrays()),
            ("identity", self.tracker.identity.to_arrays()),
            ("merging", self.tracker.merging.to_arrays()),
            ("standin", {} if self._stand_in is None else self._stand_in.to_arrays()),
        ):
            arrays |= _named(name, part)
        return arrays

    def _tensors(self) -> dict[str, Tensor]:
        tensors = self._network.to_tensors(self.size + 1)
        return tensors if self._stand_in is None else tensors | self._stand_in.to_tensors(self.size + 1)

    def save(self, folder: Path) -> None:
        """Write everything into a new folder: tensors in network.pt, arrays.npz, learner.json. Nothing is pickled."""
        self.begin_save()(folder)

    def begin_save(self) -> Callable[[Path], None]:
        """Copy everything that changes, and nothing else: this holds the loop up.

        The function returned writes the copy into a new folder, once, in any thread, while this learner goes on, and
        before it begins to save again.
        """
        vocabulary = self._vocabulary.begin_arrays()
        tensors = {f"tensor.{name}": tensor.detach().numpy() for name, tensor in self._tensors().items()}
        copies = self._snapshot.take({**self._arrays(), **tensors})
        number = self._snapshot.number
        small = {
            "format": FORMAT,
            "shape": self.config.shape(),
            "replay_random": self._replay.random_state(),
            "serving": self.serving,
        }

        def write(folder: Path) -> None:
            if number != self._snapshot.number:
                raise LearnerError(f"{folder}: another saving was begun before this one was written")
            folder.mkdir(parents=True)
            weights = {name.removeprefix("tensor."): torch.from_numpy(copies[name]) for name in tensors}
            with (folder / "network.pt").open("wb") as file:  # given a path, torch hides the disk's error
                torch.save(weights, file)
            arrays = {name: copy for name, copy in copies.items() if name not in tensors}
            np.savez(folder / "arrays.npz", allow_pickle=False, **_named("vocabulary", vocabulary()), **arrays)
            (folder / "learner.json").write_text(json.dumps(small))

        return write

    def load(self, folder: Path) -> None:
        """Continue from what `save` wrote; going on is then bit for bit what going on without saving is.

        Raises
        ------
        LearnerStateError
            Another format, other shapes, or files that do not belong together.
        """
        try:
            small = json.loads((folder / "learner.json").read_text())
            if small["format"] != FORMAT:
                raise LearnerStateError(
                    f"{folder}: learner format {small['format']!r}, this version reads {FORMAT}: "
                    "use the version that wrote it, or start from an empty state"
                )
            self._refuse_other_shape(folder, small["shape"])
            tensors, arrays = _read(folder)
            self._restore(tensors, arrays, small["replay_random"])
            self.serving = small["serving"]
            self.begin_save()  # takes the memory for the copies now, not in the first checkpoint
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            raise LearnerStateError(
                f"{folder}: the learner cannot be read ({error}): take an older checkpoint"
            ) from error

    def _refuse_other_shape(self, folder: Path, stored: dict[str, Any]) -> None:
        shape = self.config.shape()
        for key in sorted(shape):
            if stored.get(key) != shape[key]:
                raise LearnerStateError(
                    f"{folder}: saved with learner.{key} = {stored.get(key)!r}, the configuration says {shape[key]!r}: "
                    "set it back, or start from an empty state"
                )

    def _restore(self, tensors: dict[str, Tensor], arrays: dict[str, NDArray[Any]], random: dict[str, Any]) -> None:
        fresh = Learner(self.config)
        self._vocabulary = Vocabulary.from_arrays(self.config.capacity, strip_prefix("vocabulary.", arrays))
        self._network, self._memories, self.mix = fresh._network, fresh._memories, fresh.mix
        self._replay = fresh._replay
        while self._network.rows <= self.size:
            self._network.grow(2 * self._network.rows)
            self._memories.grow(self._network.rows)
        self._network.load_tensors(tensors)
        self._memories.load_arrays(strip_prefix("memory.", arrays))
        self.mix.load_arrays(strip_prefix("mix.", arrays))
        self._replay.load_arrays(strip_prefix("replay.", arrays))
        self._replay.load_random_state(random)
        self.tracker = fresh.tracker
        self.tracker.identity.load_arrays(strip_prefix("identity.", arrays))
        self.tracker.merging.load_arrays(strip_prefix("merging.", arrays))
        self._weights, self._stand_in = self._network, None
        if any(name.startswith(PREFIX) for name in tensors):
            self._stand_in = ModelSnapshot(self._network, self.mix, self.size + 1)
            self._stand_in.load(tensors, strip_prefix("standin.", arrays))

    def update_digest(self, digest: Hash) -> None:
        """Add all state to a hash: equal digests go on equally."""
        for name, array in (_named("vocabulary", self._vocabulary.to_arrays()) | self._arrays()).items():
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        for name, tensor in self._tensors().items():
            digest.update(name.encode())
            digest.update(tensor.detach().contiguous().numpy().tobytes())
        digest.update(json.dumps(self._replay.random_state(), sort_keys=True).encode())
        digest.update(self.serving.encode())


def _read(folder: Path) -> tuple[dict[str, Tensor], dict[str, NDArray[Any]]]:
    try:
        tensors = load_tensors(folder / "network.pt")
        # numpy leaves a file open that it opened itself and could not read
        with (folder / "arrays.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return tensors, {name: stored[name] for name in stored.files}
    except (OSError, TensorFileError):
        raise
    except Exception as error:  # of a damaged file its reader raises anything
        raise ValueError(f"damaged: {error!r}") from error


def _named(name: str, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {f"{name}.{key}": value for key, value in arrays.items()}


__all__ = [
    "IntentInfo",
    "IntentView",
    "LearnReport",
    "Learner",
    "PrequentialResult",
    "Ranking",
    "SOURCE_INTENT",
    "SOURCE_MODEL",
    "SOURCE_POPULAR",
    "StepBatch",
]
