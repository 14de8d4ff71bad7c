"""SASRec: a causal transformer over the item vectors of a history. It knows no item table.

Histories are right-aligned: the newest item is at the last position, and position p of max_len always means "p from
the right". Histories of equal length carry no padding at all; the offline trainer feeds it such of similar length.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec
import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional as F

MASKED = (
    -1e4
)  # added to forbidden scores: exp(-1e4) is 0 beside any allowed one, and a row with none allowed stays finite


class EncoderConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shape of the encoder. The defaults are the authors' for Beauty."""

    hidden: Annotated[int, Meta(ge=2, le=1024, description="size d of a vector; numbers")] = 64
    layers: Annotated[int, Meta(ge=1, le=12, description="transformer layers; count")] = 1
    heads: Annotated[int, Meta(ge=1, le=64, description="attention heads, must divide hidden; count")] = 2
    expansion: Annotated[int, Meta(ge=1, le=8, description="feed-forward size; multiple of hidden")] = 4
    dropout: Annotated[float, Meta(ge=0, lt=1, description="dropout of vectors; probability")] = 0.5
    attention_dropout: Annotated[float, Meta(ge=0, lt=1, description="dropout of attention weights; probability")] = 0.5
    norm: Annotated[
        Literal["post", "pre"],
        Meta(description="where LayerNorm stands; post: after each residual sum, as the authors do"),
    ] = "post"
    positions: Annotated[
        Literal["learned", "relative", "none"],
        Meta(description="learned: one vector per place from the right; relative: one bias per head and distance"),
    ] = "learned"
    frequency: Annotated[
        float,
        Meta(
            ge=0, le=1, description="share of a causal low/high-pass branch beside attention; fraction, 0 = no branch"
        ),
    ] = 0.0

    def __post_init__(self) -> None:
        if self.hidden % self.heads:
            raise ValueError(f"encoder.heads = {self.heads} must divide encoder.hidden = {self.hidden}")


def dropout(x: Tensor, p: float, generator: torch.Generator | None) -> Tensor:
    """Zero each number with probability p, to the nearest 1/256, and scale the others up. `generator` None: x itself.

    torch's own dropout draws from the global generator only, which a cut could not hold. A draw of 64 bits serves
    eight numbers: a fifth of the time of `bernoulli_`.
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

    BSARec filters by a Fourier transform over the whole window, which sees the future and so costs one sample per
    prefix. Here the low part is a running mean with a learnt decay per channel: position t sees only what came before,
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
        self, x: Tensor, mask: Tensor, valid: Tensor | None, generator: torch.Generator | None, last: bool
    ) -> Tensor:
        """One layer over x (B, T, d); with `last`, only the newest position is asked for: (B, 1, d)."""
        c = self.config
        seen = self.attention_norm(x) if c.norm == "pre" else x
        asked = x[:, -1:] if last else x  # (B, Q, d), Q = 1 or T
        mixed = dropout(self.out(self._attend(seen, mask, generator, last)), c.dropout, generator)
        if self.filter is not None and self.filter_norm is not None:
            smooth = self.filter(seen, valid)
            smooth = dropout(smooth[:, -1:] if last else smooth, c.dropout, generator)
            if c.norm == "pre":
                asked = asked + (1 - c.frequency) * mixed + c.frequency * smooth
            else:
                attended = self.attention_norm(asked + mixed)
                asked = (1 - c.frequency) * attended + c.frequency * self.filter_norm(asked + smooth)
        elif c.norm == "pre":
            asked = asked + mixed
        else:
            asked = self.attention_norm(asked + mixed)
        inner = self.norm(asked) if c.norm == "pre" else asked
        inner = dropout(self.down(F.gelu(self.up(inner))), c.dropout, generator)
        return asked + inner if c.norm == "pre" else self._post(asked + inner)

    def _post(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(x)
        return normed

    def _attend(self, x: Tensor, mask: Tensor, generator: torch.Generator | None, last: bool) -> Tensor:
        B, T, d = x.shape
        H = self.config.heads
        if last:
            return self._attend_last(x, mask[..., -1:, :], generator)
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        query = query.reshape(B, T, H, d // H).transpose(1, 2)  # (B, H, T, d/H)
        key = key.reshape(B, T, H, d // H).permute(0, 2, 3, 1)  # (B, H, d/H, T)
        value = value.reshape(B, T, H, d // H).transpose(1, 2)  # (B, H, T, d/H)
        scores = query @ key / math.sqrt(d // H) + mask  # (B, H, T, T)
        if self.bias is not None:
            steps = torch.arange(T, device=x.device)
            scores = scores + self.bias[:, (steps[:, None] - steps[None, :]).clamp(min=0)]
        weights = dropout(scores.softmax(dim=-1), self.config.attention_dropout, generator)
        seen: Tensor = (weights @ value).transpose(1, 2).reshape(B, T, d)
        return seen

    def _attend_last(self, x: Tensor, mask: Tensor, generator: torch.Generator | None) -> Tensor:
        """What the newest position of x (B, T, d) sees, (B, 1, d), under a mask that (B, H, 1, T) can take.

        For one query per history no position needs a key or a value: q . (K x + k) = (K' q) . x + q . k, where q . k
        is the same for all positions and softmax does not see it, and the mean of V x + v is V of the mean of x, plus
        v times the sum of the weights, which is not 1 under dropout.
        """
        B, T, d = x.shape
        H = self.config.heads
        of_query, of_key, of_value = self.qkv.weight.view(3, H, d // H, d)
        b_query, _, b_value = self.qkv.bias.view(3, H, d // H)
        query = torch.einsum("bd,hcd->bhc", x[:, -1], of_query) + b_query  # (B, H, d/H)
        asked = torch.einsum("bhc,hcd->bhd", query, of_key)  # (B, H, d)
        scores = asked @ x.transpose(1, 2) / math.sqrt(d // H) + mask.squeeze(-2)  # (B, H, T)
        if self.bias is not None:
            scores = scores + self.bias[:, :T].flip(-1)
        weights = dropout(scores.softmax(dim=-1), self.config.attention_dropout, generator)
        seen: Tensor = torch.einsum("bhd,hcd->bhc", weights @ x, of_value) + weights.sum(-1, keepdim=True) * b_value
        return seen.reshape(B, 1, d)


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
        return self._run(x, valid, generator, last=False)

    def last(self, x: Tensor, valid: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Encode the newest position only, (B, d): the last layer computes one query per history."""
        return self._run(x, valid, generator, last=True)[:, 0]

    def _run(self, x: Tensor, valid: Tensor | None, generator: torch.Generator | None, last: bool) -> Tensor:
        T = x.shape[1]
        if T > self.max_len:
            raise ValueError(f"encoder got {T} positions, more than max_len = {self.max_len}")
        if not self.training:
            generator = None
        if self.positions is not None:
            x = x + self.positions[self.max_len - T :]  # (B, T, d)
        x = dropout(self.input_norm(x), self.config.dropout, generator)
        allowed = torch.ones(T, T, dtype=torch.bool, device=x.device).tril()  # (T, T)
        if valid is not None:
            allowed = allowed & valid[:, None, None, :]  # (B, 1, T, T)
        mask = torch.zeros(allowed.shape, dtype=x.dtype, device=x.device).masked_fill_(~allowed, MASKED)
        for index, layer in enumerate(self.layers):
            x = layer(x, mask, valid, generator, last=last and index == len(self.layers) - 1)
        return x if self.output_norm is None else self.output_norm(x)
