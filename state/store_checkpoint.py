"""A checkpoint of the databases made beside the loop.

What must be held still is not the loop but the databases: from `UserStore.begin_checkpoint` on, writes stay in memory,
until the checkpoint is made by whoever calls `PendingStoreCheckpoint.run` first, another thread as a rule.
"""

from __future__ import annotations

import threading
from pathlib import Path

from rocksdict import Checkpoint, Rdict

from state.errors import StateError, storage_error


class PendingStoreCheckpoint:
    """One checkpoint to be made.

    Parameters
    ----------
    databases
        One per partition; nobody writes to them before `done`.
    folder
        An empty folder for the checkpoint.
    """

    def __init__(self, databases: list[Rdict], folder: Path) -> None:
        self._databases = databases
        self._folder = folder
        self._lock = threading.Lock()
        self._error: StateError | None = None
        self.done = False

    def run(self) -> None:
        """Make the checkpoint, or wait for whoever is making it; raises `StateError` when it failed."""
        self.settle()
        if self._error is not None:
            raise self._error

    def settle(self) -> None:
        """Make the checkpoint, or wait for whoever is making it; a failure is left to `run` to report."""
        with self._lock:
            if self.done:
                return
            try:
                for partition, database in enumerate(self._databases):
                    # Flushing first and waiting for it lets other threads run; the checkpoint alone would not, and
                    # it would flush while holding all of Python up (78 of 79 ms, measured with 60 MB to flush).
                    database.flush(True)
                    Checkpoint(database).create_checkpoint(str(partition_path(self._folder, partition)))
            except Exception as exc:
                self._error = storage_error("making a checkpoint of the users", self._folder, exc)
            finally:
                self.done = True


def partition_path(path: Path, partition: int) -> Path:
    """Folder of one partition's database."""
    return path / f"partition-{partition:04d}"
