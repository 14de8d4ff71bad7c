"""The state folder that a replay keeps and a later one continues."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from state.checkpoints import CheckpointStore
from state.errors import storage_error
from state.files import write_durably
from state.folder_lock import lock_folder
from stream.config import StreamConfig
from stream.engine.engine import Engine
from stream.engine.init_model import kept_model
from stream.errors import SourceError
from stream.log.base import RecordBatch
from stream.mapping.config import EventsConfig
from stream.sources.item_metadata import Titles

ConfigT = TypeVar("ConfigT", bound=StreamConfig)
_MARK: Final = "replay.json"
DAY_MS: Final = 24 * 3600 * 1000


class _Mark(msgspec.Struct, kw_only=True):
    """The content of `replay.json`, which marks the folder as a replay's."""

    step_records: int
    hashes: dict[int, str]  # number of records -> hash of so many of the file, for every checkpoint
    history_ttl_ms: int = 0


class ReplayFolder:
    """The folder, locked by one process at a time, with hashes of the records in its checkpoints.

    The mark is written before the checkpoint, so that a crash leaves no checkpoint without its hash. The
    hashes are of records, not of the file's bytes: a file may have grown, or have been compressed since.

    Raises
    ------
    SourceError
        The folder belongs to a worker, or to a replay with other steps or another `history_ttl_ms`.
    StateInUse
        Another process uses it, or it cannot be written.
    StateError
        The mark cannot be written.
    """

    def __init__(self, state: Path, step_records: int, keep_checkpoints: int, history_ttl_ms: int = 0) -> None:
        self._state = state
        self._step_records = step_records
        self._keep_checkpoints = keep_checkpoints
        self._checkpoint_step = 0  # of the newest checkpoint
        self._done = 0  # records in the checkpoint that this run continues from
        self._mark = _Mark(step_records=step_records, hashes={}, history_ttl_ms=history_ttl_ms)
        self._hash = hashlib.blake2b(digest_size=16)
        self._read = 0  # records in the hash
        if os.path.exists(state / "checkpoints") and not is_replay(state):
            raise SourceError(f"{state}: belongs to a worker: give --state another folder")
        self._lock = lock_folder(state)
        try:
            self._claim()
        except BaseException:
            self._lock.release()
            raise

    def open(self, config: StreamConfig, titles: Titles | None, init: Path | None) -> Engine:
        """Continue from the newest checkpoint after whole steps: one after a short step would shift all steps that
        follow.
        """
        engine = Engine.open(config, self._state, titles, init=init)
        # later checkpoints stay until the next one is taken: the file may turn out to be another one
        checkpoints = CheckpointStore(
            self._state / "checkpoints", self._keep_checkpoints, config.state.checkpoint_location or None
        )
        while engine.positions[0] % self._step_records:
            engine.close()
            checkpoint = checkpoints.peek(before=engine.step_number)
            engine = Engine(config, self._state, checkpoints, checkpoint, titles, kept_model(self._state) or init)
        engine.keep_init()
        self._checkpoint_step, self._done = engine.step_number, engine.positions[0]
        self._mark.hashes = {n: known for n, known in self._mark.hashes.items() if n <= self._done}
        return engine

    def compare(self, batch: RecordBatch, engine: Engine) -> None:
        """Compare the file's next records with those in the checkpoint; called for every batch, before its step.

        Raises
        ------
        SourceError
            The checkpoint holds other records.
        """
        if len(batch) < self._step_records and batch.next_offset > self._done:
            self.checkpoint(engine)  # a run with more records continues here
        self._hash.update(b"".join(b"%s\n" % value for value in batch.values))
        self._read = batch.next_offset
        if self._read == self._done and self._mark.hashes.get(self._done) != self._hash.hexdigest():
            raise self._other()

    def checkpoint(self, engine: Engine) -> None:
        """Take a checkpoint, unless this step has one."""
        if self._read < self._done:
            raise self._other()
        if engine.step_number == self._checkpoint_step:
            return
        older = sorted(self._mark.hashes)[-self._keep_checkpoints :]
        self._mark.hashes = {n: self._mark.hashes[n] for n in older} | {self._read: self._hash.hexdigest()}
        self._write()
        engine.checkpoint()
        self._checkpoint_step = engine.step_number

    def close(self) -> None:
        """Unlock the folder."""
        self._lock.release()

    def _other(self) -> SourceError:
        return SourceError(
            f"{self._state}: holds {self._done} records of another file, or of this one before it was changed: "
            "give --state another folder"
        )

    def _claim(self) -> None:
        path = self._state / _MARK
        if not path.exists():
            self._write()
            return
        try:
            mark = _read_mark(self._state)
        except msgspec.DecodeError as exc:
            raise SourceError(
                f"{path}: is damaged, or of an earlier version ({exc}): give --state another folder"
            ) from exc
        except OSError as exc:
            raise storage_error("reading the mark of a replay", path, exc) from exc
        if mark.step_records != self._step_records:
            raise SourceError(
                f"{self._state}: holds a replay in steps of {mark.step_records} records, not {self._step_records}: "
                f"give --step-records {mark.step_records}, or --state another folder"
            )
        if mark.history_ttl_ms != self._mark.history_ttl_ms:
            given = f"give --ttl {mark.history_ttl_ms / DAY_MS:g}" if mark.history_ttl_ms else "leave --ttl out"
            raise SourceError(f"{self._state}: holds a replay with another --ttl: {given}, or --state another folder")
        self._mark = mark

    def _write(self) -> None:
        """Write the mark, atomically."""
        path = self._state / _MARK
        try:
            write_durably(path, msgspec.json.encode(self._mark))
        except OSError as exc:
            raise storage_error("writing the mark of a replay", path, exc) from exc


def configure_replay(config: ConfigT, history_ttl_ms: int = 0) -> ConfigT:
    """The configuration of a replay: one partition, since a file has one order, and nobody forgotten by default.

    `state.history_ttl_ms` of the configuration is that of a live stream: a file may span years, and the histories that
    it forgets on the way would be missing from the accuracy. The records of a file come in our own form: its reader
    knows what `[events]` says.
    """
    return msgspec.structs.replace(
        config,
        log=msgspec.structs.replace(config.log, partitions=1),
        events=EventsConfig(),
        state=msgspec.structs.replace(config.state, history_ttl_ms=history_ttl_ms),
    )


def replay_config(config: ConfigT, state: Path) -> ConfigT:
    """The configuration for reading a state folder, whether a worker's or a replay's."""
    if not is_replay(state):
        return config
    try:
        return configure_replay(config, _read_mark(state).history_ttl_ms)
    except (OSError, msgspec.DecodeError):  # the next replay says what is wrong with it
        return configure_replay(config)


def _read_mark(state: Path) -> _Mark:
    return msgspec.json.decode((state / _MARK).read_bytes(), type=_Mark)


def is_replay(state: Path) -> bool:
    """Whether this is the state folder of a replay; false also for one that cannot be read."""
    return os.path.exists(state / _MARK)


__all__ = ["DAY_MS", "ReplayFolder", "configure_replay", "is_replay", "replay_config"]
