"""What a consumer of kafka-python brought, as columns; by the public API here, the fast path overrides it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stream.log.columns import RecordColumns


@dataclass(slots=True)
class FetchedColumns(RecordColumns):
    """Fetched records of one partition; `error`: what comes after them cannot be read."""

    error: Exception | None = None


class RecordDecoder:
    """Turns what the consumer's `poll` returns for a partition into columns."""

    def __init__(self, consumer: Any) -> None:
        """Prepare the consumer; the public way needs nothing."""

    def columns(self, records: Sequence[Any]) -> FetchedColumns:
        """The records of one partition as columns; a header without a value has an empty one."""
        return FetchedColumns(
            [r.offset for r in records],
            [r.key for r in records],
            [r.value for r in records],
            [r.timestamp or 0 for r in records],
            [tuple((name, value or b"") for name, value in r.headers) for r in records],
        )
