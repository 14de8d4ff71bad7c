"""Secrets: the configuration names an environment variable or a file, and never holds them."""

from __future__ import annotations

import os
from pathlib import Path

from stream.errors import ConfigError


def read_secret(key: str, variable: str, path: str) -> str:
    """The secret in an environment variable or, where none is named, in a file, without the line break at its end.

    Parameters
    ----------
    key
        The setting's name without `_env` and `_file`, for the message.

    Raises
    ------
    ConfigError
        There is no such variable, or it is empty; the file cannot be read.
    """
    if variable:
        value = os.environ.get(variable)
        if not value:
            raise ConfigError(f"{key}_env = {variable!r}: there is no such environment variable, or it is empty")
        return value
    try:
        return Path(path).read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
        raise ConfigError(f"{key}_file = {path!r}: cannot be read: {reason}") from None


__all__ = ["read_secret"]
