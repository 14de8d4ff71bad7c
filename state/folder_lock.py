"""One process at a time in a state folder."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from state.errors import StateInUse

_FILE = "lock"


def lock_folder(state: Path) -> FileLock:
    """Hold the state folder for this process until `release()`; the system lets go of it when the process dies.

    Raises
    ------
    StateInUse
        Another process holds the folder, or it cannot be written.
    """
    try:
        state.mkdir(parents=True, exist_ok=True)
        # A soft lock (a file that exists) would outlive a killed process.
        lock = FileLock(state / _FILE, blocking=False, thread_local=False, fallback_to_soft=False)
        lock.acquire()
    except Timeout as exc:
        raise StateInUse(
            f"state folder {state}: another process is using it; stop that one, or give --state another folder"
        ) from exc
    except OSError as exc:
        raise StateInUse(
            f"state folder {state}: cannot be written ({exc.strerror}): choose another with --state"
        ) from exc
    return lock
