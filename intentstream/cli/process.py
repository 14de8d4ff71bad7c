"""What a command settles before it starts to work: signals, files that it will write."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import FrameType

from intentstream.config import Config
from stream.errors import ConfigError, SourceError
from stream.mapping.config import EventsConfig


def stop_on_signals() -> Callable[[], bool]:
    """Return a function that turns true after SIGINT or SIGTERM; a second signal ends the process at once."""
    stopping = False

    def handle(signum: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            raise SystemExit(130)
        stopping = True

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    return lambda: stopping


def refuse_unwritable(path: Path | None) -> None:
    """Check before the work that its result can be written.

    Raises
    ------
    SourceError
        The file cannot be written.
    """
    if path is None:
        return
    try:
        new = not path.exists()
        path.open("ab").close()
        if new:
            path.unlink()
    except OSError as exc:
        raise SourceError(f"{path}: cannot be written: {exc.strerror}: give another file") from exc


def refuse_overwriting(outputs: Mapping[str, Path | None], inputs: Iterable[Path | None]) -> None:
    """Check that no result takes the place of a file that the command reads, or of another result.

    Parameters
    ----------
    outputs
        The files that the command writes, by option.
    inputs
        The files that it reads.

    Raises
    ------
    SourceError
        Two of them are one file. Devices and pipes are none.
    """
    taken = {_identity(path): "the command reads it" for path in inputs if path is not None and _is_file(path)}
    for option, path in outputs.items():
        if path is None or not _is_file(path):
            continue
        reason = taken.setdefault(_identity(path), f"{option} writes it")
        if reason != f"{option} writes it":
            raise SourceError(f"{option} {path}: {reason}: give another file")


def _is_file(path: Path) -> bool:
    return path.is_file() or not path.exists()


def _identity(path: Path) -> object:
    """What two names of one file have in common."""
    try:
        found = path.stat()
    except OSError:
        return path.resolve()
    return found.st_dev, found.st_ino


def refuse_mapping(config: Config) -> None:
    """Raise `ConfigError` when `[events]` says anything: the simulated shop writes our own form to our own topic."""
    if config.events != EventsConfig():
        raise ConfigError(
            "the simulated shop writes events in our own form to behavior-events: leave the section [events] out"
        )


__all__ = ["refuse_mapping", "refuse_overwriting", "refuse_unwritable", "stop_on_signals"]
