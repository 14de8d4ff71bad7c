"""The bytes of a file: decompressed, and as UTF-8 whatever the encoding."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, RawIOBase, TextIOWrapper
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import zstandard

from stream.errors import SourceError

Container = Literal["", "gzip", "bz2", "xz", "zip", "zstd"]

READ_ERRORS: Final = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zstandard.ZstdError,
    zipfile.BadZipFile,
    UnicodeError,
    NotImplementedError,  # a method of compression that zipfile does not know
    RuntimeError,  # a zip with a password
)
_MAGIC: Final[dict[bytes, Container]] = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",  # an empty one
    b"\x28\xb5\x2f\xfd": "zstd",
}
_UNSUPPORTED: Final = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x04\x22\x4d\x18": "compressed with lz4",
    b"Obj\x01": "an Avro file",
    b"ORC": "an ORC file",
    b"ARROW1": "an Arrow file",
    b"SQLite format 3": "an SQLite database",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"%PDF": "a PDF",
}
_MARKS: Final = {  # byte order marks; the longer ones first, since one begins with another
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}
HEAD_BYTES: Final = 512  # as many as a tar needs to be known
_TAR_EXTENSIONS: Final = (b"x", b"g", b"L", b"K")  # of a header whose name is that of no member
_NUL_SHARE: Final = 8  # more than one in so many bytes is no text in UTF-8
_BLOCK_BYTES: Final = 1 << 20
_SUFFIXES: Final = (".gz", ".bz2", ".xz", ".zip", ".zst", ".zstd")


class ByteStream(Protocol):
    """What the readers of lines need of a file."""

    def read1(self, size: int = -1, /) -> bytes:
        """Return some bytes, none at the end."""
        ...


def find_container(path: Path) -> Container:
    """Return the compression of a file, by its first bytes; empty for none."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")


def refuse_unsupported(path: Path, head: bytes) -> None:
    """Raise `SourceError` when the first bytes, decompressed, are those of a file that is neither text nor Parquet."""
    for magic, kind in _UNSUPPORTED.items():
        if head.startswith(magic):
            raise SourceError(f"{path}: is {kind}: convert it to CSV, JSON lines or Parquet, gzipped or not")
    if head[257:262] == b"ustar":
        name = repr(head[:100].rstrip(b"\x00").decode("utf-8", "replace"))[1:-1]
        first = "" if head[156:157] in _TAR_EXTENSIONS else f", its first member {name}"
        raise SourceError(f"{path}: is a tar archive{first}: unpack it and give the file or the folder")
    if head.count(b"\x00") * _NUL_SHARE > len(head):
        raise SourceError(
            f"{path}: holds NUL bytes: a binary file, or UTF-16 without byte order mark, for which --encoding "
            "utf-16-le or utf-16-be is needed"
        )


def refuse_other_encodings(path: Path, line: bytes) -> None:
    """Raise `SourceError` for a line that is no UTF-8, instead of showing its bytes."""
    try:
        line.decode()
    except UnicodeDecodeError:
        raise SourceError(
            f"{path}: is no UTF-8 text: a binary file, one that is compressed twice, or text in another encoding, "
            "for which --encoding is needed"
        ) from None


def find_encoding(head: bytes) -> str:
    """Return the encoding that the byte order mark of a file's first bytes says; empty without one, or for UTF-8."""
    encoding = next((name for mark, name in _MARKS.items() if head.startswith(mark)), "")
    return "" if encoding == "utf-8-sig" else encoding


def check_encoding(encoding: str) -> str:
    """Return the encoding, empty for UTF-8; `SourceError` for one that Python does not know."""
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        raise SourceError(f"encoding {encoding!r}: is none that is known, such as utf-16, latin-1 or cp1252") from None
    return "" if name in ("utf-8", "utf-8-sig", "ascii") else name


def stem(path: Path) -> str:
    """Return the file's name in lower case, without the suffix of a compression."""
    name = path.name.lower()
    return name[: -len(path.suffix)] if path.suffix.lower() in _SUFFIXES else name


@contextmanager
def open_bytes(path: Path, raw: BufferedReader, container: Container) -> Iterator[ByteStream]:
    """Decompress `raw`, the opened file.

    Raises
    ------
    SourceError
        A zip file holds no file, or more than one.
    """
    if container == "gzip":
        with gzip.GzipFile(fileobj=raw) as file:
            yield file
    elif container == "bz2":
        with bz2.BZ2File(raw) as file:
            yield file
    elif container == "xz":
        with lzma.LZMAFile(raw) as file:
            yield file
    elif container == "zstd":
        yield _ZstdStream(raw)
    elif container == "zip":
        with zipfile.ZipFile(raw) as archive, archive.open(_only_member(path, archive)) as file:
            yield file  # type: ignore[misc]  # a ZipExtFile, which has read1
    else:
        yield raw


def _only_member(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = [
        member
        for member in archive.infolist()
        if not member.is_dir() and not member.filename.startswith("__MACOSX/") and member.file_size
    ]
    if any(member.filename == "[Content_Types].xml" for member in members):
        raise SourceError(f"{path}: is an Office document: save it as CSV")
    if len(members) != 1:
        names = ", ".join(repr(member.filename)[1:-1] for member in members[:5]) + (", …" if len(members) > 5 else "")
        raise SourceError(
            f"{path}: a zip with {len(members)} files{' (' + names + ')' if names else ''}: "
            "expected one: unpack it and give the file or the folder"
        )
    return members[0]


class _ZstdStream:
    """Frames of zstd, one after the other; EOFError when the last one breaks off."""

    def __init__(self, raw: BufferedReader) -> None:
        self._raw = raw
        self._frame = zstandard.ZstdDecompressor().decompressobj()

    def read1(self, size: int = -1, /) -> bytes:
        """Return some decompressed bytes, none at the end."""
        while block := self._frame.unused_data if self._frame.eof else self._raw.read1(_BLOCK_BYTES):
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            if data := self._frame.decompress(block):
                return data
        if self._frame.eof and (block := self._raw.read1(_BLOCK_BYTES)):  # the next frame begins with a block
            self._frame = zstandard.ZstdDecompressor().decompressobj()
            return self._frame.decompress(block) or self.read1(size)
        if not self._frame.eof:
            raise EOFError("the last frame breaks off")
        return b""


@contextmanager
def open_text(path: Path) -> Iterator[TextIOWrapper]:
    """Open a file of text, compressed or not, in UTF-8 or in what its byte order mark says; line ends stay."""
    container = find_container(path)
    with path.open("rb") as raw, open_bytes(path, raw, container) as stream:
        encoding = find_encoding(stream.read1(HEAD_BYTES))
    with path.open("rb") as raw, open_bytes(path, raw, container) as stream:
        with TextIOWrapper(BufferedReader(_Readable(stream)), encoding or "utf-8-sig", newline="") as text:
            yield text


class _Readable(RawIOBase):
    """A stream as the io module has them."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._stream.read1(len(buffer))
        buffer[: len(block)] = block
        return len(block)


class Recoded:
    """A stream in another encoding, read as UTF-8.

    Bytes that are none of the encoding become U+FFFD: no record is lost for one character.
    """

    def __init__(self, stream: ByteStream, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="replace")

    def read1(self, size: int = -1, /) -> bytes:
        """Return some bytes of UTF-8, none at the end."""
        while block := self._stream.read1(size):
            if text := self._decoder.decode(block):
                return text.encode("utf-8", "replace")
        return self._decoder.decode(b"", final=True).encode("utf-8", "replace")


__all__ = [
    "ByteStream",
    "Container",
    "HEAD_BYTES",
    "READ_ERRORS",
    "Recoded",
    "check_encoding",
    "find_container",
    "find_encoding",
    "open_bytes",
    "open_text",
    "refuse_other_encodings",
    "refuse_unsupported",
    "stem",
]
