"""Checkpoints: atomic snapshots of everything after one step.

A checkpoint is made in two halves, of which only the first one holds the loop:

1. `begin`: a folder `<step>.partial`; `save` copies everything that the loop changes, in memory or into it;
2. `PendingCheckpoint.finish`, in any thread, writes the rest;
3. checksums of all files, everything fsynced;
4. `manifest.json` written and fsynced;
5. the folder renamed to `<step>`, the parent fsynced;
6. older checkpoints removed;
7. the checkpoint copied to the shared location.

A crash before 5 leaves a `.partial` folder, which the next start deletes: the checkpoint before it and a longer replay
serve. A crash after 5 leaves a good checkpoint, at most one too many, and the next checkpoint brings the location up to
date.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from state.checkpoint_location import CheckpointLocation
from state.errors import CheckpointInProgress, StateCorrupted, StateError, storage_error
from state.files import fsync_tree, publish_folder, write_durably
from state.manifest import MANIFEST, FileEntry, Manifest, check_files, identity, list_files, step_name, step_of

logger = logging.getLogger(__name__)

_PARTIAL: Final = ".partial"
_REMOVED: Final = ".removed"
# A start reads so much in full, half a second's work; RocksDB's own checksums guard every block that is read later.
FULL_CHECK_BYTES: Final = 512 * 1024 * 1024

Later = Callable[[], None]
Save = Callable[[Path], Later | None]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A finished checkpoint: the step after which it was made, its folder, and the caller's values in its manifest."""

    step: int
    path: Path
    manifest: dict[str, Any]


class CheckpointStore:
    """The checkpoints of one worker.

    Parameters
    ----------
    root
        Folder of the checkpoints; made when missing.
    keep
        How many of the newest finished checkpoints stay, at least 1.
    location
        fsspec URL to which every finished checkpoint is copied and from which the newest is fetched when `root` has
        none; None = nowhere. One location belongs to one worker.
    """

    def __init__(self, root: Path, keep: int = 3, location: str | None = None) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep!r}")
        self.root = Path(root)
        self.keep = keep
        self.location = CheckpointLocation(location) if location else None
        self.copied_step: int | None = None  # newest checkpoint known to be at the location
        self._pending: PendingCheckpoint | None = None
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise storage_error("making the folder of the checkpoints", self.root, exc) from exc

    def write(self, step: int, manifest: dict[str, Any], save: Save) -> Path:
        """Make a checkpoint from begin to end; returns its folder."""
        return self.begin(step, manifest, save).finish()

    def begin(self, step: int, manifest: dict[str, Any], save: Save) -> PendingCheckpoint:
        """First half of a checkpoint, during which nothing may change.

        Parameters
        ----------
        step
            The step after which this is.
        manifest
            The caller's values for a restart; JSON.
        save
            Called with an empty folder. It writes the cheap part (hard links) and returns None, or a function that
            writes the rest from copies of its own, which `finish` calls.

        Raises
        ------
        CheckpointInProgress
            The checkpoint before this one was not finished.
        StateError
            The folder cannot be written; nothing of the checkpoint remains.
        """
        if self._pending is not None and not self._pending.done:
            raise CheckpointInProgress(
                f"checkpoint {step} in {self.root} begun while checkpoint {self._pending.step} was not finished"
            )
        folder = self.root / (step_name(step) + _PARTIAL)
        try:
            _remove(folder)
            folder.mkdir(parents=True)
            later = save(folder)
        except Exception as exc:
            _abandon(folder)
            if isinstance(exc, OSError):
                raise storage_error(f"beginning checkpoint {step}", folder, exc) from exc
            raise
        self._pending = PendingCheckpoint(self, step, manifest, folder, later)
        return self._pending

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint whose files pass their checksums, or None. Removes leftovers of crashes.

        Looks at the location only when the folder has no such checkpoint: local checkpoints go before copies.

        Raises
        ------
        CheckpointFormatUnknown
            A newer version wrote the newest checkpoint; an older one does not silently replace it.
        StateError
            The folder or the location cannot be read.
        """
        spoilt = 0
        try:
            self._remove_leftovers()
            for folder in reversed(self._folders()):
                try:
                    return self.open(folder)
                except StateCorrupted as exc:
                    logger.warning("checkpoint skipped, trying the one before it: %s", exc)
                    spoilt += 1
            for step in reversed(self.location.steps() if self.location else []):
                try:
                    return self._fetch(step)
                except StateCorrupted as exc:
                    logger.warning("copied checkpoint skipped, trying the one before it: %s", exc)
                    spoilt += 1
        except OSError as exc:
            raise storage_error("looking for the newest checkpoint", self.root, exc) from exc
        if spoilt:
            logger.error(
                "no checkpoint in %s is usable: the state is built from the beginning of the journal", self.root
            )
        return None

    def peek(self, *, oldest: bool = False, before: int | None = None) -> Checkpoint | None:
        """The newest (or oldest) valid checkpoint in `root`, of a step `before` this one if given. It changes nothing,
        so that a reader may call it beside a running worker.
        """
        for folder in self._folders() if oldest else reversed(self._folders()):
            if before is not None and int(folder.name) >= before:
                continue
            try:
                return self.open(folder)
            except StateCorrupted as exc:
                logger.warning("checkpoint skipped: %s", exc)
        return None

    def open(self, folder: Path, full_bytes: int = FULL_CHECK_BYTES) -> Checkpoint:
        """Check one checkpoint against its manifest.

        Parameters
        ----------
        folder
            The checkpoint.
        full_bytes
            Files are read in full up to so many bytes, see `check_files`.

        Raises
        ------
        StateCorrupted
            A file differs from the manifest.
        CheckpointFormatUnknown
            A newer version wrote it.
        StateError
            It cannot be read.
        """
        try:
            manifest = _read_manifest(folder)
            check_files(folder, manifest.files, full_bytes)
        except OSError as exc:
            if exc.errno in (errno.ENOENT, errno.EIO):  # removed beside a reader; a bad sector
                raise StateCorrupted(f"checkpoint {folder}: {exc}") from exc
            raise storage_error("reading a checkpoint", folder, exc) from exc
        return Checkpoint(manifest.step, folder, manifest.values)

    def drop_after(self, step: int) -> None:
        """Remove the checkpoints of later steps, here and at the location."""
        try:
            for folder in self._folders():
                if int(folder.name) > step:
                    logger.warning("removing checkpoint %s: it is after step %d", folder, step)
                    _remove(folder)
        except OSError as exc:
            raise storage_error("removing checkpoints", self.root, exc) from exc
        if self.location is not None:
            self.location.prune(step, self.keep)

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints in `root`, oldest first; not checked."""
        return [int(folder.name) for folder in self._folders()]

    def publish(self, step: int, manifest: dict[str, Any], folder: Path) -> Path:
        """Second half of a checkpoint, from the checksums on; `PendingCheckpoint.finish` calls it."""
        target = self.root / step_name(step)
        content = Manifest(step, manifest, list_files(folder, self._known_files()))
        self._publish(folder, target, content.encode())
        self._prune(step)
        self._copy(target, content)
        return target

    def _publish(self, folder: Path, target: Path, manifest: bytes) -> None:
        fsync_tree(folder)  # before the manifest, which says that all of this is there
        write_durably(folder / MANIFEST, manifest)
        _remove(target)  # a corrupt one of this step, or the same step taken again: replaced as a whole
        publish_folder(folder, target)

    def _copy(self, folder: Path, manifest: Manifest) -> None:
        """Copy a finished checkpoint to the location. A failed copy leaves the checkpoint good: the next one copies
        everything again.
        """
        if self.location is None:
            return
        try:
            self.location.put(folder, manifest, manifest.encode())
            self.copied_step = manifest.step
            self.location.prune(manifest.step, self.keep)
        except StateError as exc:
            logger.error(
                "checkpoint %d is good here, but not at the checkpoint location; tried again at the next: %s",
                manifest.step,
                exc,
            )

    def _fetch(self, step: int) -> Checkpoint:
        assert self.location is not None
        manifest, data = self.location.manifest(step)
        folder = self.root / (step_name(step) + _PARTIAL)
        try:
            folder.mkdir(parents=True)
            self.location.get(manifest, folder)
            target = self.root / step_name(step)
            self._publish(folder, target, data)
        except BaseException:
            _abandon(folder)
            raise
        self.copied_step = step
        logger.info("checkpoint %d fetched from %s", step, self.location.url)
        return Checkpoint(step, target, manifest.values)

    def _folders(self) -> list[Path]:
        return sorted(path for path in self.root.iterdir() if step_of(path.name) is not None and path.is_dir())

    def _known_files(self) -> dict[tuple[int, int, int], FileEntry]:
        known: dict[tuple[int, int, int], FileEntry] = {}
        for folder in self._folders():
            try:
                manifest = _read_manifest(folder)
                known |= {
                    identity(folder / name): entry for name, entry in manifest.files.items() if name.endswith(".sst")
                }
            except (StateError, OSError):
                continue  # a corrupt checkpoint has no checksums to reuse
        return known

    def _prune(self, step: int) -> None:
        """Keep the newest up to `step`. A later one was corrupt, so that the state went back before it."""
        kept = [folder for folder in self._folders() if int(folder.name) <= step][-self.keep :]
        for folder in self._folders():
            if folder not in kept:
                _remove(folder)

    def _remove_leftovers(self) -> None:
        for path in sorted(self.root.iterdir()):
            if path.name.endswith((_PARTIAL, _REMOVED)):
                logger.info("removing the leftover of a crash: %s", path)
                _delete(path)


class PendingCheckpoint:
    """A checkpoint whose first half is done."""

    def __init__(
        self, store: CheckpointStore, step: int, manifest: dict[str, Any], folder: Path, later: Later | None
    ) -> None:
        self.step = step
        self.done = False
        self._store = store
        self._manifest = manifest
        self._folder = folder
        self._later = later

    def finish(self) -> Path:
        """Write the rest and publish the checkpoint; returns its folder. Call it once, from any thread.

        Raises
        ------
        StateError
            The checkpoint could not be written; nothing of it remains, the older ones are untouched.
        """
        try:
            later, self._later = self._later, None
            if later is not None:
                later()
            del later  # with the copies that it wrote, before all files are read for their checksums
            return self._store.publish(self.step, self._manifest, self._folder)
        except OSError as exc:
            _abandon(self._folder)
            raise storage_error(f"finishing checkpoint {self.step}", self._folder, exc) from exc
        except Exception:
            _abandon(self._folder)
            raise
        finally:
            self.done = True


def _read_manifest(folder: Path) -> Manifest:
    try:
        data = (folder / MANIFEST).read_bytes()
    except FileNotFoundError as exc:
        raise StateCorrupted(f"checkpoint {folder}: there is no {MANIFEST}") from exc
    manifest = Manifest.decode(data, folder)
    if manifest.step != int(folder.name):
        raise StateCorrupted(f"checkpoint {folder}: the manifest is that of step {manifest.step}")
    return manifest


def _remove(folder: Path) -> None:
    """Remove a folder; a finished checkpoint is renamed first, so that a crash never leaves half of one."""
    if not os.path.lexists(folder):
        return
    if not folder.name.endswith(_PARTIAL):
        gone = folder.with_name(folder.name + _REMOVED)
        if os.path.lexists(gone):
            _delete(gone)
        folder = folder.rename(gone)
    _delete(folder)


def _delete(path: Path) -> None:
    """Delete a folder, or a link or file that has the name of one; never what a link points to."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        shutil.rmtree(path)


def _abandon(folder: Path) -> None:
    """Remove an unfinished checkpoint as far as possible; the next start removes the rest."""
    shutil.rmtree(folder, ignore_errors=True)
