"""Configuration of the model: encoder, intent centers and losses."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


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
        Meta(description="place of LayerNorm; post: after each residual sum, as in the authors' code"),
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


class IntentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Intent centers and the clustering loss."""

    count: Annotated[int, Meta(ge=1, le=65_536, description="intent centers K; count")] = 256
    clustering: Annotated[
        Literal["balanced", "paper", "none"],
        Meta(description="balanced: every center gets its share of users; paper: the published loss; none: no loss"),
    ] = "balanced"
    weight: Annotated[float, Meta(ge=0, le=100, description="weight of the clustering loss; factor")] = 0.1
    temperature: Annotated[
        float, Meta(gt=0, le=10, description="balanced: softness of predicted assignments; cosine units")
    ] = 0.1
    epsilon: Annotated[
        float, Meta(ge=0.03, le=1, description="balanced: softness of target assignments; cosine units")
    ] = 0.05
    rounds: Annotated[int, Meta(ge=1, le=100, description="balanced: Sinkhorn rounds; count")] = 3
    queue: Annotated[
        int, Meta(ge=0, le=1_000_000, description="balanced: newest users kept for the balance; count")
    ] = 4096
    stop_gradient: Annotated[
        bool, Meta(description="the clustering loss moves centers only, not the vectors of users; switch")
    ] = False
    half_life: Annotated[
        float,
        Meta(
            gt=0, le=1000, description="online: half-life of older items in the mean that centers see of a user; items"
        ),
    ] = 2.0


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shape of the model, losses and their weights."""

    max_len: Annotated[int, Meta(ge=1, le=1024, description="length of the history that is read; items")] = 50
    encoder: EncoderConfig = EncoderConfig()
    intents: IntentConfig = IntentConfig()
    next_item: Annotated[
        Literal["softmax", "bce"],
        Meta(description="softmax: over all items (sampled above full_softmax_items); bce: one negative, the paper's"),
    ] = "softmax"
    full_softmax_items: Annotated[
        int,
        Meta(ge=1, description="largest number of items with the full softmax; above, negatives are sampled; items"),
    ] = 50_000
    sampled_negatives: Annotated[
        int, Meta(ge=1, le=1_000_000, description="sampled softmax: negatives shared by a batch; items")
    ] = 4096
    future: Annotated[
        float,
        Meta(
            ge=0, lt=1, description="softmax: weight of a later item relative to the one before it; 0 = next item only"
        ),
    ] = 0.5
    horizon: Annotated[int, Meta(ge=1, le=1024, description="softmax: number of later items that count; items")] = 8
    score: Annotated[
        Literal["dot", "cosine"],
        Meta(description="product of output and item vector; cosine is divided by temperature"),
    ] = "dot"
    temperature: Annotated[float, Meta(gt=0, le=10, description="temperature of the cosine score; cosine units")] = 0.07
    sequence_contrast: Annotated[float, Meta(ge=0, le=100, description="weight of L_seq; factor, 0 = left out")] = 0.0
    intent_contrast: Annotated[float, Meta(ge=0, le=100, description="weight of L_intent; factor, 0 = left out")] = 0.0
    contrast: Annotated[
        Literal["dot", "cosine"],
        Meta(description="L_seq, L_intent: dot products, the paper's; or cosines, divided by contrast_temperature"),
    ] = "dot"
    contrast_temperature: Annotated[
        float, Meta(gt=0, le=10, description="temperature of contrast = cosine; cosine units")
    ] = 0.2
    fusion: Annotated[
        Literal["shift", "concat"], Meta(description="L_seq: the nearest center is added to a position, or appended")
    ] = "shift"
    pool: Annotated[
        Literal["last", "mean"], Meta(description="the user vector for the centers: newest output, or the paper's mean")
    ] = "last"
    lookback: Annotated[
        float,
        Meta(ge=0, lt=1, description="ranking: share of the output before the newest; 0 = the newest alone"),
    ] = 0.0
    compat: Annotated[
        Literal["none", "authors"],
        Meta(description="authors: reproduce the flaws of the published code; see docs/elcrec.md"),
    ] = "none"


__all__ = ["EncoderConfig", "IntentConfig", "ModelConfig"]
