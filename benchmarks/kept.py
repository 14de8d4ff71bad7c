"""Runs that a benchmark has made, so that one that was stopped goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec


class Kept:
    """Runs that were made, in a file of JSON lines: a benchmark that was stopped goes on. None keeps nothing."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._runs: dict[str, dict[str, Any]] = {}
        if file is not None and file.exists():
            for line in file.read_bytes().splitlines(keepends=True):
                if line.endswith(b"\n"):  # not one in the writing of which it was stopped
                    one = json.loads(line)
                    self._runs[one["key"]] = one["run"]
            self._write("w", self._runs)

    def of(self, settings: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The run of these settings, made now if it is not there."""
        key = hashlib.blake2b(msgspec.json.encode(settings), digest_size=16).hexdigest()
        if key not in self._runs:
            self._runs[key] = make()
            self._write("a", {key: self._runs[key]})
        return self._runs[key]

    def _write(self, mode: str, runs: dict[str, dict[str, Any]]) -> None:
        if self._file is not None:
            with self._file.open(mode) as file:
                file.writelines(json.dumps({"key": key, "run": one}) + "\n" for key, one in runs.items())


__all__ = ["Kept"]
