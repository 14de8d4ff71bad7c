"""Copies of checkpoints at an fsspec URL, for the day the worker's disk is gone.

`files/<checksum>` holds every file once, however many checkpoints share it, so that a checkpoint transfers only its new
files; `checkpoints/<step>.json`, written after all its files, is the checkpoint's manifest. Nothing that comes back is
trusted: names have a fixed pattern, sizes a bound, the manifest has a checksum and holds one of every file. Every call
has a timeout: a location that hangs (a network share whose server is gone) costs copies, not the loop and not an
orderly stop.
"""

from __future__ import annotations

import posixpath
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from state.errors import StateCorrupted, StorageFull, storage_error
from state.files import file_digest
from state.manifest import MANIFEST_BYTES, Manifest, step_name, step_of

_SUFFIX: Final = ".json"
_PATIENCE_S: Final = 60.0  # base timeout of a call
_SLOWEST: Final = 1_000_000  # minimum transfer rate, bytes per second


class CheckpointLocation:
    """The copies of one worker's checkpoints.

    Parameters
    ----------
    url
        Any fsspec URL, such as `s3://bucket/intentstream/worker-0` or `file:///mnt/share/worker-0`. Access keys come
        from where the protocol's library looks for them, never from the URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._hanging: threading.Thread | None = None
        try:
            import fsspec  # with asyncio, a fifth of what `intentstream status` costs to start

            self._fs, self._root = fsspec.core.url_to_fs(url)
        except Exception as exc:  # each protocol has errors of its own
            raise storage_error("opening the checkpoint location", url, exc) from exc

    def put(self, folder: Path, manifest: Manifest, data: bytes) -> None:
        """Copy a finished checkpoint; `data` is its encoded manifest. Skips files that are there."""
        try:
            there = self._sizes("files")
            self._call(self._fs.makedirs, self._path("files"), exist_ok=True)
            self._call(self._fs.makedirs, self._path("checkpoints"), exist_ok=True)
            for name, entry in sorted(manifest.files.items()):
                if there.get(entry.digest) != entry.size:
                    self._call(
                        self._fs.put_file, str(folder / name), self._path("files", entry.digest), size=entry.size
                    )
            self._call(self._fs.pipe_file, self._path("checkpoints", _file(manifest.step)), data)
        except Exception as exc:
            raise storage_error(f"copying checkpoint {manifest.step}", self.url, exc) from exc

    def prune(self, step: int, keep: int) -> None:
        """Keep the checkpoint of `step` and the newest ones before it, `keep` in all, and the files that they need.

        Checkpoints of later steps are removed: the state went back before them and makes those steps again.
        """
        try:
            needed: set[str] = set()
            kept = 0
            for known in reversed(self.steps()):
                files = self._digests(known) if known <= step and kept < keep else None
                if files is None:
                    self._call(self._fs.rm_file, self._path("checkpoints", _file(known)))
                else:
                    kept += 1
                    needed |= files
            for name in self._sizes("files"):
                if name not in needed:
                    self._call(self._fs.rm_file, self._path("files", name))
        except Exception as exc:
            raise storage_error("removing old checkpoints", self.url, exc) from exc

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there, oldest first."""
        try:
            names = self._sizes("checkpoints")
        except Exception as exc:
            raise storage_error("listing the checkpoints", self.url, exc) from exc
        found = (step_of(name.removesuffix(_SUFFIX)) for name in names if name.endswith(_SUFFIX))
        return sorted(step for step in found if step is not None)

    def manifest(self, step: int) -> tuple[Manifest, bytes]:
        """The manifest of a checkpoint, and its bytes.

        Raises
        ------
        StateCorrupted
            It differs from what was written, names files outside of a checkpoint, or is that of another step.
        StateError
            The location failed.
        """
        path, where = self._path("checkpoints", _file(step)), f"{self.url}/checkpoints/{_file(step)}"
        try:
            data: bytes = self._call(self._fs.cat_file, path, start=0, end=MANIFEST_BYTES + 1)
        except Exception as exc:
            raise storage_error(f"reading the manifest of checkpoint {step}", self.url, exc) from exc
        if len(data) > MANIFEST_BYTES:
            raise StateCorrupted(f"checkpoint {where}: the manifest has more than {MANIFEST_BYTES} bytes")
        manifest = Manifest.decode(data, where)
        if manifest.step != step:
            raise StateCorrupted(f"checkpoint {where}: the manifest is that of step {manifest.step}")
        return manifest, data

    def get(self, manifest: Manifest, folder: Path) -> None:
        """Fetch the files of a checkpoint into an empty folder, after a look at their sizes.

        Raises
        ------
        StateCorrupted
            A file is missing or differs from what was written.
        StateError
            The location or the disk failed, or the files do not fit on the disk.
        """
        try:
            there = self._sizes("files")
            free = shutil.disk_usage(folder).free
        except Exception as exc:
            raise storage_error(f"fetching checkpoint {manifest.step}", self.url, exc) from exc
        for name, entry in manifest.files.items():
            if there.get(entry.digest) != entry.size:
                raise StateCorrupted(f"checkpoint {manifest.step} in {self.url}: {name} is missing, or of another size")
        needed = sum(entry.size for entry in manifest.files.values())
        if needed > free:
            raise StorageFull(f"checkpoint {manifest.step} in {self.url} has {needed} bytes, {folder} has {free} free")
        for name, entry in sorted(manifest.files.items()):
            target = folder / name
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                self._call(self._fs.get_file, self._path("files", entry.digest), str(target), size=entry.size)
            except FileNotFoundError as exc:
                raise StateCorrupted(f"checkpoint {manifest.step} in {self.url}: {name} is missing") from exc
            except Exception as exc:
                raise storage_error(f"fetching checkpoint {manifest.step}", self.url, exc) from exc
            if target.stat().st_size != entry.size or file_digest(target) != entry.digest:
                raise StateCorrupted(f"checkpoint {manifest.step} in {self.url}: the checksum of {name} does not fit")

    def _digests(self, step: int) -> set[str] | None:
        """Checksums of a checkpoint's files; None when its manifest is corrupt."""
        try:
            return {entry.digest for entry in self.manifest(step)[0].files.values()}
        except StateCorrupted:
            return None

    def _sizes(self, kind: str) -> dict[str, int]:
        self._fs.invalidate_cache()
        try:
            found: list[dict[str, Any]] = self._call(self._fs.ls, self._path(kind), detail=True)
        except FileNotFoundError:
            return {}
        return {posixpath.basename(entry["name"]): entry["size"] for entry in found if entry["type"] == "file"}

    def _call(self, call: Callable[..., Any], *arguments: Any, size: int = 0, **settings: Any) -> Any:
        """Call the file system, which may hang: `TimeoutError` then, and at once in later calls until that call
        returns; its thread does not keep the process from ending.
        """
        if self._hanging is not None and self._hanging.is_alive():
            raise TimeoutError("a call to it has not come back yet")
        results: list[Any] = []
        failures: list[BaseException] = []

        def run() -> None:
            try:
                results.append(call(*arguments, **settings))
            except BaseException as exc:
                failures.append(exc)

        thread = threading.Thread(target=run, name="checkpoint-location", daemon=True)
        thread.start()
        limit = _PATIENCE_S + size / _SLOWEST
        thread.join(limit)
        if failures:
            raise failures[0]
        if not results:
            self._hanging = thread
            raise TimeoutError(f"no answer within {limit:.0f} s")
        return results[0]

    def _path(self, *parts: str) -> str:
        return posixpath.join(self._root, *parts)


def _file(step: int) -> str:
    return step_name(step) + _SUFFIX
