"""Named configurations: the paper's, per data set, and ours."""

from __future__ import annotations

import msgspec

from learner.model.config import EncoderConfig, IntentConfig, ModelConfig
from learner.offline.config import FitConfig


def _paper(intents: int, layers: int, cluster: float, fusion: str) -> FitConfig:
    """The paper's settings: losses and weights, encoder, optimizer, early stopping. The network alone, no counts.

    `L_cluster` gets a hundredth of `cluster`, the paper's weight: the authors' loss acts mostly on padding, which no
    mean here includes, and at full weight on the histories alone nothing else is learned. With `compat = "authors"`
    use the full weight.
    """
    model = {
        "max_len": 50,
        "encoder": {"hidden": 64, "layers": layers, "heads": 2, "dropout": 0.5, "attention_dropout": 0.5},
        "intents": {"count": intents, "clustering": "paper", "weight": cluster / 100, "queue": 0},
        "next_item": "bce",
        "sequence_contrast": 0.1,
        "intent_contrast": 0.1,
        "fusion": fusion,
        "pool": "mean",
    }
    return FitConfig(
        model=msgspec.convert(model, ModelConfig),
        counts=None,
        learning_rate=1e-3,
        batch_users=256,
        batch_positions=256 * 50,
        batches="random",
        epochs=300,
        patience=40,
        evaluate_every=1,
        average=0.0,
    )


PRESETS: dict[str, FitConfig] = {
    "beauty": _paper(256, 1, 10.0, "shift"),
    "sports": _paper(512, 2, 1.0, "concat"),
    "toys": _paper(512, 3, 1.0, "concat"),
    "yelp": _paper(256, 2, 0.1, "concat"),
}

MODERN = FitConfig(
    model=ModelConfig(
        encoder=EncoderConfig(hidden=256, positions="relative"),
        intents=IntentConfig(),
        future=0.4,
        lookback=0.2,
    ),
    epochs=30,
    patience=6,
)
"""The configuration of `fit` without a preset."""

__all__ = ["MODERN", "PRESETS"]
