"""Runs that a benchmark has made, so that one that was stopped goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec


class Kept:
    """Runs that were made, in a file of JSON lines: a benchmark that was stopped goes on. None keeps nothing.

    A run is found again by its settings alone: begin another file with another build.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._runs: dict[str, dict[str, Any]] = {}
        if file is not None:
            with file.open("a+b") as lines:  # where nothing can be written it fails now, not after the first run
                lines.seek(0)
                whole = lines.read()
                end = whole.rfind(b"\n") + 1
                lines.truncate(end)  # without one in the writing of which it was stopped
            for line in whole[:end].splitlines():
                one = json.loads(line)
                self._runs[one["key"]] = one["run"]

    def of(self, settings: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The run of these settings, made now if it is not there."""
        key = hashlib.blake2b(msgspec.json.encode(settings), digest_size=16).hexdigest()
        if key not in self._runs:
            self._runs[key] = make()
            if self._file is not None:
                with self._file.open("a") as file:
                    file.write(json.dumps({"key": key, "run": self._runs[key]}) + "\n")
        return self._runs[key]


__all__ = ["Kept"]
