"""Configuration of the model: encoder, intent centers, and what is learned from a batch."""

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


class IntentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Intent centers and how they are learnt."""

    count: Annotated[int, Meta(ge=1, le=65_536, description="intent centers K; count")] = 256
    clustering: Annotated[
        Literal["balanced", "paper", "none"],
        Meta(
            description="balanced: every center gets its share of users; paper: the published form; none: centers stay"
        ),
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
        int, Meta(ge=0, le=1_000_000, description="balanced: latest users kept to balance over; count")
    ] = 4096
    stop_gradient: Annotated[
        bool, Meta(description="centers learn from the vectors that they see, these not from them; switch")
    ] = False
    half_life: Annotated[
        float,
        Meta(
            gt=0, le=1000, description="stream: centers see the mean of a user's newest items, older ones less; items"
        ),
    ] = 2.0


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is learnt from a batch: shape of the model, losses, and how much each counts."""

    max_len: Annotated[int, Meta(ge=1, le=1024, description="newest items of a history that are read; items")] = 50
    encoder: EncoderConfig = EncoderConfig()
    intents: IntentConfig = IntentConfig()
    next_item: Annotated[
        Literal["softmax", "bce"],
        Meta(description="softmax: over all items (sampled above full_softmax_items); bce: one negative, the paper's"),
    ] = "softmax"
    full_softmax_items: Annotated[
        int,
        Meta(ge=1, description="largest catalogue that gets the full softmax; items, above it negatives are sampled"),
    ] = 50_000
    sampled_negatives: Annotated[
        int, Meta(ge=1, le=1_000_000, description="negatives shared by a batch where the softmax is sampled; items")
    ] = 4096
    future: Annotated[
        float,
        Meta(
            ge=0, lt=1, description="softmax: weight of a later item relative to the one before it; 0 = next item only"
        ),
    ] = 0.5
    horizon: Annotated[int, Meta(ge=1, le=1024, description="softmax: items ahead that count; items")] = 8
    score: Annotated[
        Literal["dot", "cosine"],
        Meta(description="how an output meets an item vector; cosine is divided by temperature"),
    ] = "dot"
    temperature: Annotated[float, Meta(gt=0, le=10, description="of the cosine score; cosine units")] = 0.07
    sequence_contrast: Annotated[float, Meta(ge=0, le=100, description="weight of L_seq; factor, 0 = left out")] = 0.0
    intent_contrast: Annotated[float, Meta(ge=0, le=100, description="weight of L_intent; factor, 0 = left out")] = 0.0
    contrast: Annotated[
        Literal["dot", "cosine"],
        Meta(description="L_seq, L_intent: dot products, the paper's; or cosines, divided by contrast_temperature"),
    ] = "dot"
    contrast_temperature: Annotated[float, Meta(gt=0, le=10, description="of contrast = cosine; cosine units")] = 0.2
    fusion: Annotated[
        Literal["shift", "concat"], Meta(description="L_seq: a position's center is added to it, or appended")
    ] = "shift"
    pool: Annotated[
        Literal["last", "mean"], Meta(description="the user that meets the centers: newest output, or the paper's mean")
    ] = "last"
    lookback: Annotated[
        float,
        Meta(ge=0, lt=1, description="ranking: share of the output one item before the newest; 0 = the newest alone"),
    ] = 0.0
    compat: Annotated[
        Literal["none", "authors"],
        Meta(description="authors: reproduce the flaws of the published code; see docs/elcrec.md"),
    ] = "none"


__all__ = ["EncoderConfig", "IntentConfig", "ModelConfig"]
