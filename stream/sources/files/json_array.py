"""A file that holds one JSON array."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from stream.errors import SourceError
from stream.schema.bare_numbers import wrap_bare_numbers
from stream.sources.files.containers import Container
from stream.sources.files.event_chunk import EventChunk
from stream.sources.files.json_layout import json_lines_parser
from stream.sources.files.options import ReadOptions
from stream.sources.files.parser import SAMPLE_RECORDS, Parser

MAX_ARRAY_BYTES: Final = 1 << 30  # it is read as a whole
_decode = msgspec.json.Decoder(list[msgspec.Raw]).decode


class JsonArrayParser(Parser):
    """Members of an array, each as a line of JSON lines.

    Parameters
    ----------
    read
        Returns the whole file, decompressed and in UTF-8; called again for each pass.
    """

    def __init__(self, path: Path, container: Container, read: Callable[[], bytes], options: ReadOptions) -> None:
        self._path, self._read = path, read
        lines = self._members()
        if not lines:
            raise SourceError(f"{path}: is an empty JSON array: nothing to replay")
        self._parser = json_lines_parser(path, container, lines[:SAMPLE_RECORDS], options)
        self.format = self._parser.format

    def chunks(self, lines: Iterator[bytes], n: int) -> Iterator[EventChunk]:
        """Yield chunks of `n` records, the last one smaller; `lines` is not used."""
        for chunk in self._parser.chunks(iter(self._members()), n):
            self.skipped = self._parser.skipped
            yield chunk

    def _members(self) -> list[bytes]:
        try:
            return [bytes(member) for member in _decode(wrap_bare_numbers(self._read()))]
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as exc:
            raise SourceError(
                f"{self._path}: begins like a JSON array and is none: {' '.join(str(exc).split())}"
            ) from None


__all__ = ["JsonArrayParser", "MAX_ARRAY_BYTES"]
