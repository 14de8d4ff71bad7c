"""Durable files and folders: checksums, fsync, atomic writes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_DIGEST_BYTES: Final = 16
_SAMPLE_BYTES: Final = 64 * 1024
_PART: Final = ".part"


def tree_files(folder: Path) -> Iterator[Path]:
    """All files below a folder, in the order of their relative paths."""
    yield from sorted(path for path in folder.rglob("*") if path.is_file())


def file_digest(path: Path) -> str:
    """BLAKE2b of a whole file, 32 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, _blake2b).hexdigest()


def edges_digest(path: Path) -> str:
    """BLAKE2b of a file's size, beginning and end: the check of files too large to read at every start."""
    size = path.stat().st_size
    digest = _blake2b()
    digest.update(b"%d " % size)
    with path.open("rb") as file:
        digest.update(file.read(_SAMPLE_BYTES))
        if size > _SAMPLE_BYTES:
            file.seek(max(_SAMPLE_BYTES, size - _SAMPLE_BYTES))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def fsync_path(path: Path) -> None:
    """Make a file's bytes, or a folder's names, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(folder: Path) -> None:
    """Make everything below a folder durable, the folder itself last."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            fsync_path(Path(parent, name))
        fsync_path(Path(parent))


def write_durably(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; a crash leaves the file of before, or the new one."""
    part = path.with_name(path.name + _PART)
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    fsync_path(path.parent)


def publish_folder(part: Path, target: Path) -> None:
    """Give a complete folder its final name, which must be free, durably; both names have the same parent."""
    fsync_tree(part)
    os.rename(part, target)
    fsync_path(target.parent)


def _blake2b() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=_DIGEST_BYTES)
