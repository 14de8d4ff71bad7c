"""What a command settles before it starts to work: signals, files that it will write."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from stream.errors import SourceError


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


__all__ = ["refuse_unwritable", "stop_on_signals"]
