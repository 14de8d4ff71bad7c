"""Configuration of the online learner. Every default was chosen by `benchmarks/online.py`; see docs/online.md."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from learner.intents.config import ChangePointConfig, IdentityConfig, MergeConfig
from learner.model.config import EncoderConfig, IntentConfig
from learner.online.config import ItemStatisticsConfig, MixConfig

_MAX_CAPACITY = (1 << 24) - 1  # an entry of the item statistics has 24 bits for the row


class LearnerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The online learner: sizes, learning rates, replay, and the guard that refuses steps."""

    seed: Annotated[
        int, Meta(ge=0, le=2**63 - 1, description="seed of every random generator of the learner; number")
    ] = 0
    threads: Annotated[
        int,
        Meta(ge=0, le=1024, description="torch threads of the process, 0: one per core; a replay needs the same count"),
    ] = 1
    max_len: Annotated[
        int, Meta(ge=1, le=1000, description="length L of the history that is kept and encoded; items")
    ] = 50
    capacity: Annotated[
        int,
        Meta(
            ge=1,
            le=_MAX_CAPACITY,
            description="most items in the tables; a further one recycles the longest-unseen row; count",
        ),
    ] = 1_000_000
    batch: Annotated[int, Meta(ge=1, le=65_536, description="most fresh pairs in one learning step; examples")] = 256
    replay: Annotated[int, Meta(ge=0, le=65_536, description="replayed pairs in one learning step; examples")] = 160
    replay_ratio: Annotated[
        float,
        Meta(ge=0, le=65_536, description="most replayed pairs per fresh pair; small steps replay less; count"),
    ] = 4.0
    replay_recent: Annotated[
        float, Meta(ge=0, le=1, description="share of replayed pairs from the ring of the newest; fraction")
    ] = 0.75
    recent_pairs: Annotated[int, Meta(ge=1, le=10_000_000, description="newest pairs kept for replay; pairs")] = 10_000
    uniform_pairs: Annotated[
        int, Meta(ge=0, le=10_000_000, description="pairs kept as a uniform sample of the whole stream; pairs")
    ] = 20_000
    updates: Annotated[int, Meta(ge=1, le=64, description="optimizer steps per learning step; count")] = 1
    warm_start: Annotated[
        float,
        Meta(ge=0, le=1, description="how far the vector of a new item moves towards the items before it; fraction"),
    ] = 0.3
    learning_rate: Annotated[float, Meta(gt=0, le=1, description="learning rate of encoder and centers; Adam")] = 5e-3
    item_learning_rate: Annotated[
        float, Meta(gt=0, le=1, description="learning rate of the item vectors; row-wise Adam")
    ] = 0.045
    full_softmax_below: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000_000,
            description="number of items up to which the loss covers all of them; above, it is sampled; count",
        ),
    ] = 2000
    negatives: Annotated[
        int,
        Meta(
            ge=1, le=1_000_000, description="sampled loss: negatives per learning step, shared by its examples; count"
        ),
    ] = 1024
    max_loss: Annotated[float, Meta(gt=0, le=1e9, description="loss above which a learning step is refused; nats")] = (
        100.0
    )
    max_gradient: Annotated[
        float, Meta(gt=0, le=1e9, description="gradient above which a learning step is refused; L2 norm")
    ] = 1000.0
    clip_gradient: Annotated[
        float, Meta(gt=0, le=1e9, description="length to which gradients of the encoder are clipped; L2 norm")
    ] = 5.0
    keep_refused: Annotated[
        int, Meta(ge=0, le=1000, description="newest refused mini-batches kept for inspection; count")
    ] = 4
    encoder: EncoderConfig = EncoderConfig(dropout=0.2, attention_dropout=0.2)
    intents: IntentConfig = IntentConfig(count=64, queue=1024, stop_gradient=True)
    identity: IdentityConfig = IdentityConfig()
    merging: MergeConfig = MergeConfig()
    evidence: ChangePointConfig = ChangePointConfig()
    item_statistics: ItemStatisticsConfig = ItemStatisticsConfig()
    mix: MixConfig = MixConfig()

    def shape(self) -> dict[str, Any]:
        """The settings that a saved learner must share with the one that loads it."""
        return {
            "max_len": self.max_len,
            "capacity": self.capacity,
            "recent_pairs": self.recent_pairs,
            "uniform_pairs": self.uniform_pairs,
            "encoder.hidden": self.encoder.hidden,
            "encoder.layers": self.encoder.layers,
            "encoder.heads": self.encoder.heads,
            "encoder.expansion": self.encoder.expansion,
            "encoder.norm": self.encoder.norm,
            "encoder.positions": self.encoder.positions,
            "encoder.frequency": self.encoder.frequency,
            "intents.count": self.intents.count,
            "intents.queue": self.intents.queue,
            "identity.pool": self.identity.pool,
            "item_statistics.popularity": list(self.item_statistics.popularity),
            "item_statistics.neighbors": list(self.item_statistics.neighbors),
            "mix.hidden": self.mix.hidden,
            "item_statistics.slots": self.item_statistics.slots,
        }


__all__ = ["LearnerConfig"]
