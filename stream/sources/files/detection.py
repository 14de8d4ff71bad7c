"""Which format a text file has."""

from __future__ import annotations

from pathlib import Path

from stream.errors import SourceError
from stream.sources.files.delimited import SEPARATOR_NAMES, csv_parser
from stream.sources.files.elcrec import elcrec_parser, is_elcrec
from stream.sources.files.json_lines import json_lines_parser
from stream.sources.files.movielens import is_movielens, movielens_parser
from stream.sources.files.parser import SAMPLE_RECORDS, Parser


def choose_parser(path: Path, gzipped: bool, lines: list[bytes]) -> Parser:
    """Return the parser for the format that the first lines have.

    Raises
    ------
    SourceError
        The file is empty, or its format is none of those known.
    """
    if not lines:
        raise SourceError(f"{path}: is empty: nothing to replay")
    first = lines[0]
    if first.lstrip().startswith(b"{"):
        return json_lines_parser(path, gzipped, lines)
    if first.lstrip().startswith(b"["):
        raise SourceError(f"{path}: a JSON array: expected JSON lines, one object a line (jq -c '.[]' makes them)")
    for separator in (b"::", b"\t"):
        if is_movielens(lines, separator):
            return movielens_parser(path, gzipped, lines, separator)
    separators = [one for one in SEPARATOR_NAMES if len(one) == 1 and one in first]
    name = path.name.removesuffix(".gz").lower()
    if separators or name.endswith((".csv", ".tsv")):
        return csv_parser(path, gzipped, first, lines[1:], separators[0] if separators else b",")
    if is_elcrec(lines[:SAMPLE_RECORDS]):
        return elcrec_parser(gzipped)
    raise SourceError(
        f"{path}: unknown format, first line {first[:60].decode(errors='replace')!r}: expected CSV with a header, "
        "JSON lines, Parquet, MovieLens u.data or ratings.dat, or lines `user item item …`"
    )


__all__ = ["choose_parser"]
