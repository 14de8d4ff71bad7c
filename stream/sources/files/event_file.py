"""Events from a file: CSV, JSON lines, Parquet, MovieLens and ELCRec text, any of them gzipped.

`EventFile` finds format, columns and unit of the times in the content; its `format` says what it found. Records keep
the order of the file. A line that cannot be parsed becomes a record too, and the engine makes a dead letter of it:
nothing is dropped here.
"""

from __future__ import annotations

import codecs
import gzip
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Final

from stream.errors import SourceError
from stream.sources.files.detection import choose_parser
from stream.sources.files.event_chunk import EventChunk
from stream.sources.files.parquet import ParquetParser
from stream.sources.files.parser import SAMPLE_RECORDS, Parser

CHUNK_RECORDS: Final = 10_000
_BLOCK_BYTES: Final = 1 << 20
_MAX_LINE_BYTES: Final = 16 << 20  # a file without line ends must not fill the memory


class EventFile:
    """A file of events; each iteration reads it from the start.

    Parameters
    ----------
    path
        The file, of any of the formats.
    limit
        Read this many records, then stop; None reads all.
    chunk_records
        Records in one `EventChunk`; the last one may have fewer.

    Raises
    ------
    SourceError
        The file cannot be read, is empty, lacks a column, or has no known format.
    """

    def __init__(self, path: Path, limit: int | None = None, chunk_records: int = CHUNK_RECORDS) -> None:
        if limit is not None and limit < 1:
            raise SourceError(f"limit {limit}: must be at least 1; leave it out to read all of {path}")
        self.path = Path(path)
        self.limit = limit
        self._chunk_records = chunk_records
        self._raw: BufferedReader | None = None  # the file on disk, before decompression, for `fraction`
        self._done = 0
        self._finished = False
        self._failed: str | None = None  # why the rest cannot be read; raised after the readable part
        try:
            self._size = self.path.stat().st_size
            with self.path.open("rb") as head:
                self._gzipped = head.read(2) == b"\x1f\x8b"
            with self._opened() as stream:
                start = stream.read(4)
        except OSError as exc:
            raise SourceError(f"{self.path}: cannot be read: {exc.strerror or exc}") from None
        except (EOFError, zlib.error) as exc:
            raise SourceError(f"{self.path}: broken gzip: {exc}") from None
        if start == b"PAR1":
            self._parser: Parser = ParquetParser(self.path, self._gzipped)
        else:
            with self._opened() as stream:
                sample = list(islice(self._lines(stream), SAMPLE_RECORDS + 1))
            if not sample:
                self._raise_failure()
            self._parser = choose_parser(self.path, self._gzipped, sample)
        self.format = self._parser.format

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
        left = self.limit if self.limit is not None else sys.maxsize
        with self._opened() as stream:
            for chunk in self._parser.chunks(self._lines(stream), min(self._chunk_records, left)):
                if left < len(chunk):
                    chunk = chunk.head(left)
                left -= len(chunk)
                self._done += len(chunk)
                yield chunk
                if not left:
                    break
            else:
                self._raise_failure()
        self._finished = True

    def _raise_failure(self) -> None:
        if self._failed is not None:
            raise SourceError(f"{self.path}: cannot be read on after record {self._done}: {self._failed}")

    @contextmanager
    def _opened(self) -> Iterator[BufferedReader | gzip.GzipFile]:
        with self.path.open("rb") as self._raw:
            if not self._gzipped:
                yield self._raw
                return
            with gzip.GzipFile(fileobj=self._raw) as unzipped:
                yield unzipped

    def _lines(self, stream: BufferedReader | gzip.GzipFile) -> Iterator[bytes]:
        """Lines without line ends and byte order mark, blank ones left out, as far as the file can be read."""
        rest = b""
        mark = codecs.BOM_UTF8
        while True:
            try:
                block = stream.read1(_BLOCK_BYTES)  # all bytes in front of the place where a gzip breaks
            except (OSError, EOFError, zlib.error) as exc:
                self._failed = str(exc)
                return
            data, mark = (rest + block).removeprefix(mark), b""
            lines = data.split(b"\n")
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
