"""The exceptions of learner/.

LearnerError
├── DataError           a data file cannot be read or parsed; the message names file and line
├── LearnerStateError   a saved learner does not fit this configuration, version or file
└── ModelFileError      a model file cannot be read, or does not fit
"""

from __future__ import annotations

from typing import ClassVar


class LearnerError(Exception):
    """Root of every error that learner/ raises on purpose."""

    retriable: ClassVar[bool] = False


class DataError(LearnerError):
    """A data file cannot be read, or is not `user item item ...`; the message names file, line and rule."""


class LearnerStateError(LearnerError):
    """A saved learner cannot be continued: use the version and configuration that wrote it, or start empty."""


class ModelFileError(LearnerError):
    """A model file cannot be read, or does not fit; the message names the file and what it holds."""


__all__ = ["DataError", "LearnerError", "LearnerStateError", "ModelFileError"]
