"""Events from a file: CSV, JSON, Parquet, MovieLens and ELCRec text, compressed or not.

`EventFile` finds format, columns and form of the times in the content; its `format` says what it found. Records keep
the order of the file. A line that cannot be parsed becomes a record too, and the engine makes a dead letter of it:
nothing is dropped here.
"""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Final

from stream.errors import SourceError
from stream.sources.files.containers import (
    HEAD_BYTES,
    READ_ERRORS,
    ByteStream,
    Recoded,
    find_container,
    find_encoding,
    open_bytes,
    refuse_unsupported,
)
from stream.sources.files.detection import choose_parser
from stream.sources.files.event_chunk import EventChunk
from stream.sources.files.json_array import MAX_ARRAY_BYTES
from stream.sources.files.options import DEFAULT_OPTIONS, ReadOptions
from stream.sources.files.parquet import ParquetParser
from stream.sources.files.parser import SAMPLE_RECORDS, Parser
from stream.sources.files.spool import spool

CHUNK_RECORDS: Final = 10_000
_BLOCK_BYTES: Final = 1 << 20
_MAX_LINE_BYTES: Final = 16 << 20  # a file without line ends must not fill the memory
_PARQUET: Final = b"PAR1"


class EventFile:
    """A file of events; each iteration reads it from the start.

    Parameters
    ----------
    path
        The file, of any of the formats; `-` is standard input. What can be read only once is copied first.
    limit
        Read this many records, then stop; None reads all.
    chunk_records
        Records in one `EventChunk`; the last one may have fewer.
    options
        What the user says about the file; the rest is found in it.

    Raises
    ------
    SourceError
        The file cannot be read, is empty, lacks a column, or has no known format.
    """

    def __init__(
        self,
        path: Path,
        limit: int | None = None,
        chunk_records: int = CHUNK_RECORDS,
        options: ReadOptions = DEFAULT_OPTIONS,
    ) -> None:
        if limit is not None and limit < 1:
            raise SourceError(f"limit {limit}: must be at least 1; leave it out to read all of {path}")
        self.path = Path(path)
        self.limit = limit
        self._chunk_records = chunk_records
        self._on_disk, self._spool = spool(self.path)
        self._raw: BufferedReader | None = None  # the file on disk, before decompression, for `fraction`
        self._done = 0
        self._finished = False
        self._failed: str | None = None  # why the rest cannot be read; raised after the readable part
        self._encoding = options.encoding
        self._action, self._skipped_actions = options.action, options.skipped
        self.skipped = 0  # records that are no events, in the last iteration
        try:
            self._size = self._on_disk.stat().st_size
            self._container = find_container(self._on_disk)
            with self._opened() as stream:
                head = stream.read1(HEAD_BYTES)
        except READ_ERRORS as exc:
            words = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc
            if isinstance(exc, OSError) and exc.errno is not None:
                raise SourceError(f"{self.path}: cannot be read: {words}") from None
            raise SourceError(f"{self.path}: broken {self._container or 'file'}: {words}") from None
        if head.startswith(_PARQUET):
            self._parser: Parser = ParquetParser(self.path, self._on_disk, self._container, self._read_all, options)
        else:
            self._parser = self._text_parser(head, options)
        self.format = self._parser.format

    def _text_parser(self, head: bytes, options: ReadOptions) -> Parser:
        self._encoding = self._encoding or find_encoding(head)
        if not self._encoding:
            refuse_unsupported(self.path, head)
        with self._opened() as stream:
            sample = list(islice(self._lines(stream), SAMPLE_RECORDS + 1))
        if not sample:
            self._raise_failure()
        options = replace(options, encoding=self._encoding)
        return choose_parser(self.path, self._container, sample, self._read_all, options)

    @property
    def total(self) -> int | None:
        """Number of records, where it is known before reading: Parquet."""
        rows = self._parser.rows
        return rows if rows is None or self.limit is None else min(rows, self.limit)

    @property
    def fraction(self) -> float:
        """Share of the records read so far, 0 to 1."""
        if self._finished:
            return 1.0
        if self.total:
            return min(1.0, self._done / self.total)
        of_limit = self._done / self.limit if self.limit else 0.0
        of_file = (
            self._raw.tell() / self._size if self._raw is not None and not self._raw.closed and self._size else 0.0
        )
        return min(1.0, max(of_limit, of_file))

    def __iter__(self) -> Iterator[EventChunk]:
        self._done, self._finished, self._failed = 0, False, None
        self._parser.skipped = self.skipped = skipped = 0
        left = self.limit if self.limit is not None else sys.maxsize
        with self._opened() as stream:
            for chunk in self._parser.chunks(self._lines(stream), min(self._chunk_records, left)):
                if left < len(chunk):
                    chunk = chunk.head(left)
                left -= len(chunk)
                self._done += len(chunk)
                events = chunk.with_action(self._action) if self._action else chunk.without(self._skipped_actions)
                skipped += len(chunk) - len(events)
                self.skipped = skipped + self._parser.skipped
                if len(events):
                    yield events
                if not left:
                    break
            else:
                self._raise_failure()
        self._finished = True

    def _raise_failure(self) -> None:
        if self._failed is not None:
            raise SourceError(f"{self.path}: cannot be read on after record {self._done}: {self._failed}")

    @contextmanager
    def _opened(self) -> Iterator[ByteStream]:
        with self._on_disk.open("rb") as self._raw, open_bytes(self.path, self._raw, self._container) as stream:
            yield Recoded(stream, self._encoding) if self._encoding else stream

    def _read_all(self) -> bytes:
        """Return the whole content, decompressed; without byte order mark."""
        blocks, size = [], 0
        with self._opened() as stream:
            try:
                while block := stream.read1(_BLOCK_BYTES):
                    blocks.append(block)
                    size += len(block)
                    if size > MAX_ARRAY_BYTES:
                        raise SourceError(
                            f"{self.path}: more than {MAX_ARRAY_BYTES >> 30} GiB that must be read at once: "
                            "unpack it, or make JSON lines of it"
                        )
            except READ_ERRORS as exc:
                raise SourceError(f"{self.path}: broken {self._container or 'file'}: {exc}") from None
        return b"".join(blocks).removeprefix(codecs.BOM_UTF8)

    def _lines(self, stream: ByteStream) -> Iterator[bytes]:
        """Lines without line ends and byte order mark, blank ones left out, as far as the file can be read."""
        rest = b""
        mark, end = codecs.BOM_UTF8, b"\n"
        while True:
            try:
                block = stream.read1(_BLOCK_BYTES)  # all bytes in front of the place where a gzip breaks
            except READ_ERRORS as exc:
                self._failed = str(exc)
                return
            data = (rest + block).removeprefix(mark)
            if mark and b"\r" in data and b"\n" not in data:
                end = b"\r"
            mark = b""
            lines = data.split(end)
            rest = lines.pop() if block else b""
            if len(rest) > _MAX_LINE_BYTES:
                raise SourceError(
                    f"{self.path}: a line of more than {_MAX_LINE_BYTES >> 20} MiB: is this a file of lines?"
                )
            if b"\r" in data:
                lines = [line.removesuffix(b"\r") for line in lines]
            yield from filter(None, lines)
            if not block:
                return


def read_events(path: Path, limit: int | None = None, chunk_records: int = CHUNK_RECORDS) -> EventFile:
    """Open a file of events; see `EventFile`."""
    return EventFile(path, limit, chunk_records)


__all__ = ["CHUNK_RECORDS", "EventChunk", "EventFile", "read_events"]
