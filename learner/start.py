"""Starting the stream from a fitted model: `worker --init DIR` and `replay --init DIR`."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from learner.checkpoint import Fitted, load_fitted
from learner.config import LearnerConfig
from learner.errors import ModelFileError
from learner.online import Learner


def matching(config: LearnerConfig, fitted: Fitted) -> LearnerConfig:
    """`config` with the fitted model's encoder, number of intents and longest history; dropout stays."""
    model = fitted.model.config
    own = config.encoder
    encoder = replace(model.encoder, dropout=own.dropout, attention_dropout=own.attention_dropout)
    intents = replace(config.intents, count=model.intents.count)
    return replace(config, encoder=encoder, intents=intents, max_len=model.max_len)


def start_from(learner: Learner, folder: Path) -> int:
    """Give a learner that has seen nothing the items, vectors, encoder and centres of a fitted model; the items given.

    What the stream itself has to teach starts empty: memories, mixing weights, replay.

    Raises
    ------
    ModelFileError
        the folder holds no fitted model, or one of another shape; `matching` makes a configuration that fits
    LearnerStateError
        the learner has items already
    """
    fitted = load_fitted(folder)
    model = fitted.model.config
    if model.score != "dot":
        raise ModelFileError(f"{folder}: fitted with score = {model.score!r}; the stream ranks by 'dot'")
    wanted = matching(learner.config, fitted)
    for name in ("encoder", "intents", "max_len"):
        ours, theirs = getattr(learner.config, name), getattr(wanted, name)
        if ours != theirs:
            raise ModelFileError(f"{folder}: the model has {name} {theirs}, the configuration {ours}")
    if len(fitted.items) > learner.config.capacity:
        raise ModelFileError(f"{folder}: {len(fitted.items)} items, learner.capacity is {learner.config.capacity}")
    learner.start_from(fitted.items, fitted.model)
    return len(fitted.items)


__all__ = ["matching", "start_from"]
