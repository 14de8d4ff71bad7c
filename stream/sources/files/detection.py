"""Which format a text file has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from stream.errors import SourceError
from stream.sources.files.containers import Container, refuse_other_encodings, stem
from stream.sources.files.elcrec import elcrec_parser, is_elcrec
from stream.sources.files.json_array import JsonArrayParser, is_one_object
from stream.sources.files.json_layout import is_object, json_lines_parser
from stream.sources.files.layouts import delimited_parser, find_separator, no_header
from stream.sources.files.movielens import is_movielens, movielens_parser
from stream.sources.files.options import ReadOptions
from stream.sources.files.parser import SAMPLE_RECORDS, Parser


def choose_parser(
    path: Path, container: Container, lines: list[bytes], read: Callable[[], bytes], options: ReadOptions
) -> Parser:
    """Return the parser for the format that the first lines have, `read` returns the whole file.

    Raises
    ------
    SourceError
        The file is empty, or its format is none of those known, or cannot be told for sure.
    """
    if not lines:
        raise SourceError(f"{path}: is empty: nothing to replay")
    first = lines[0].lstrip()
    if first.startswith(b"{") and not any(map(is_object, lines)) and is_one_object(read()):
        return JsonArrayParser(path, container, read, options)  # one object over several lines
    if first.startswith(b"{"):
        return json_lines_parser(path, container, lines, options)
    if first.startswith(b"["):
        return JsonArrayParser(path, container, read, options)
    separator = find_separator(lines)
    if not options.columns and is_movielens(lines, separator):
        return movielens_parser(path, container, lines, separator, options)
    if separator is not None or stem(path).endswith((".csv", ".tsv")):
        return delimited_parser(path, container, lines, separator or b",", options)
    if options.columns:
        return delimited_parser(path, container, lines, None, options)
    if is_elcrec(lines[:SAMPLE_RECORDS]):
        return elcrec_parser(container)
    raise _unknown(path, lines)


def _unknown(path: Path, lines: list[bytes]) -> SourceError:
    cells = [line.split() for line in lines[:SAMPLE_RECORDS]]
    if all(len(row) == len(cells[0]) > 2 for row in cells) and all(cell.isdigit() for row in cells for cell in row[:2]):
        return no_header(path, lines, None)
    refuse_other_encodings(path, lines[0])
    shown = "".join(
        one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in lines[0][:60].decode(errors="replace")
    )
    return SourceError(
        f"{path}: unknown format, first line {shown!r}: expected CSV with a header, JSON lines, Parquet, MovieLens "
        "u.data or ratings.dat, or lines `user item item …`; columns without a header need --columns user=1,item=2,ts=3"
    )


__all__ = ["choose_parser"]
