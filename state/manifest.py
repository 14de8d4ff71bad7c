"""The manifest of a checkpoint: format, the caller's values, every file with size and checksums, and its own
checksum.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from state.errors import CheckpointFormatUnknown, StateCorrupted
from state.files import edges_digest, file_digest, tree_files

CHECKPOINT_FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
MANIFEST_BYTES: Final = 64 * 1024 * 1024  # a larger one is not read
_MAX_FILES: Final = 100_000
_MAX_FILE_BYTES: Final = 1 << 50
# Names from a manifest become paths: relative, at most four folders deep, no part that begins with a dot.
_FILE_NAME: Final = re.compile(
    r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}/){0,4}[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", re.ASCII
)
_DIGEST: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_STEP_DIGITS: Final = 12
_STEPS_END: Final = 10**18  # steps have up to 18 digits, see `_STEP`
_STEP: Final = re.compile(r"[0-9]{12,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a checkpoint: size in bytes, BLAKE2b of all of it, and of its size and edges."""

    size: int
    digest: str
    edges: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `manifest.json` says: the step, the caller's values, and the files by relative path."""

    step: int
    values: dict[str, Any]
    files: dict[str, FileEntry]

    def encode(self) -> bytes:
        """JSON, with a checksum over the body."""
        files = {name: [entry.size, entry.digest, entry.edges] for name, entry in sorted(self.files.items())}
        body = {"step": self.step, "values": self.values, "files": files}
        return _dump({"format": CHECKPOINT_FORMAT, "checksum": _checksum(body), "body": body}) + b"\n"

    @classmethod
    def decode(cls, data: bytes, where: Path | str) -> Manifest:
        """Read what `encode` wrote.

        Raises
        ------
        CheckpointFormatUnknown
            A newer version wrote it.
        StateCorrupted
            It is not what was written.
        """
        try:
            document = json.loads(data)
            found = document["format"]
            if type(found) is int and found > CHECKPOINT_FORMAT:
                raise CheckpointFormatUnknown(
                    f"checkpoint {where} has format {found}, this version reads up to {CHECKPOINT_FORMAT}: "
                    "run the version that wrote it, or start from another state folder"
                )
            body = document["body"]
            if found != CHECKPOINT_FORMAT or document["checksum"] != _checksum(body):
                raise StateCorrupted(f"checkpoint {where}: the manifest's checksum does not fit")
            if type(body["step"]) is not int or not 0 <= body["step"] < _STEPS_END:
                raise StateCorrupted(f"checkpoint {where}: the manifest has step {body['step']!r:.40}: refused")
            if len(body["files"]) > _MAX_FILES or not isinstance(body["values"], dict):
                raise StateCorrupted(f"checkpoint {where}: the manifest has no values, or too many files")
            files = {name: _file_entry(name, entry, where) for name, entry in body["files"].items()}
            return cls(body["step"], body["values"], files)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise StateCorrupted(f"checkpoint {where}: the manifest is not readable: {exc}") from exc


def step_name(step: int) -> str:
    """Name of a step's checkpoint, such that names sort as steps."""
    return f"{step:0{_STEP_DIGITS}d}"


def step_of(name: str) -> int | None:
    """The step in a checkpoint's name; None for any other name."""
    return int(name) if _STEP.fullmatch(name) else None


def _file_entry(name: str, entry: list[Any], where: Path | str) -> FileEntry:
    """One file of a manifest, which may come from anywhere: its name and checksum become paths."""
    size, digest, edges = entry
    well_formed = (
        _FILE_NAME.fullmatch(name)
        and name != MANIFEST
        and type(size) is int
        and 0 <= size <= _MAX_FILE_BYTES
        and _DIGEST.fullmatch(digest)
        and _DIGEST.fullmatch(edges)
    )
    if not well_formed:
        raise StateCorrupted(
            f"checkpoint {where}: the manifest has a file {name!r:.120} of {size!r:.40} bytes: refused"
        )
    return FileEntry(size, digest, edges)


def list_files(folder: Path, known: dict[tuple[int, int, int], FileEntry]) -> dict[str, FileEntry]:
    """Size and checksums of all files of an unfinished checkpoint.

    known
        Entries of earlier checkpoints' data files by `identity`: files that RocksDB never writes again and that are
        hard links to those of the checkpoint before need not be read again.
    """
    entries = {}
    for path in tree_files(folder):
        entry = known.get(identity(path)) if path.suffix == ".sst" else None
        if entry is None:
            entry = FileEntry(path.stat().st_size, file_digest(path), edges_digest(path))
        entries[path.relative_to(folder).as_posix()] = entry
    return entries


def identity(path: Path) -> tuple[int, int, int]:
    """What two names of the same unchanged file have in common: inode, size and time of the last write."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def check_files(folder: Path, files: dict[str, FileEntry], full_bytes: int) -> None:
    """Compare a checkpoint's files with its manifest.

    full_bytes
        Files are read in full, smallest first, up to so many bytes in all; of the others size and edges are compared.

    Raises
    ------
    StateCorrupted
        A file is missing, one too many, or not what was written.
    """
    found = {path.relative_to(folder).as_posix() for path in tree_files(folder)} - {MANIFEST}
    if found != files.keys():
        odd = sorted(found ^ files.keys())
        raise StateCorrupted(f"checkpoint {folder}: {len(odd)} files are missing or too many, {odd[0]!r} the first")
    budget = full_bytes
    for name, entry in sorted(files.items(), key=lambda pair: (pair[1].size, pair[0])):
        path = folder / name
        size = path.stat().st_size
        if size != entry.size:
            raise StateCorrupted(f"checkpoint {folder}: {name} has {size} bytes, {entry.size} were written")
        budget -= size
        good = file_digest(path) == entry.digest if budget >= 0 else edges_digest(path) == entry.edges
        if not good:
            raise StateCorrupted(f"checkpoint {folder}: the checksum of {name} does not fit")


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.blake2b(_dump(body), digest_size=16).hexdigest()


def _dump(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
