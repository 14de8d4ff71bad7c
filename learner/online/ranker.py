"""One score from the item statistics and the network, learned while the events arrive.

**Candidates** of a user are the neighbors of their newest items, what is popular at some half-life, and the
network's own best. Each candidate is described by what item statistics and network say about it, and scored by a linear
part, which starts where it is sensible, plus a small two-layer network, which starts at zero. Both learn by the
softmax loss over a user's candidates on **fresh** pairs only, before the statistics and the network have seen them: on
pairs they hold already, the ranking would learn to over-trust them. Items that are no candidate rank behind all
candidates.
"""

from __future__ import annotations

import copy
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from learner.metrics import UNRANKED
from learner.model.optimizers import DenseAdam
from learner.online.config import ItemStatisticsConfig, MixConfig
from learner.online.feature_layout import GROUP_OF, GROUPS, LENGTHS, FeatureLayout
from learner.online.item_statistics import ItemStatistics, Neighbors, runs

_CHANNEL_BITS: Final = 3
_NO_CHANNEL: Final = (1 << _CHANNEL_BITS) - 1  # a line that says nothing but that the row is a candidate
_STANDARDISE: Final = 200  # updates over which the scale of the inputs is measured, then it stays


class RankingQuery(NamedTuple):
    """Users to rank for; B of them."""

    anchors: NDArray[np.int64]
    """(B, A) rows of their newest items, newest first, 0 = none"""
    excluded: NDArray[np.int64]
    """(B, L) rows that may not be recommended, 0 = none"""
    lengths: NDArray[np.int64]
    """(B,) items in the history"""
    gap: NDArray[np.float64]
    """(B,) seconds since the newest item"""
    network: Tensor | None
    """(B, N) log-probabilities of the network, None = it has no say"""

    def of(self, users: NDArray[np.int64]) -> RankingQuery:
        """The same of some of them."""
        network = None if self.network is None else self.network[torch.from_numpy(users)]
        return RankingQuery(self.anchors[users], self.excluded[users], self.lengths[users], self.gap[users], network)


class Candidates(NamedTuple):
    """Candidates of B users, Z in all, by user and row."""

    users: NDArray[np.int64]
    """(Z,) rising"""
    rows: NDArray[np.int64]
    """(Z,) rising within a user"""
    features: Tensor
    """(Z, f + u) of the candidate, then of its user; stored by column"""
    neighbors: Neighbors
    lines: NDArray[np.int64]
    """(t,) lines of `neighbors` that are about a candidate"""
    about: NDArray[np.int64]
    """(t,) which candidate, rising"""


class Ranker:
    """Candidates, their scores, and how the weights learn.

    Parameters
    ----------
    config
        Rates and sizes.
    item_statistics
        Half-lives, which decide the number of inputs.
    generator
        Draws the first weights of the two-layer part.
    """

    def __init__(self, config: MixConfig, item_statistics: ItemStatisticsConfig, generator: torch.Generator) -> None:
        self.config = config
        layout = self._layout = FeatureLayout(item_statistics)
        inputs = layout.size
        start = torch.zeros(layout.candidate)
        start[layout.popularity] = 0.1
        # followers of the newest item count most, then those of the next two
        start[layout.newest_follower_gains] = torch.tensor([0.3, 0.15])
        start[layout.next_follower_gain] = 0.1
        start[layout.network] = config.network_start
        self._linear = start
        first = torch.empty(inputs, config.hidden).normal_(0, inputs**-0.5, generator=generator)
        self._deep = [first, torch.zeros(config.hidden), torch.zeros(config.hidden)]
        self._mean, self._variance = torch.zeros(inputs), torch.ones(inputs)
        self._measured = 0
        self._share = (1.0 / np.arange(1, item_statistics.candidate_window + 1)).astype(
            np.float32
        )  # of an anchor, the newest first
        self._adams = (DenseAdam([self._linear]), DenseAdam(self._deep))

    # -- candidates -------------------------------------------------------------------------------------------------

    def candidates(
        self,
        statistics: ItemStatistics,
        generations: NDArray[np.int64],
        query: RankingQuery,
        popular: NDArray[np.int64],
    ) -> Candidates:
        """The candidates of users, described; `popular` are the rows that everybody gets."""
        B, rows = len(query.lengths), statistics.rows
        anchors = query.anchors if self.config.parts != "network" else np.zeros_like(query.anchors)
        near = statistics.neighbors(anchors, generations)
        group = GROUP_OF[np.minimum(near.anchors, len(GROUP_OF) - 1)]
        channel = near.directions * GROUPS + group
        keys = [
            near.users * rows + near.rows << _CHANNEL_BITS | channel,
            (np.arange(B)[:, None] * rows + popular << _CHANNEL_BITS | _NO_CHANNEL).ravel(),
        ]
        if query.network is not None and self.config.network and self.config.parts != "item_statistics":
            best = query.network.topk(min(self.config.network, query.network.shape[1]), dim=1).indices.numpy()
            best = np.where(statistics.seen[best] > 0, best, 0)
            keys.append((np.arange(B)[:, None] * rows + best << _CHANNEL_BITS | _NO_CHANNEL).ravel())
        # numpy sorts plain numbers several at a time, so each key takes its line along instead of being sorted by index
        key = np.concatenate(keys)
        bits = len(key).bit_length()
        key = np.sort(key << bits | np.arange(len(key)))
        cell, line = key >> bits, key & (1 << bits) - 1
        pair = cell >> _CHANNEL_BITS
        first, lengths = runs(pair)
        distinct = pair[first]
        allowed = distinct % rows > 0
        taken = (np.arange(B)[:, None] * rows + query.excluded).ravel()
        place = np.minimum(np.searchsorted(distinct, taken), max(len(distinct) - 1, 0))
        if len(distinct):
            allowed[place[distinct[place] == taken]] = False
        number = np.where(allowed, np.cumsum(allowed) - 1, -1)  # of the candidates that remain
        about = np.repeat(number, lengths)
        says = np.flatnonzero((cell & _NO_CHANNEL != _NO_CHANNEL) & (about >= 0))
        line, cell, about = line.take(says), cell.take(says), about.take(says)
        distinct = distinct[allowed]
        users, found = distinct // rows, distinct % rows
        features = self._describe(statistics, query, near, line, cell, about, users, found)
        return Candidates(users, found, features, near, line, about)

    def _describe(
        self,
        statistics: ItemStatistics,
        query: RankingQuery,
        near: Neighbors,
        line: NDArray[np.int64],
        cell: NDArray[np.int64],
        about: NDArray[np.int64],
        users: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> Tensor:
        """Features of candidates `rows` (Z,) of `users` (Z,).

        `line` (t,) of `near` is about candidate `about` (t,); those of the same `cell` (t,) add up.
        """
        layout = self._layout
        # by input and not by candidate: every line below writes one stretch of memory
        out = np.zeros((layout.size, len(rows)), dtype=np.float32)
        # of many users: what is said of an item is worked out once, not for each of them
        known = int(rows.max(initial=0)) + 1
        query_rows, at = (np.arange(known), rows) if len(rows) > known else (rows, np.arange(len(rows)))
        popularity = statistics.log_popularity(query_rows)  # (H, m)
        seen = statistics.seen[query_rows].astype(np.float32)
        items = np.concatenate([popularity + 8, np.log(seen + 1)[None], np.log(statistics.ages(query_rows) + 1) / 3])
        np.take(items.astype(np.float32, copy=False), at, axis=1, out=out[layout.item], mode="clip")
        if len(line):
            start, _ = runs(cell)
            counts = np.add.reduceat(
                near.counts.take(line, axis=1) * self._share.take(near.anchors.take(line)), start, axis=1
            )  # (2, cells)
            channel, about = cell[start] & _NO_CHANNEL, about[start]
            fill = (self.config.smoothing * np.exp(popularity[layout.reference]))[at[about]]
            flat, place = out.reshape(-1), (layout.gains + channel) * len(rows) + about
            for count in counts:
                # numpy's log is vectorised, its log1p is not
                flat[place] = np.log(count / fill + 1)
                flat[place + (layout.counts - layout.gains) * len(rows)] = np.log(count + 1)
                place += layout.channels * len(rows)
        if query.network is not None and self.config.parts != "item_statistics":
            said = query.network.numpy().ravel().take(users * query.network.shape[1] + rows)
            trust = (seen / (seen + np.float32(self.config.trust_events)))[at]
            out[layout.network] = trust * (said + 8)
            out[layout.network_gain] = trust * (said - out[layout.reference] + 8)
            out[layout.network_plain] = said + 8
        each = np.bincount(users, minlength=len(query.lengths))
        out[layout.candidate :] = np.repeat(self._of_users(query, near).T, each, axis=1)
        if self.config.parts == "network":
            out[: layout.network] = 0
        return torch.from_numpy(out).T

    def _of_users(self, query: RankingQuery, near: Neighbors) -> NDArray[np.float32]:
        """What tells users apart, (B, u): kind of length, time since, how much is known of their newest item."""
        B = len(query.lengths)
        out = np.zeros((B, self._layout.of_user), dtype=np.float32)
        kind = np.searchsorted(LENGTHS, query.lengths, side="right") - 1
        some = np.flatnonzero(kind >= 0)
        out[some, kind[some]] = 1
        out[:, -3] = np.log1p(query.gap) / 5
        newest = np.flatnonzero((near.anchors == 0) & (near.directions == 0))
        for place, counts in enumerate(near.counts):
            out[:, place - 2] = np.log1p(np.bincount(near.users.take(newest), counts.take(newest), minlength=B))
        return out

    # -- scores -----------------------------------------------------------------------------------------------------

    def scores(self, candidates: Candidates) -> Tensor:
        """Scores of the candidates, (Z,)."""
        return self._forward(candidates.features.T)[0]

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (Z,) of candidates with features x (f + u, Z), and the hidden numbers behind them, (h, Z)."""
        first, bias, second = self._deep
        first = first / self._scale()[:, None]  # standardised inputs, without a pass over them
        # the linear part is one more column: one pass over the inputs, not two
        both = torch.cat([first, F.pad(self._linear, (0, len(first) - self._layout.candidate))[:, None]], dim=1)
        start = F.pad(bias - self._mean @ first, (0, 1))
        out = torch.addmm(start[:, None], both.T, x)  # (h + 1, Z)
        hidden = out[:-1].clamp(min=0)
        return out[-1] + second @ hidden, hidden

    def _backward(self, x: Tensor, hidden: Tensor, of_scores: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of the linear and of the two-layer part, each flat, from those of the scores, (Z,).

        Written out, because autograd takes a third more time for it.
        """
        of_hidden = torch.outer(self._deep[2], of_scores).mul_(hidden > 0)  # (h, Z)
        of_both = x @ torch.cat([of_hidden, of_scores[None]]).T  # (f + u, h + 1)
        of_bias = of_hidden.sum(1)
        of_first = (of_both[:, :-1] - torch.outer(self._mean, of_bias)) / self._scale()[:, None]
        deep = torch.cat([of_first.reshape(-1), of_bias, hidden @ of_scores])
        return of_both[: self._layout.candidate, -1], deep

    def _scale(self) -> Tensor:
        return self._variance.sqrt() + 0.1

    def learn(
        self, candidates: Candidates, targets: NDArray[np.int64], known: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], float]:
        """Rank targets (B,), then make one update from those among the candidates.

        `known` (B,) says which targets were seen before. Returns the ranks, (B,), and the mean loss before it, in nats.
        """
        B, Z = len(targets), len(candidates.rows)
        if Z == 0:
            return np.full(B, UNRANKED), float("nan")
        scores, hidden = self._forward(candidates.features.T)
        plain = scores.numpy()
        place, among = _find(candidates, targets)
        among &= known
        counts = np.bincount(candidates.users, minlength=B)
        start = (np.cumsum(counts) - counts)[counts > 0]
        width = counts[counts > 0]
        own = plain[place]  # (B,) score of the target, of another item where that is no candidate
        above = np.zeros(B, dtype=np.int64)
        above[counts > 0] = np.add.reduceat(plain > np.repeat(own, counts), start, dtype=np.int64)
        ranks = np.where(among, above, UNRANKED)
        self._measure(candidates.features)  # after the ranks, which are those of the lists as shown
        if not among.any():
            return ranks, float("nan")
        top = np.maximum.reduceat(plain, start)
        share = np.exp(plain - np.repeat(top, width))
        total = np.add.reduceat(share, start)
        share /= np.repeat(total, width)  # softmax over each user's candidates
        losses = np.zeros(B)
        losses[counts > 0] = top + np.log(total)
        loss = float((losses - own)[among].mean())
        # the derivative of the mean cross-entropy: (share - 1 for the target) / users learned from
        share[place[among]] -= 1
        share *= (among / among.sum()).astype(np.float32).repeat(counts)
        linear, deep = self._backward(candidates.features.T, hidden, torch.from_numpy(share))
        if bool(torch.isfinite(linear).all()) and bool(torch.isfinite(deep).all()):
            self._adams[0].step(linear, self.config.linear_learning_rate)
            self._adams[1].step(deep, self.config.learning_rate)
        return ranks, loss

    def best(
        self, candidates: Candidates, cold: NDArray[np.bool_], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Places of each user's k best candidates, (B, k), -1 where there are too few, and their scores, 0 there.

        Users marked in `cold` (B,) have no history: for them popularity alone decides.
        """
        B, Z = len(cold), len(candidates.rows)
        places, values = np.full((B, k), -1), np.zeros((B, k), dtype=np.float32)
        if Z == 0:
            return places, values
        scores = self.scores(candidates)
        if cold.any():
            popular = candidates.features[:, self._layout.popularity].mean(1)
            scores = torch.where(torch.from_numpy(cold[candidates.users]), popular, scores)
        counts = np.bincount(candidates.users, minlength=B)
        start = np.cumsum(counts) - counts
        table = torch.full((B, int(counts.max())), -torch.inf)
        table[torch.from_numpy(candidates.users), torch.from_numpy(np.arange(Z) - np.repeat(start, counts))] = scores
        top = table.topk(min(k, table.shape[1]), dim=1)
        found = torch.isfinite(top.values).numpy()
        width = found.shape[1]
        places[:, :width] = np.where(found, top.indices.numpy() + start[:, None], -1)
        values[:, :width] = np.where(found, top.values.numpy(), 0)
        return places, values

    def reasons(
        self, candidates: Candidates, best: NDArray[np.int64], anchors: NDArray[np.int64], count: int
    ) -> NDArray[np.int64]:
        """Rows of the newest items whose neighbors filled the lists `best` (B, k), strongest first, (B, count)."""
        near = candidates.neighbors
        listed = np.zeros(len(candidates.rows), dtype=bool)
        listed[best[best >= 0]] = True
        of = candidates.lines[listed[candidates.about]]
        B, A = anchors.shape
        weight = near.counts[:, of].sum(axis=0) / (1 + near.anchors[of])
        given = np.bincount(near.users[of] * A + near.anchors[of], weight, minlength=B * A).reshape(B, A)
        order = np.argsort(-given, axis=1, kind="stable")[:, :count]
        chosen = np.where(np.take_along_axis(given, order, 1) > 0, np.take_along_axis(anchors, order, 1), 0)
        return np.pad(chosen, ((0, 0), (0, count - chosen.shape[1])))

    def _measure(self, features: Tensor) -> None:
        if self._measured < _STANDARDISE and len(features) > 1:
            self._measured += 1
            self._mean = torch.lerp(self._mean, features.mean(0), 1 / self._measured)
            self._variance = torch.lerp(self._variance, features.var(0), 1 / self._measured)

    def describe(self) -> dict[str, float]:
        """Some of the linear weights by name."""
        weights, layout = self._linear, self._layout
        return {
            "popularity": round(float(weights[layout.popularity].sum()), 3),
            "followers": round(float(weights[layout.newest_follower_gains].sum()), 3),
            "network": round(float(weights[layout.network]), 3),
            "network_gain": round(float(weights[layout.network_gain]), 3),
        }

    # -- state ------------------------------------------------------------------------------------------------------

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {"linear": self._linear, "mean": self._mean, "variance": self._variance}
        tensors |= {f"deep.{number}": weight for number, weight in enumerate(self._deep)}
        for name, adam in zip(("linear", "deep"), self._adams, strict=True):
            for number, (first, second) in enumerate(zip(adam.first, adam.second, strict=True)):
                tensors[f"{name}.first.{number}"], tensors[f"{name}.second.{number}"] = first, second
        return tensors

    def copy(self) -> Ranker:
        """The same weights and moments, which go their own way from here."""
        return copy.deepcopy(self)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything that the next update depends on."""
        counts = np.array([self._measured, *(adam.steps for adam in self._adams)], dtype=np.int64)
        return {"counts": counts, **{name: tensor.numpy() for name, tensor in self._tensors().items()}}

    def load_arrays(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Continue from what `to_arrays` gave."""
        self._measured, self._adams[0].steps, self._adams[1].steps = (int(count) for count in arrays["counts"])
        for name, tensor in self._tensors().items():
            tensor.copy_(torch.from_numpy(arrays[name]))


def _find(candidates: Candidates, targets: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each user's target (B,) stands among the candidates, and whether it does."""
    width = max(int(targets.max(initial=0)), int(candidates.rows.max(initial=0))) + 1
    keys = candidates.users * width + candidates.rows
    wanted = np.arange(len(targets)) * width + targets
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return place, keys[place] == wanted


__all__ = ["Candidates", "Ranker", "RankingQuery"]
