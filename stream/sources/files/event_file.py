"""Events from a file: CSV, JSON lines, Parquet, MovieLens and ELCRec text, any of them gzipped.

What the file is, which column is what, and whether times are seconds or milliseconds is found out from its content and
said. Records come in the order of the file. A line that is no row becomes a record with the line's own bytes, which the
engine turns into a dead letter: nothing is dropped here.
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
from stream.sources.files.delimited import SAMPLE, EventChunk, Parser, first, text_parser
from stream.sources.files.parquet import Parquet

CHUNK_RECORDS: Final = 10_000
_BLOCK_BYTES: Final = 1 << 20
_MAX_LINE_BYTES: Final = 16 << 20  # a file without line ends must not fill the memory


class EventFile:
    """A file of events, to be iterated over as often as wanted.

    Parameters
    ----------
    path
        The file; what it is, is found out from its content.
    limit
        Only so many records from the start on; None for all.
    chunk_records
        Records in one `EventChunk`; the last one may have fewer.

    Raises
    ------
    SourceError
        No such file, nothing in it, no such column, or no format that is known.
    """

    def __init__(self, path: Path, limit: int | None = None, chunk_records: int = CHUNK_RECORDS) -> None:
        if limit is not None and limit < 1:
            raise SourceError(f"limit {limit}: must be at least 1; leave it out to read all of {path}")
        self.path = Path(path)
        self.limit = limit
        self._chunk_records = chunk_records
        self._raw: BufferedReader | None = None  # the file on disk behind any decompression, for `fraction`
        self._done = 0
        self._finished = False
        self._failed: str | None = None  # why the file cannot be read on, told after what could be
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
            self._parse: Parser = Parquet(self.path, self._gzipped)
        else:
            with self._opened() as stream:
                sample = list(islice(self._lines(stream), SAMPLE + 1))
            if not sample:
                self._refuse_failed()
            self._parse = text_parser(self.path, self._gzipped, sample)
        self.facts = self._parse.facts

    @property
    def total(self) -> int | None:
        """Records to come in all, where that is known without reading the file: Parquet."""
        rows = self._parse.rows
        return rows if rows is None or self.limit is None else min(rows, self.limit)

    @property
    def fraction(self) -> float:
        """How much of what is to be read has been, 0 to 1."""
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
            for chunk in self._parse.chunks(self._lines(stream), min(self._chunk_records, left)):
                if left < len(chunk):
                    chunk = first(chunk, left)
                left -= len(chunk)
                self._done += len(chunk)
                yield chunk
                if not left:
                    break
            else:
                self._refuse_failed()
        self._finished = True

    def _refuse_failed(self) -> None:
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
        """Lines that are not blank, without line ends and byte order mark, as far as the file can be read."""
        rest = b""
        mark = codecs.BOM_UTF8
        while True:
            try:
                block = stream.read1(_BLOCK_BYTES)  # all there is before the place where a gzip breaks
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
