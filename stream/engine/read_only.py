"""A checkpoint opened for questions, beside a worker that may be running."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from state.checkpoints import CheckpointStore
from stream.config import StreamConfig
from stream.engine.engine import Engine
from stream.errors import EngineError


def newest_step(state: Path) -> int | None:
    """The step of the newest checkpoint of a state folder, None before the first; it is not opened."""
    if not (state / "checkpoints").is_dir():
        return None
    return max(CheckpointStore(state / "checkpoints").steps(), default=None)


@contextmanager
def open_checkpoint(config: StreamConfig, state: Path) -> Iterator[Engine]:
    """Open the newest checkpoint of a state folder for reading, beside a worker that may be running on it.

    Raises
    ------
    EngineError
        There is no checkpoint yet.
    """
    checkpoints = (
        CheckpointStore(state / "checkpoints", keep=config.engine.keep_checkpoints)
        if (state / "checkpoints").is_dir()
        else None
    )
    checkpoint = checkpoints.peek() if checkpoints is not None else None
    if checkpoints is None or checkpoint is None:
        raise EngineError(
            f"{state}: no checkpoint in it yet: a worker takes one every {config.engine.checkpoint_every_steps} steps "
            "and when it stops"
        )
    with TemporaryDirectory() as folder:
        engine = Engine(config, Path(folder), checkpoints, checkpoint)
        try:
            yield engine
        finally:
            engine.close()


__all__ = ["newest_step", "open_checkpoint"]
