"""When checkpoints are due, and the thread that finishes them beside the loop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from learner.runtime import release_freed_memory
from state.checkpoints import PendingCheckpoint
from state.errors import StateError
from stream.config import EngineConfig
from stream.engine.engine import Engine

logger = logging.getLogger(__name__)

_WRITING_SHARE = 3  # a checkpoint that took a second to write is not followed by the next within three seconds of work


class CheckpointWriter:
    """Takes the worker's checkpoints, one at a time. A failure costs a checkpoint, not the stream: the older one and a
    longer replay serve.
    """

    def __init__(self, config: EngineConfig, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._write_s = 0.0
        self.redo_s = 0.0  # time that a restart would take to redo the steps since the last checkpoint
        self.hold_ms = 0.0  # how long the newest checkpoint held the loop
        self.failed = 0  # since the start
        self.failing = 0  # since the newest that succeeded
        self._owed = False  # `checkpoint_every_steps` have passed

    def due(self, step: int) -> bool:
        """Whether to take a checkpoint after this step; while one is being written, the next one waits for it."""
        self._owed |= step % self._config.checkpoint_every_steps == 0
        if self._thread is not None and self._thread.is_alive():
            return False
        much_to_redo = self.redo_s >= max(self._config.checkpoint_redo_s, _WRITING_SHARE * self._write_s)
        return self._owed or much_to_redo

    def begin(self, engine: Engine) -> None:
        """Begin a checkpoint, when `due`, and let a thread finish it."""
        began = self._clock()
        self.redo_s = 0.0  # also when it fails: the next attempt is not in every step from then on
        self._owed = False
        try:
            pending = engine.begin_checkpoint()
        except StateError as exc:
            self._failed(engine.step_number, exc)
            return
        self.hold_ms = (self._clock() - began) * 1000
        self._thread = threading.Thread(target=self._finish, args=(pending,), name="checkpoint")
        self._thread.start()

    def write(self, engine: Engine) -> None:
        """Take a checkpoint from begin to end, after the one that is being written; `StateError` when it fails."""
        self.wait()
        logger.info("checkpoint: %s", engine.checkpoint())
        self.failing = 0

    def wait(self) -> None:
        """Wait for the checkpoint that is being written."""
        if self._thread is not None:
            self._thread.join()

    def _finish(self, pending: PendingCheckpoint) -> None:
        began = self._clock()
        try:
            logger.info("checkpoint: %s", pending.finish())
            self._write_s = self._clock() - began
            self.failing = 0
            release_freed_memory()
        except StateError as exc:
            self._failed(pending.step, exc)
        except Exception as exc:  # an error in this thread would reach neither the loop nor an alert
            logger.exception("finishing a checkpoint")
            self._failed(pending.step, exc)

    def _failed(self, step: int, error: Exception) -> None:
        self.failed += 1
        self.failing += 1
        logger.error("no checkpoint at step %d, the one before it serves: %s", step, error)


__all__ = ["CheckpointWriter"]
