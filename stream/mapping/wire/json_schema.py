"""JSON behind a frame. Its schema is not needed: the mapping judges the fields that it reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from stream.mapping.reader import UnreadableRecord

_decode = msgspec.json.Decoder().decode


class FramedJson:
    """Reads JSON behind a frame."""

    needs_schemas = False

    def fetch(self, schema_ids: Iterable[int]) -> None:
        """Nothing to fetch."""

    def read(self, schema_id: int, value: bytes, start: int) -> Any:
        """The record whose JSON begins at `start`."""
        try:
            return _decode(memoryview(value)[start:])
        except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
            raise UnreadableRecord("not_json", value, f"JSON behind the frame ({exc})") from None


__all__ = ["FramedJson"]
