"""A checkpoint opened for questions, beside a worker that may be running."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from learner.online.learner import Learner
from state.checkpoints import Checkpoint, CheckpointStore
from stream.config import StreamConfig
from stream.engine.checkpoint import refuse_other_shape, shape
from stream.engine.engine import Engine
from stream.engine.migrations import read_state
from stream.errors import EngineError


def newest_step(state: Path) -> int | None:
    """The step of the newest checkpoint of a state folder, None before the first; it is not opened."""
    if not (state / "checkpoints").is_dir():
        return None
    return max(CheckpointStore(state / "checkpoints").steps(), default=None)


def load_learner(config: StreamConfig, state: Path) -> tuple[Learner, int]:
    """The learner of the newest checkpoint, and its step; the histories stay where they are.

    Raises
    ------
    EngineError
        There is no checkpoint yet.
    """
    stored = read_state(_newest(config, state)[1])
    refuse_other_shape(stored, shape(config))
    learner = Learner(config.learner, config.actions.weights())
    learner.carry_over(stored.learner)
    return learner, stored.engine["step"]


@contextmanager
def open_checkpoint(config: StreamConfig, state: Path) -> Iterator[Engine]:
    """Open the newest checkpoint of a state folder for reading, beside a worker that may be running on it.

    Raises
    ------
    EngineError
        There is no checkpoint yet.
    """
    checkpoints, checkpoint = _newest(config, state)
    with TemporaryDirectory() as folder:
        engine = Engine(config, Path(folder), checkpoints, checkpoint)
        try:
            yield engine
        finally:
            engine.close()


def _newest(config: StreamConfig, state: Path) -> tuple[CheckpointStore, Checkpoint]:
    if (state / "checkpoints").is_dir():
        checkpoints = CheckpointStore(state / "checkpoints", keep=config.engine.keep_checkpoints)
        checkpoint = checkpoints.peek()
        if checkpoint is not None:
            return checkpoints, checkpoint
    raise EngineError(
        f"{state}: no checkpoint in it yet: a worker takes one every {config.engine.checkpoint_every_steps} steps "
        "and when it stops"
    )


__all__ = ["load_learner", "newest_step", "open_checkpoint"]
