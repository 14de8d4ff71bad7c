"""Bytes of a record into objects: JSON here, the binary formats where their libraries are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from stream.schema.events import Reason


class UnreadableRecord(ValueError):
    """The bytes of a record are not what the format says; it becomes a dead letter."""

    def __init__(self, reason: Reason, value: str | bytes, rule: str) -> None:
        super().__init__(rule)
        self.reason, self.value, self.rule = reason, value, rule


class RecordReader(Protocol):
    """Reads the records of one format."""

    def prepare(self, values: Iterable[bytes | None]) -> None:
        """Fetch what reading these records needs.

        Raises
        ------
        SchemasUnavailable
            It cannot be had now; the records are not lost by asking again later.
        """

    def read(self, value: bytes) -> Any:
        """Return the record as Python objects: dicts, lists, text, numbers, datetimes.

        The same bytes give the same objects whenever they are read, after a restart too.

        Raises
        ------
        UnreadableRecord
            The bytes are none of this format.
        """


__all__ = ["RecordReader", "UnreadableRecord"]
