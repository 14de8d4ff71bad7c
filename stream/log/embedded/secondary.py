"""A reader's RocksDB in another process than the writer's: it follows the writer's files without a lock."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
from rocksdict import AccessType, Rdict

from stream.log.base import LogError, LogUnavailable
from stream.log.embedded.folder import check_format, explained, try_lock
from stream.log.embedded.layout import Bounds, Topic, Writer, partition_key, topic_key, writer_key
from stream.log.embedded.store import database_options

_SCRATCH: Final = "intentstream-reader-"
_UNLOCKED_S: Final = 60  # longer than a process takes from making its folder to locking it
_TICK_S: Final = 0.005  # how often a waiting reader looks again


class ScratchFolder:
    """A temporary folder, locked while it is in use: one that nobody locks is left of a killed process and goes."""

    def __init__(self) -> None:
        self._remove_leftovers()
        self.path = Path(tempfile.mkdtemp(prefix=_SCRATCH))
        lock = try_lock(self.path)
        assert lock is not None  # nobody else knows the folder
        self._lock = lock

    @staticmethod
    def _remove_leftovers() -> None:
        for folder in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
            with suppress(OSError):  # of another user, or removed by another process
                if time.time() - folder.stat().st_mtime > _UNLOCKED_S and (lock := try_lock(folder)) is not None:
                    shutil.rmtree(folder, ignore_errors=True)
                    os.close(lock)

    def remove(self) -> None:
        """Remove the folder; a second call does nothing."""
        if self.path.exists():
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)


class SecondaryStore:
    """A reader's side in another process: a RocksDB secondary, which follows the writer's files without a lock."""

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.realpath(path))
        with explained(self.path, "open it for reading"):
            if not check_format(self.path) or not (self.path / "db" / "CURRENT").exists():
                raise LogError(
                    f"log {self.path}: there is no log in this folder: start a worker on it, "
                    f"or create it with `intentstream topics --create --log file://{self.path}`"
                )
            self._scratch = ScratchFolder()
            try:
                self._db = self._open()
            except BaseException:
                self._scratch.remove()
                raise
        self._topics: dict[str, Topic] = {}

    def _open(self) -> Rdict:
        options = database_options()
        options.create_if_missing(False)
        options.set_max_open_files(-1)  # the writer may delete a file that this reader still needs
        for attempt in range(5):
            try:
                return Rdict(str(self.path / "db"), options, access_type=AccessType.secondary(str(self._scratch.path)))
            except Exception:  # a file was replaced while it was being opened
                if attempt == 4:
                    raise
                time.sleep(_TICK_S)
        raise AssertionError("unreachable")

    def refresh(self) -> None:
        """See what was written since; a reader that fell behind the writer's deletions opens its files again."""
        self._topics.clear()
        try:
            self._db.try_catch_up_with_primary()
        except Exception:
            self._db.close()
            try:
                self._db = self._open()
            except Exception as exc:
                raise LogUnavailable(
                    f"log {self.path}: cannot follow its writer: {' '.join(str(exc).split())}"
                ) from exc

    def wait(self, timeout_s: float) -> None:
        """Sleep a little: another process cannot wake this one."""
        time.sleep(min(timeout_s, _TICK_S))

    def topic(self, name: str) -> Topic | None:
        """The topic of this name."""
        topic = self._topics.get(name)
        if topic is None:
            raw = self._db.get(topic_key(name))
            if raw is not None:
                topic = self._topics[name] = msgspec.msgpack.decode(raw, type=Topic)
        return topic

    def bounds(self, topic: Topic, partition: int) -> Bounds:
        """Bounds of a partition as of the last refresh."""
        return Bounds.unpack(self._db.get(partition_key(topic.id, partition)))

    def writer(self, worker_id: str) -> Writer:
        """Epoch and positions of a worker as of the last refresh."""
        raw = self._db.get(writer_key(worker_id))
        return Writer() if raw is None else msgspec.msgpack.decode(raw, type=Writer)

    def value(self, key: bytes) -> bytes | None:
        """The value of a key."""
        found: bytes | None = self._db.get(key)
        return found

    def iterator(self) -> Any:
        """A RocksDB iterator over a consistent view."""
        return self._db.iter()

    def release(self) -> None:
        """Close and remove what RocksDB wrote for this reader."""
        self._db.close()
        self._scratch.remove()
