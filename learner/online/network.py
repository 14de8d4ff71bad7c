"""The network that learns online: item table, encoder, centers, their optimizers, and the guard around a step."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from learner.config import LearnerConfig
from learner.model.centers import IntentCenters, interests, kmeans
from learner.model.elcrec import ELCRec
from learner.model.encoder import Encoder
from learner.model.optimizers import DenseAdam, RowAdam

_BUCKETS = (6,)  # histories are encoded in groups up to these lengths, then the rest: most are short
_FEW = 64  # so few are one group: a second one would cost more than the padding
_FIRST_ROWS = 1024


class RefusedStep(NamedTuple):
    """A mini-batch that was not learned, for inspection."""

    model_step: int
    loss: float
    gradient: float
    contexts: NDArray[np.int64]
    items: NDArray[np.int64]


class StepOutcome(NamedTuple):
    """What one learning step gave."""

    loss: float
    accepted: bool
    examples: int


def lengths_of(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions from the first item to the right end, (B,), of right-aligned rows (B, L)."""
    some = rows != 0
    return np.where(some.any(axis=1), rows.shape[1] - some.argmax(axis=1), 0)


def buckets(lengths: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], int]]:
    """Groups of similar length as (places, longest); users without any item are in none."""
    groups = []
    low = 0
    bounds = _BUCKETS if len(lengths) > _FEW else ()
    for high in (*bounds, np.iinfo(np.int64).max):
        places = np.flatnonzero((lengths > low) & (lengths <= high))
        if len(places):
            groups.append((places, int(lengths[places].max())))
        low = high
    return groups


def strip_prefix(prefix: str, named: Mapping[str, Any]) -> dict[str, Any]:
    """Those whose name begins with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}


class _LocalRows(NamedTuple):
    """A mini-batch as places among the table rows that it needs."""

    contexts: NDArray[np.int64]
    """(B, T), 0 = padding"""
    items: NDArray[np.int64]
    """(B,)"""
    negatives: NDArray[np.int64] | None
    """(M,); None: all items are compared"""


class Weights:
    """Item vectors, encoder and centers: what answers. `Network` are those that learn, `copy` gives frozen ones.

    Parameters
    ----------
    table
        (rows, d) item vectors; row 0 is padding and stays 0.
    """

    def __init__(self, encoder: Encoder, centers: IntentCenters, table: Tensor) -> None:
        self.encoder, self.centers, self.table = encoder, centers, table

    @property
    def rows(self) -> int:
        """Table rows there is room for."""
        return len(self.table)

    def copy(self) -> Weights:
        """The same weights, which stay as they are now."""
        return Weights(copy.deepcopy(self.encoder), copy.deepcopy(self.centers), self.table.clone())

    def encode(self, rows: NDArray[np.int64]) -> Tensor:
        """User vectors (B, d) of histories (B, L) of rows, right-aligned; zeros for a history without items."""
        out = torch.zeros(len(rows), self.table.shape[1])
        with torch.no_grad():
            for places, longest in buckets(lengths_of(rows)):
                context = torch.from_numpy(rows[places, -longest:])
                out[torch.from_numpy(places)] = self.encoder.last(self.table[context], context > 0)
        return out

    def log_probabilities(self, h: Tensor, size: int) -> Tensor:
        """Log-softmax over rows 0 to size - 1, (B, size); row 0 counts but means nothing."""
        with torch.no_grad():
            return torch.log_softmax(h @ self.table[:size].T, dim=1)

    def to_tensors(self, size: int) -> dict[str, Tensor]:
        """The weights, of the table rows 0 to size - 1."""
        tensors = {f"encoder.{name}": value for name, value in self.encoder.state_dict().items()}
        tensors |= {f"centers.{name}": value for name, value in self.centers.state_dict().items()}
        return tensors | {"table": self.table[:size]}

    @torch.no_grad()
    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `to_tensors` gave; the rows behind stay as they are."""
        self.encoder.load_state_dict(strip_prefix("encoder.", tensors))
        self.centers.load_state_dict(strip_prefix("centers.", tensors))
        self.table[: len(tensors["table"])] = tensors["table"]


class Network(Weights):
    """Item vectors, encoder and centers; learns by mini-batch, refuses what would break it.

    Parameters
    ----------
    config
        Sizes, rates and limits.
    """

    def __init__(self, config: LearnerConfig) -> None:
        self.config = config
        d = config.encoder.hidden
        # one generator per purpose: a draw more in one place shifts nothing elsewhere
        self._generators = {
            name: torch.Generator().manual_seed((config.seed * 1000 + number) % 2**63)
            for number, name in enumerate(("weights", "items", "dropout", "negatives"))
        }
        super().__init__(
            Encoder(config.encoder, config.max_len, self._generators["weights"]),
            IntentCenters(config.intents, d, self._generators["weights"]),
            torch.zeros(_FIRST_ROWS, d),
        )
        self._rows = RowAdam(_FIRST_ROWS, d)
        self._dense = DenseAdam([*self.encoder.parameters(), *self.centers.parameters()])
        self.steps = 0
        self.refused: deque[RefusedStep] = deque(maxlen=config.keep_refused)

    # -- items ------------------------------------------------------------------------------------------------------

    def grow(self, rows: int) -> None:
        """Make room for `rows` rows."""
        self.table = torch.cat([self.table, torch.zeros(rows - self.rows, self.table.shape[1])])
        self._rows.grow(rows)

    @torch.no_grad()
    def start_items(self, rows: NDArray[np.int64]) -> None:
        """Give new items (m,) small random vectors and fresh moments."""
        place = torch.from_numpy(rows)
        self.table[place] = torch.empty(len(rows), self.table.shape[1]).normal_(
            0, 0.02, generator=self._generators["items"]
        )
        self._rows.clear(place)

    @torch.no_grad()
    def start_from(self, rows: NDArray[np.int64], model: ELCRec) -> None:
        """Copy items and encoder of a fitted model of this shape; item i + 1 goes to rows[i]; moments start anew."""
        self.table[torch.from_numpy(rows)] = model.items[1 : len(rows) + 1]
        self.encoder.load_state_dict(model.encoder.state_dict())
        # a fitted model's centers stand among user vectors, those of a stream among items
        picks = torch.Generator().manual_seed(self.config.seed % 2**63)
        self.centers.start_from(kmeans(model.items[1 : len(rows) + 1], len(self.centers.weight), picks))

    @torch.no_grad()
    def roll_back(self, weights: Weights, known: NDArray[np.bool_]) -> None:
        """Restore these weights, with fresh moments; of the table the rows `known` (size,), the others start anew."""
        self.encoder.load_state_dict(weights.encoder.state_dict())
        self.centers.load_state_dict(weights.centers.state_dict())
        self.start_items(np.flatnonzero(~known))
        place = torch.from_numpy(np.flatnonzero(known))
        self.table[place] = weights.table[place]
        self._rows.clear(place)
        for moment in (*self._dense.first, *self._dense.second):
            moment.zero_()
        self._dense.steps = 0

    @torch.no_grad()
    def warm_start(self, rows: NDArray[np.int64], contexts: NDArray[np.int64]) -> None:
        """Move new items (m,) towards the mean vector of the newest items of the contexts (m, L) that led to them."""
        if not len(rows):
            return
        newest = torch.from_numpy(contexts[:, -3:])
        known = (newest > 0).float()[..., None]  # (m, 3, 1)
        count = known.sum(1)  # (m, 1)
        mean = self.config.warm_start * (self.table[newest] * known).sum(1) / count.clamp(min=1)  # (m, d)
        place = torch.from_numpy(rows)
        self.table[place] = torch.where(count > 0, self.table[place] + mean, self.table[place])

    @torch.no_grad()
    def place_centers(self, places: NDArray[np.int64], centers: NDArray[np.float32]) -> None:
        """Put the intent centers at `places` (m,) elsewhere, (m, d), with fresh moments."""
        weight = self.centers.weight
        index = torch.from_numpy(places)
        weight[index] = torch.from_numpy(centers)
        number = next(i for i, parameter in enumerate(self._dense.parameters) if parameter is weight)
        self._dense.first[number][index] = 0
        self._dense.second[number][index] = 0

    # -- learning ---------------------------------------------------------------------------------------------------

    def learn(
        self,
        contexts: NDArray[np.int64],
        items: NDArray[np.int64],
        weights: NDArray[np.float32],
        size: int,
        rate: float = 1.0,
    ) -> StepOutcome:
        """One optimizer step from contexts (B, L) and items (B,) of rows; `rate` multiplies the learning rates."""
        useful = (items > 0) & (contexts > 0).any(axis=1) & (weights != 0)
        if not useful.all():
            contexts, items, weights = contexts[useful], items[useful], weights[useful]
        if not len(items):
            return StepOutcome(float("nan"), True, 0)
        config = self.config
        groups = buckets(lengths_of(contexts))
        order = np.concatenate([places for places, _ in groups])
        contexts = contexts[order, -groups[-1][1] :]  # what lies before the longest is padding
        items, weights = items[order], weights[order]
        touched, local = self._local_rows(contexts, items, size)
        vectors = self.table[touched].detach().requires_grad_()  # (m, d)
        h = self._user_vectors(local.contexts, [(len(places), longest) for places, longest in groups], vectors)
        target = torch.from_numpy(local.items)
        next_item = self._next_item_loss(h, vectors, target, local.negatives, torch.from_numpy(weights), size)
        u = interests(
            vectors.detach() if config.intents.stop_gradient else vectors,
            torch.from_numpy(local.contexts),
            config.intents.half_life,
        )  # (B, d)
        loss = next_item + self._intent_loss(u)
        gradients = torch.autograd.grad(loss, [vectors, *self._dense.parameters], allow_unused=True)
        rows_gradient = gradients[0]
        dense = self._dense.gradient(gradients[1:])
        value = float(next_item.detach())
        dense_norm = float(dense.norm())
        norm = float(np.hypot(dense_norm, float(rows_gradient.norm())))
        if not (np.isfinite(value) and value <= config.max_loss and np.isfinite(norm) and norm <= config.max_gradient):
            self.refused.append(RefusedStep(self.steps, value, norm, contexts, items))
            return StepOutcome(value, False, len(items))
        if dense_norm > config.clip_gradient:
            dense *= config.clip_gradient / dense_norm
        self._dense.step(dense, config.learning_rate * rate)
        rows_gradient[0] = 0
        self._rows.step(self.table, touched, rows_gradient, config.item_learning_rate * rate)
        self.table[0] = 0
        self.centers.remember(u.detach())
        self.steps += 1
        return StepOutcome(value, True, len(items))

    def _local_rows(
        self, contexts: NDArray[np.int64], items: NDArray[np.int64], size: int
    ) -> tuple[Tensor | slice, _LocalRows]:
        """The table rows that a mini-batch needs, and its contexts, items and negatives as places among them.

        All rows with the full softmax; else those of contexts (B, T), items (B,) and negatives drawn for all.
        """
        config = self.config
        if size - 1 <= config.full_softmax_below:
            return slice(0, size), _LocalRows(contexts, items, None)
        drawn = torch.randint(1, size, (config.negatives,), generator=self._generators["negatives"]).numpy()
        drawn = drawn[~np.isin(drawn, items)]
        distinct, place = np.unique(np.concatenate([[0], contexts.ravel(), items, drawn]), return_inverse=True)
        split = 1 + contexts.size
        local_contexts = place[1:split].reshape(contexts.shape)
        local = _LocalRows(local_contexts, place[split : split + len(items)], place[split + len(items) :])
        return torch.from_numpy(distinct), local

    def _user_vectors(self, contexts: NDArray[np.int64], groups: list[tuple[int, int]], vectors: Tensor) -> Tensor:
        """User vectors (B, d) of contexts (B, T), places in `vectors` (m, d), with dropout.

        `groups` are runs of users, as their number and their longest context.
        """
        parts, start = [], 0
        for users, longest in groups:
            stop = start + users
            context = torch.from_numpy(contexts[start:stop, -longest:])
            x = F.embedding(context, vectors)  # (b, T, d)
            parts.append(self.encoder.last(x, context > 0, self._generators["dropout"]))
            start = stop
        return torch.cat(parts)

    def _next_item_loss(
        self,
        h: Tensor,
        vectors: Tensor,
        target: Tensor,
        negatives: NDArray[np.int64] | None,
        weights: Tensor,
        size: int,
    ) -> Tensor:
        """Weighted cross-entropy over all items, or shared negatives with logQ correction; dislikes pushed away."""
        if negatives is None:
            logits = h @ vectors[1:].T  # (B, N)
            taken = F.cross_entropy(logits, target - 1, reduction="none")  # (B,)
        else:
            # popular items are nearly always among the answers
            answers, place = (torch.from_numpy(part) for part in np.unique(target.numpy(), return_inverse=True))
            drawn = torch.from_numpy(negatives)
            # the answers stand for themselves, each drawn item for its share of all others (logQ correction)
            others = float(np.log(max(size - 1 - len(answers), 1) / max(len(negatives), 1)))
            logits = torch.cat([h @ vectors[answers].T, h @ vectors[drawn].T + others], dim=1)  # (B, S + M)
            taken = F.cross_entropy(logits, place, reduction="none")
        if bool((weights > 0).all()):
            return (taken * weights).sum() / weights.sum()
        refused = F.softplus((h * vectors[target]).sum(-1))  # (B,) -log(1 - sigmoid)
        losses = torch.where(weights > 0, taken, refused) * weights.abs()
        return losses.sum() / weights.abs().sum()

    def _intent_loss(self, u: Tensor) -> Tensor:
        """The clustering loss of what users' newest items have in common, u (B, d) unit vectors."""
        intents = self.config.intents
        if intents.clustering == "none" or intents.weight == 0:
            return torch.zeros(())
        if intents.clustering == "balanced":
            return intents.weight * self.centers.balanced_loss(u)
        # the paper's clustering loss; over all pairs of unit vectors it sees only the means
        mean = self.centers.unit().mean(0)
        return intents.weight * (2 * mean.square().sum() - 2 * u.mean(0) @ mean)

    # -- state ------------------------------------------------------------------------------------------------------

    def to_tensors(self, size: int) -> dict[str, Tensor]:
        """Everything that the next step depends on, for rows 0 to size - 1."""
        tensors = super().to_tensors(size)
        tensors["rows.first"], tensors["rows.second"] = self._rows.first[:size], self._rows.second[:size]
        tensors["rows.steps"] = self._rows.steps[:size]
        for number, (first, second) in enumerate(zip(self._dense.first, self._dense.second, strict=True)):
            tensors[f"dense.first.{number}"], tensors[f"dense.second.{number}"] = first, second
        tensors["steps"] = torch.tensor([self.steps, self._dense.steps])
        for name, generator in self._generators.items():
            tensors[f"generator.{name}"] = generator.get_state()
        for number, batch in enumerate(self.refused):
            tensors[f"refused.{number}.figures"] = torch.tensor(
                [batch.model_step, batch.loss, batch.gradient], dtype=torch.float64
            )
            tensors[f"refused.{number}.contexts"] = torch.from_numpy(batch.contexts)
            tensors[f"refused.{number}.items"] = torch.from_numpy(batch.items)
        return tensors

    @torch.no_grad()
    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `to_tensors` gave; the rows behind are empty."""
        super().load_tensors(tensors)
        size = len(tensors["table"])
        for target, name in (
            (self._rows.first, "rows.first"),
            (self._rows.second, "rows.second"),
            (self._rows.steps, "rows.steps"),
        ):
            target[:size] = tensors[name]
        for number, (first, second) in enumerate(zip(self._dense.first, self._dense.second, strict=True)):
            first.copy_(tensors[f"dense.first.{number}"])
            second.copy_(tensors[f"dense.second.{number}"])
        self.steps, self._dense.steps = (int(count) for count in tensors["steps"])
        for name, generator in self._generators.items():
            generator.set_state(tensors[f"generator.{name}"])
        self.refused.clear()
        for number in range(len(strip_prefix("refused.", tensors)) // 3):
            step, loss, norm = tensors[f"refused.{number}.figures"].tolist()
            contexts, items = tensors[f"refused.{number}.contexts"], tensors[f"refused.{number}.items"]
            self.refused.append(RefusedStep(int(step), loss, norm, contexts.numpy(), items.numpy()))


__all__ = ["Network", "RefusedStep", "StepOutcome", "Weights", "buckets", "lengths_of", "strip_prefix"]
