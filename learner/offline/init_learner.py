"""Start a learner from a fitted model: `worker --init DIR` and `replay --init DIR`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from learner.config import LearnerConfig
from learner.errors import ModelFileError
from learner.offline.files import MODEL_FILE, Fitted, load_fitted
from learner.online.learner import Learner


def matching(config: LearnerConfig, fitted: Fitted) -> LearnerConfig:
    """`config` with the fitted model's encoder, number of intents and longest history; dropout stays."""
    model = fitted.model.config
    own = config.encoder
    encoder = replace(model.encoder, dropout=own.dropout, attention_dropout=own.attention_dropout)
    intents = replace(config.intents, count=model.intents.count)
    return replace(config, encoder=encoder, intents=intents, max_len=model.max_len)


def fingerprint(folder: Path) -> str:
    """16 hexadecimal digits that identify a fitted model: the hash of its description, which lists checksums.

    Raises
    ------
    ModelFileError
        There is no fitted model in the folder.
    """
    try:
        return hashlib.sha256((folder / MODEL_FILE).read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise ModelFileError(
            f"{folder}: no fitted model: {MODEL_FILE}: {error.strerror}; `intentstream fit` makes one"
        ) from None


def start_from(learner: Learner, folder: Path) -> int:
    """Give an empty learner the items, vectors, encoder and centers of a fitted model; return the number of items.

    Item statistics, mixing weights and replay buffer start empty.

    Raises
    ------
    ModelFileError
        the folder holds no fitted model, or one of another shape; `matching` returns a configuration that fits
    LearnerStateError
        the learner has items already
    """
    fitted = load_fitted(folder)
    model = fitted.model.config
    if model.score != "dot":
        raise ModelFileError(f"{folder}: fitted with score = {model.score!r}; the stream ranks by 'dot'")
    ours, theirs = _flat(learner.config), _flat(matching(learner.config, fitted))
    other = [name for name in ours if ours[name] != theirs[name]]
    if other:
        raise ModelFileError(
            f"{folder}: the model has another shape than the configuration: set "
            + ", ".join(f"learner.{name} = {msgspec.json.encode(theirs[name]).decode()}" for name in other)
        )
    if len(fitted.items) > learner.config.capacity:
        raise ModelFileError(f"{folder}: {len(fitted.items)} items, learner.capacity is {learner.config.capacity}")
    learner.start_from(fitted.items, fitted.model)
    return len(fitted.items)


def _flat(config: LearnerConfig) -> dict[str, Any]:
    """The settings that a fitted model decides, by name."""
    encoder = msgspec.structs.asdict(config.encoder)
    return {
        "max_len": config.max_len,
        **{f"encoder.{name}": value for name, value in encoder.items()},
        "intents.count": config.intents.count,
    }


__all__ = ["fingerprint", "matching", "start_from"]
