"""A file that holds one JSON array, or one object over several lines."""

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
_decode_object = msgspec.json.Decoder(dict[str, object]).decode
_decode = msgspec.json.Decoder(list[msgspec.Raw]).decode


def is_one_object(whole: bytes) -> bool:
    """Whether a file's content is one JSON object."""
    try:
        _decode_object(whole)
    except (msgspec.MsgspecError, RecursionError, UnicodeError, ValueError):
        return False
    return True


class JsonArrayParser(Parser):
    """Members of an array, each as a line of JSON lines; or one object, which may hold a list of events.

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
        whole = self._read()
        try:
            if whole.lstrip().startswith(b"{"):
                return [msgspec.json.encode(_decode_object(whole))]  # on one line
            return [bytes(member) for member in _decode(wrap_bare_numbers(whole))]
        except (msgspec.MsgspecError, RecursionError, UnicodeError) as exc:
            raise SourceError(
                f"{self._path}: begins like a JSON array and is none: {' '.join(str(exc).split())}"
            ) from None


__all__ = ["JsonArrayParser", "MAX_ARRAY_BYTES", "is_one_object"]
