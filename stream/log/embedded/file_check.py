"""Reads every block of every file of an embedded log, also of data that no reader reaches any more."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rocksdict import Rdict

from stream.log.embedded.folder import explained
from stream.log.embedded.store import database_options


@dataclass(frozen=True, slots=True)
class FileCheck:
    """The number of files that were read, and the names of those in which a block does not match its checksum."""

    files: int
    damaged: list[str]


def check_files(log: Path) -> FileCheck:
    """Read all files of the RocksDB under a log folder; changes nothing in it, needs no lock.

    Iterating over the log would pass over blocks whose records retention has deleted, and a compaction that meets one
    of them later stops the writer. RocksDB's repair reads each file by itself and sets aside those it cannot read. It
    runs on a scratch folder of symbolic links, so what it writes and moves are never the log's own files.
    """
    with explained(log, "read all of its files"), tempfile.TemporaryDirectory(prefix="intentstream-check-") as scratch:
        names = sorted(path.name for path in (log / "db").glob("*.sst"))
        for name in names:
            os.symlink((log / "db" / name).resolve(), Path(scratch, name))
        if names:
            Rdict.repair(scratch, database_options())
        set_aside = Path(scratch, "lost")
        damaged = sorted(path.name for path in set_aside.iterdir()) if set_aside.exists() else []
        there = {path.name for path in (log / "db").glob("*.sst")}  # a compaction may have replaced some meanwhile
        return FileCheck(len(names), [name for name in damaged if name in there])
