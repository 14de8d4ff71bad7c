"""ELCRec (arXiv 2401.05975): item table, encoder, intent centers, and the paper's losses put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from learner.model import losses
from learner.model.augmentations import Compat, random_view
from learner.model.centers import IntentCenters
from learner.model.config import ModelConfig
from learner.model.encoder import Encoder
from learner.model.ragged_batch import RaggedBatch


class Batch(NamedTuple):
    """Training sequences of B users, right-aligned, 0 = empty."""

    inputs: Tensor
    """(B, T) item rows"""
    targets: Tensor
    """(B, T) the item after each input; 0 where there is no input"""
    negatives: Tensor | None = None
    """(B, T) a negative per target, for `bce`; or (S,) shared ones, for the sampled softmax"""
    log_q: Tensor | None = None
    """(N,) log expected draws of items 1 to N, for the sampled softmax"""
    blocks: tuple[tuple[int, int], ...] = ()
    """(users, longest history) of each block that attention works on, longest first, so that a block has little
    padding; (): one block"""

    def split(self, rows: Tensor) -> list[Tensor]:
        """Rows (..., B, T) as blocks, (..., n, T_p) each."""
        found, start = [], 0
        for users, longest in self.blocks or (tuple(self.inputs.shape),):
            found.append(rows[..., start : start + users, rows.shape[-1] - longest :])
            start += users
        return found


class Losses(NamedTuple):
    """The unweighted terms of one batch, and their weighted sum `total`."""

    total: Tensor
    next_item: Tensor
    sequence: Tensor | None
    intent: Tensor | None
    cluster: Tensor | None
    users: Tensor
    """(B, d) pooled users, detached, for the queue of the balanced loss"""


class ELCRec(nn.Module):
    """The whole model. Items and encoder rank; the centers tell intents.

    Parameters
    ----------
    config
        shape and losses
    items
        number of items N; row 0 is padding and row N + 1 the mask, which no list contains
    generator
        draws the first weights

    Examples
    --------
    >>> model = ELCRec(ModelConfig(max_len=4), items=9, generator=torch.Generator().manual_seed(0)).eval()
    >>> model.scores(model.user(torch.tensor([[0, 3, 5]]))).shape
    torch.Size([1, 9])
    """

    def __init__(self, config: ModelConfig, items: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.item_count = items
        d = config.encoder.hidden
        self.items = nn.Parameter(torch.empty(items + 2, d).normal_(0, 0.02, generator=generator))
        if config.compat == "none":
            with torch.no_grad():
                self.items[0].zero_()
        self.encoder = Encoder(config.encoder, config.max_len, generator)
        self.intents = IntentCenters(config.intents, d, generator)

    @property
    def mask_row(self) -> int:
        """Row of the mask item."""
        return self.item_count + 1

    def _valid(self, rows: Tensor) -> Tensor | None:
        valid = rows > 0
        return None if bool(valid.all()) else valid

    def embed(self, rows: Tensor) -> Tensor:
        """Vectors of rows (...), (..., d); the padding row never learns."""
        return F.embedding(rows, self.items, padding_idx=0)

    def encode(self, rows: Tensor) -> Tensor:
        """Outputs at every position of rows (B, T), (B, T, d), without dropout; at padding they mean nothing."""
        h: Tensor = self.encoder(self.embed(rows), self._valid(rows))
        return h

    def user(self, rows: Tensor) -> Tensor:
        """The vector that ranks items, of rows (B, T), (B, d): the newest output and a share of the one before it."""
        if self.config.lookback == 0:
            return self.encoder.last(self.embed(rows), self._valid(rows))
        return self.user_representation(self.encode(rows), rows)

    def user_representation(self, h: Tensor, rows: Tensor) -> Tensor:
        """The same from outputs h (B, T, d): the newest one and, by `lookback`, the one before it, (B, d).

        The output before has not seen the newest item, so the mix depends less on that item. It is not trained.
        """
        share, newest = self.config.lookback, h[:, -1]
        if share == 0 or rows.shape[1] == 1:
            return newest
        before = torch.where(rows[:, -2, None] > 0, h[:, -2], newest)
        return newest.lerp(before, share)

    def pool(self, h: Tensor, rows: Tensor) -> Tensor:
        """The user vector of the intent losses: mean of h (B, T, d) over the history, or its newest position, (B, d).

        `compat = "authors"`: the mean over all T, padding included.
        """
        if self.config.pool == "last":
            return h[:, -1]
        return losses.masked_mean(h, None if self.config.compat == "authors" else self._valid(rows))

    def table(self) -> Tensor:
        """Vectors of items 1 to N for scoring, (N, d)."""
        items = self.items[1 : self.item_count + 1]
        return F.normalize(items, dim=-1) if self.config.score == "cosine" else items

    def head(self, h: Tensor) -> Tensor:
        """Outputs (…, d) for scoring, divided by the temperature."""
        return F.normalize(h, dim=-1) / self.config.temperature if self.config.score == "cosine" else h

    def scores(self, user: Tensor) -> Tensor:
        """Scores of items 1 to N for outputs (B, d), (B, N)."""
        return self.head(user) @ self.table().T

    def losses(
        self,
        batch: Batch,
        generator: torch.Generator | None,
        *,
        bfloat16_softmax: bool = False,
        bfloat16_encoder: bool = False,
    ) -> Losses:
        """All terms that have a weight.

        Parameters
        ----------
        batch
            sequences; every user has at least one target
        generator
            draws dropout and views; None = no dropout, and no term that needs views
        bfloat16_softmax
            compute the products of the full softmax in bfloat16
        bfloat16_encoder
            compute the products of the encoder in bfloat16
        """
        c = self.config
        whole = self._with_views(batch.inputs, generator)  # (V, B, T)
        rows = [part.flatten(0, 1) for part in batch.split(whole)]  # (V * n, T) each: histories, then views
        layout = self._layout(rows)
        targets = F.pad(batch.targets[None], (0, 0, 0, 0, 0, len(whole) - 1))  # (V, B, T)
        wanted = layout.flat([part.flatten(0, 1) for part in batch.split(targets)]).nonzero()[:, 0]  # (Q,) of P
        looked_up = [layout.flat(rows), *self._compared(batch)]
        # one look-up makes one gradient of the size of the table instead of three
        vectors, *compared = torch.split(self.embed(torch.cat(looked_up)), [len(part) for part in looked_up])
        out = self._encode(vectors, layout, generator, bfloat16_encoder)  # (P, d)
        h = out.index_select(0, wanted)
        bce = c.next_item == "bce"
        next_item = losses.next_item_bce(h, *compared) if bce else self._softmax(h, batch, bfloat16_softmax)
        pools = [
            self.pool(block, part).view(len(whole), -1, out.shape[1])
            for block, part in zip(layout.blocks(out), rows, strict=True)
        ]  # (V, n, d) each
        pooled, *views = torch.cat(pools, dim=1)  # (B, d) each
        sequence, intent = self._contrasts(out, layout, pooled, views)
        cluster = self._clustering(pooled, views)
        total = next_item
        for weight, term in (
            (c.sequence_contrast, sequence),
            (c.intent_contrast, intent),
            (c.intents.weight, cluster),
        ):
            if term is not None:
                total = total + weight * term
        return Losses(total, next_item, sequence, intent, cluster, pooled.detach())

    def _with_views(self, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        """The sequences (B, T) and, where a contrastive loss has a weight, two random views of each: (V, B, T)."""
        c = self.config
        if c.sequence_contrast == 0 and c.intent_contrast == 0:
            return inputs[None]
        if generator is None:
            raise ValueError("the contrastive losses draw views of the sequences and need a generator")
        views = random_view(inputs.repeat(2, 1), generator, self.mask_row, c.compat)
        return torch.cat([inputs[None], views.view(2, *inputs.shape)])

    def _contrasts(
        self, out: Tensor, layout: RaggedBatch, pooled: Tensor, views: Sequence[Tensor]
    ) -> tuple[Tensor | None, Tensor | None]:
        """`L_seq` of outputs (P, d) and `L_intent` of pooled users and views (B, d); None without a weight."""
        c = self.config
        sequence = intent = None
        if not views:
            return sequence, intent
        centers = self.intents.unit()
        temperature = c.contrast_temperature if c.contrast == "cosine" else None
        if c.sequence_contrast > 0:
            places, stretches = _stretches(layout)
            seen = out.index_select(0, places)
            sequence = losses.sequence_contrast(seen, stretches, centers, c.fusion, temperature)
        if c.intent_contrast > 0:
            own = self.intents.nearest(pooled).intent
            intent = losses.intent_contrast(views[0], views[1], centers, own, temperature)
        return sequence, intent

    def _clustering(self, pooled: Tensor, views: Sequence[Tensor]) -> Tensor | None:
        """The clustering loss of pooled users and their views (B, d); None where the configuration has none."""
        c = self.config
        if c.intents.clustering == "paper":
            unit = F.normalize(pooled, dim=-1)
            return losses.cluster_loss(unit, self.intents.unit(), include_self=c.compat == "authors")
        if c.intents.clustering == "balanced":
            return self.intents.balanced_loss(pooled, *views)
        return None

    def _layout(self, rows: Sequence[Tensor]) -> RaggedBatch:
        """The ragged batch of blocks of rows (n, T); `compat = "authors"` treats padding as positions."""
        return RaggedBatch([part > 0 for part in rows], padded=self.config.compat == "authors")

    def _encode(
        self, vectors: Tensor, layout: RaggedBatch, generator: torch.Generator | None, bfloat16: bool
    ) -> Tensor:
        if not bfloat16:
            return self.encoder.ragged(vectors, layout, generator)
        with torch.autocast(vectors.device.type, torch.bfloat16):
            h = self.encoder.ragged(vectors, layout, generator)
        return h.float()  # the losses compare numbers that differ by less than bfloat16 resolves

    def _compared(self, batch: Batch) -> tuple[Tensor, ...]:
        """Item and negative of each of the Q positions with a target, (Q,) each; nothing for the softmax."""
        if self.config.next_item != "bce":
            return ()
        if batch.negatives is None:
            raise ValueError("next_item = 'bce' needs batch.negatives, one per target")
        wanted = batch.targets > 0
        return batch.targets[wanted], batch.negatives[wanted]

    def _softmax(self, out: Tensor, batch: Batch, bfloat16: bool) -> Tensor:
        c = self.config
        target, weight = losses.future_targets(batch.targets, c.future, c.horizon)  # (P, J) each
        target = (target - 1).clamp(min=0)
        if batch.log_q is not None and batch.negatives is not None:
            return losses.sampled_softmax(
                self.head(out), self.table(), target, weight, batch.negatives - 1, batch.log_q
            )
        return losses.full_softmax(self.head(out), self.table(), target, weight, bfloat16=bfloat16)


def _stretches(layout: RaggedBatch) -> tuple[Tensor, RaggedBatch]:
    """The two views of each history, from blocks (3n, T) of histories and views, for `losses.sequence_contrast`.

    Returns which positions of the layout are in a view, (P',), and their ragged batch in blocks (2n', t) by distance
    from the newest item.
    """
    parts = [numbers.view(3, -1, numbers.shape[1])[1:] for numbers in layout.numbers()]  # (2, n, T) each
    near, found = 0, []
    for far in sorted({part.shape[2] for part in parts}):
        reaching = [part[:, :, part.shape[2] - far : part.shape[2] - near] for part in parts if part.shape[2] >= far]
        found.append(torch.cat(reaching, dim=1).flatten(0, 1))  # (2n', far - near)
        near = far
    stretches = RaggedBatch([numbers >= 0 for numbers in found])
    return stretches.flat(found), stretches


__all__ = [
    "Batch",
    "Compat",
    "ELCRec",
    "Losses",
]
