"""SASRec: a causal transformer over the item vectors of a history, without an item table.

Histories are right-aligned: the newest item is at the last position, and position p of max_len always means "p from
the right". Only attention, which works across positions, sees padding, in blocks of similar length; see `RaggedBatch`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from learner.model.config import EncoderConfig
from learner.model.ragged_batch import RaggedBatch

MASKED = (
    -1e4
)  # added to forbidden scores: exp(-1e4) is 0 beside any allowed one, and a row with none allowed stays finite


def dropout(x: Tensor, p: float, generator: torch.Generator | None) -> Tensor:
    """Zero each number with probability p, to the nearest 1/256, and scale the others up. `generator` None: x itself.

    torch's own dropout draws from the global generator only, which a checkpoint could not hold. A draw of 64 bits
    serves eight numbers: a fifth of the time of `bernoulli_`.
    """
    out_of_256 = round(256 * p)
    if out_of_256 == 0 or generator is None:
        return x
    draws = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device).random_(
        -(2**63), None, generator=generator
    )
    keep = (draws.view(torch.uint8)[: x.numel()] >= out_of_256).view(x.shape).to(x.dtype)
    return x * keep.mul_(256 / (256 - out_of_256))


class Filter(nn.Module):
    """Low and high part of a sequence, the high part re-weighted: BSARec's idea (arXiv 2312.10325), made causal.

    BSARec filters by a Fourier transform over the whole window, which includes the future and so costs one sample per
    prefix. Here the low part is a running mean with a learned decay per channel: positions depend on earlier ones only,
    and all prefixes of a sequence are trained in one pass.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.linspace(-1.0, 2.0, hidden))  # (d,) logit of the decay per step
        self.high = nn.Parameter(torch.ones(hidden))  # (d,) root of the high part's weight

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """Filter x (B, T, d), `valid` (B, T) bool or None where nothing is padding: (B, T, d)."""
        T = x.shape[1]
        steps = torch.arange(T, device=x.device)
        distance = steps[:, None] - steps[None, :]  # (T, T) query minus key
        log_decay = F.logsigmoid(self.decay)  # (d,)
        weight = torch.exp(distance.clamp(min=0).to(x.dtype)[..., None] * log_decay)  # (T, T, d)
        weight = weight * (distance >= 0)[..., None]
        if valid is None:
            low = torch.einsum("tsd,bsd->btd", weight / weight.sum(1, keepdim=True), x)  # (B, T, d)
        else:
            mask = valid.to(x.dtype)  # (B, T)
            total = torch.einsum("tsd,bs->btd", weight, mask)  # (B, T, d)
            low = torch.einsum("tsd,bsd->btd", weight, x * mask[..., None]) / total.clamp(min=1e-9)
        return low + self.high.square() * (x - low)


class Layer(nn.Module):
    """One transformer layer: attention (and the filter, where configured), then feed-forward."""

    def __init__(self, config: EncoderConfig, max_len: int) -> None:
        super().__init__()
        d = config.hidden
        self.config = config
        self.qkv = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, d)
        self.attention_norm = nn.LayerNorm(d, eps=1e-12)
        self.up = nn.Linear(d, config.expansion * d)
        self.down = nn.Linear(config.expansion * d, d)
        self.norm = nn.LayerNorm(d, eps=1e-12)
        self.bias = nn.Parameter(torch.zeros(config.heads, max_len)) if config.positions == "relative" else None
        self.filter = Filter(d) if config.frequency > 0 else None
        self.filter_norm = nn.LayerNorm(d, eps=1e-12) if config.frequency > 0 else None

    def forward(
        self, x: Tensor, layout: RaggedBatch, masks: Sequence[Tensor], generator: torch.Generator | None, last: bool
    ) -> Tensor:
        """One layer over x (P, d); with `last`, only the newest position of each history, of one block."""
        c = self.config
        seen = self.attention_norm(x) if c.norm == "pre" else x
        out = layout.blocks(x)[0][:, -1] if last else x  # (Q, d)
        mixed = dropout(self.out(self._attend(seen, layout, masks, generator, last)), c.dropout, generator)
        if self.filter is not None and self.filter_norm is not None:
            smoothed = [
                self.filter(block, valid) for block, valid in zip(layout.blocks(seen), layout.valid, strict=True)
            ]
            smooth = dropout(smoothed[0][:, -1] if last else layout.flat(smoothed), c.dropout, generator)
            if c.norm == "pre":
                out = out + (1 - c.frequency) * mixed + c.frequency * smooth
            else:
                attended = self.attention_norm(out + mixed)
                out = (1 - c.frequency) * attended + c.frequency * self.filter_norm(out + smooth)
        elif c.norm == "pre":
            out = out + mixed
        else:
            out = self.attention_norm(out + mixed)
        inner = self.norm(out) if c.norm == "pre" else out
        inner = dropout(self.down(F.gelu(self.up(inner))), c.dropout, generator)
        return out + inner if c.norm == "pre" else self._post(out + inner)

    def _post(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(x)
        return normed

    def _attend(
        self, x: Tensor, layout: RaggedBatch, masks: Sequence[Tensor], generator: torch.Generator | None, last: bool
    ) -> Tensor:
        if last:
            return self._attend_last(layout.blocks(x)[0], masks[0][..., -1:, :], generator)
        blocks = zip(layout.blocks(self.qkv(x)), masks, strict=True)
        return layout.flat([self._attend_block(block, mask, generator) for block, mask in blocks])

    def _attend_block(self, qkv: Tensor, mask: Tensor, generator: torch.Generator | None) -> Tensor:
        """Attention output of each position, (n, T, d), from queries, keys and values (n, T, 3d)."""
        n, T, d = qkv.shape[0], qkv.shape[1], self.config.hidden
        H = self.config.heads
        query, key, value = qkv.chunk(3, dim=-1)
        query = query.reshape(n, T, H, d // H).transpose(1, 2)  # (n, H, T, d/H)
        key = key.reshape(n, T, H, d // H).permute(0, 2, 3, 1)  # (n, H, d/H, T)
        value = value.reshape(n, T, H, d // H).transpose(1, 2)  # (n, H, T, d/H)
        scores = query @ key / math.sqrt(d // H) + mask  # (n, H, T, T)
        if self.bias is not None:
            steps = torch.arange(T, device=qkv.device)
            scores = scores + self.bias[:, (steps[:, None] - steps[None, :]).clamp(min=0)]
        weights = dropout(scores.softmax(dim=-1), self.config.attention_dropout, generator)
        seen: Tensor = (weights @ value).transpose(1, 2).reshape(n, T, d)
        return seen

    def _attend_last(self, x: Tensor, mask: Tensor, generator: torch.Generator | None) -> Tensor:
        """Attention output of the newest position of x (B, T, d), (B, d), under a mask that broadcasts to (B, H, 1, T).

        With one query per history no position needs a key or a value: q . (K x + k) = (K' q) . x + q . k, where q . k
        is the same for all positions and softmax does not see it, and the mean of V x + v is V of the mean of x, plus
        v times the sum of the weights, which is not 1 under dropout.
        """
        B, T, d = x.shape
        H = self.config.heads
        of_query, of_key, of_value = self.qkv.weight.view(3, H, d // H, d)
        b_query, _, b_value = self.qkv.bias.view(3, H, d // H)
        query = torch.einsum("bd,hcd->bhc", x[:, -1], of_query) + b_query  # (B, H, d/H)
        projected = torch.einsum("bhc,hcd->bhd", query, of_key)  # (B, H, d)
        scores = projected @ x.transpose(1, 2) / math.sqrt(d // H) + mask.squeeze(-2)  # (B, H, T)
        if self.bias is not None:
            scores = scores + self.bias[:, :T].flip(-1)
        weights = dropout(scores.softmax(dim=-1), self.config.attention_dropout, generator)
        seen: Tensor = torch.einsum("bhd,hcd->bhc", weights @ x, of_value) + weights.sum(-1, keepdim=True) * b_value
        return seen.reshape(B, d)


class Encoder(nn.Module):
    """SASRec (Kang and McAuley, arXiv 1808.09781), with the authors' post-norm form as one choice.

    Parameters
    ----------
    config
        shape and switches
    max_len
        longest history L; learned positions are counted from the right end of it
    generator
        draws the first weights: normal, deviation .02, as the authors do

    Examples
    --------
    >>> import torch
    >>> encoder = Encoder(EncoderConfig(hidden=8), max_len=5, generator=torch.Generator().manual_seed(0)).eval()
    >>> x, valid = torch.randn(3, 4, 8), torch.ones(3, 4, dtype=torch.bool)
    >>> torch.allclose(encoder(x, valid)[:, -1], encoder.last(x, valid), atol=1e-6)
    True
    """

    def __init__(self, config: EncoderConfig, max_len: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.max_len = max_len
        self.layers = nn.ModuleList(Layer(config, max_len) for _ in range(config.layers))
        self.positions = nn.Parameter(torch.empty(max_len, config.hidden)) if config.positions == "learned" else None
        self.input_norm = nn.LayerNorm(config.hidden, eps=1e-12)
        self.output_norm = nn.LayerNorm(config.hidden, eps=1e-12) if config.norm == "pre" else None
        self._init_weights(generator)

    @torch.no_grad()
    def _init_weights(self, generator: torch.Generator | None) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(0, 0.02, generator=generator)
                module.bias.zero_()
        if self.positions is not None:
            self.positions.normal_(0, 0.02, generator=generator)

    def forward(self, x: Tensor, valid: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Encode every position.

        Parameters
        ----------
        x
            (B, T, d) item vectors, right-aligned, T <= max_len
        valid
            (B, T) bool, False = padding; None where nothing is padding. Outputs at padding mean nothing.
        generator
            draws the dropout; None = no dropout, in training mode too

        Returns
        -------
        (B, T, d)
        """
        return self.ragged(x.flatten(0, 1), _one_block(x, valid), generator).view_as(x)

    def last(self, x: Tensor, valid: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Encode the newest position only, (B, d): the last layer computes one query per history."""
        return self._run(x.flatten(0, 1), _one_block(x, valid), generator, last=True)

    def ragged(self, x: Tensor, layout: RaggedBatch, generator: torch.Generator | None = None) -> Tensor:
        """Encode every position of a ragged batch, (P, d) to (P, d)."""
        return self._run(x, layout, generator, last=False)

    def _run(self, x: Tensor, layout: RaggedBatch, generator: torch.Generator | None, last: bool) -> Tensor:
        longest = max(block.shape[1] for block in layout.there)
        if longest > self.max_len:
            raise ValueError(f"encoder got {longest} positions, more than max_len = {self.max_len}")
        if not self.training:
            generator = None
        if self.positions is not None:
            x = self._placed(x, self.positions, layout)
        x = dropout(self.input_norm(x), self.config.dropout, generator)
        masks = [_mask(block, valid, x.dtype) for block, valid in zip(layout.there, layout.valid, strict=True)]
        for index, layer in enumerate(self.layers):
            x = layer(x, layout, masks, generator, last=last and index == len(self.layers) - 1)
        return x if self.output_norm is None else self.output_norm(x)

    def _placed(self, x: Tensor, positions: Tensor, layout: RaggedBatch) -> Tensor:
        """Add to each of x (P, d) the vector of its place from the right."""
        if layout.is_one_block:  # the usual case online: no look-up
            n, T = layout.there[0].shape
            return (x.view(n, T, -1) + positions[self.max_len - T :]).flatten(0, 1)
        places = [
            torch.arange(self.max_len - block.shape[1], self.max_len, device=block.device).expand(block.shape)
            for block in layout.there
        ]
        return x + F.embedding(layout.flat(places), positions)


def _one_block(x: Tensor, valid: Tensor | None) -> RaggedBatch:
    """The ragged batch of x (B, T, d), padding included."""
    there = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if valid is None else valid
    return RaggedBatch([there], padded=True)


def _mask(there: Tensor, valid: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Added to the scores of a block so that no position sees a later one, or padding: (T, T) or (n, 1, T, T)."""
    T = there.shape[1]
    allowed = torch.ones(T, T, dtype=torch.bool, device=there.device).tril()
    if valid is not None:
        allowed = allowed & valid[:, None, None, :]
    return torch.zeros(allowed.shape, dtype=dtype, device=there.device).masked_fill_(~allowed, MASKED)


__all__ = ["Encoder", "Filter", "Layer", "dropout"]
