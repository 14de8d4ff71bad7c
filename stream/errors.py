"""Errors of stream/, one root.

StreamError
├── ConfigError      the configuration file or an option: which key, what it says, the rule
├── SourceError      a file to replay cannot be read as events
├── StateMismatch    a checkpoint was made with settings that this configuration contradicts
├── JournalError     the journal or the input it names is not all there, or says otherwise
├── DeadLetterError  there is no such dead letter
├── SchemasUnavailable  the schema registry does not answer; asked again later
└── EngineError      anything else the engine refuses
"""

from __future__ import annotations

from typing import ClassVar


class StreamError(Exception):
    """Root of every error that stream/ raises on purpose; the message says what to do."""

    retriable: ClassVar[bool] = False


class ConfigError(StreamError):
    """The configuration is not valid: file, key, value, rule."""


class SourceError(StreamError):
    """A file cannot be read as events: no such file, no such column, nothing in it."""


class StateMismatch(StreamError):
    """The state folder was made with other settings: set them back or use another folder."""


class JournalError(StreamError):
    """The journal cannot be replayed: entries or input are missing, or the outcome differs."""


class DeadLetterError(StreamError):
    """There is no dead letter at the place that was named."""


class SchemasUnavailable(StreamError):
    """The schema registry does not answer: the records that need it wait."""

    retriable = True


class EngineError(StreamError):
    """The engine cannot do what was requested; the message says what to do instead."""
