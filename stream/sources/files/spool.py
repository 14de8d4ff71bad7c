"""A copy on disk of what can be read only once: standard input and pipes."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

from stream.errors import SourceError


def spool(path: Path) -> tuple[Path, IO[Any] | None]:
    """Return where the content of `path` lies, and the copy that goes when it is closed or forgotten.

    Raises
    ------
    SourceError
        The pipe cannot be read, or there is no room for the copy.
    """
    standard_input = str(path) == "-"
    if not standard_input and not (path.is_fifo() or path.is_char_device()):
        return path, None
    copy = tempfile.NamedTemporaryFile(prefix="intentstream-")
    try:
        if standard_input:
            shutil.copyfileobj(sys.stdin.buffer, copy)
        else:
            with path.open("rb") as pipe:
                shutil.copyfileobj(pipe, copy)
        copy.flush()
    except OSError as exc:
        copy.close()
        raise SourceError(f"{path}: cannot be copied to {tempfile.gettempdir()}: {exc.strerror}") from exc
    return Path(copy.name), copy


__all__ = ["spool"]
