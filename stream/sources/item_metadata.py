"""The items file of `--items`: titles and categories, which name the intents."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TextIO

from stream.errors import SourceError
from stream.mapping.ids import MISSING, normalize_id
from stream.schema.events import MAX_ID_BYTES
from stream.sources.files.containers import READ_ERRORS, open_text

Titles = dict[str, tuple[str, str]]
MAX_TITLE: Final = 200  # characters; the rest is cut off
_MAX_LINE: Final = 1 << 20  # characters


def read_items(path: Path) -> Titles:
    r"""Title and category by item id.

    JSON lines `{"item": ..., "title": ..., "category": ...}`, or CSV with such a header; one of title and category may
    be missing or empty. Items that are not in the stream are allowed. Titles and categories lose line ends and what
    cannot be printed, and are cut to 200 characters; item ids are read like those of event files. The file may be
    compressed.

    Raises
    ------
    SourceError
        The file cannot be read, or a line has no item, an item of an earlier line, or neither title nor category.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (path := Path(folder) / "items.csv").write_text("item,title\nlamp-1,Desk lamp\n")
    ...     read_items(path)
    {'lamp-1': ('Desk lamp', '')}
    """
    try:
        with open_text(path) as opened:
            first = opened.readline(_MAX_LINE)
        with open_text(path) as opened:
            lines = _bounded(opened, path)
            titles = _titles(
                path, _json_rows(lines, path) if first.lstrip().startswith("{") else _csv_rows(lines, path)
            )
    except UnicodeError as exc:
        where = f" at byte {exc.start}" if isinstance(exc, UnicodeDecodeError) else ""
        raise SourceError(f"{path}: not UTF-8{where}") from exc
    except READ_ERRORS as exc:
        words = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc
        raise SourceError(f"{path}: cannot be read: {words}") from exc
    if not titles:
        raise SourceError(f"{path}: holds no items")
    return titles


def _titles(path: Path, rows: Iterator[tuple[int, dict[str, Any]]]) -> Titles:
    titles: Titles = {}
    lines: dict[str, int] = {}
    for line, row in rows:
        item, title, category = (_text(row, name, path, line) for name in ("item", "title", "category"))
        if not 1 <= _bytes(item) <= MAX_ID_BYTES:
            raise SourceError(f"{path}, line {line}: item = {item[:40]!r}: must be 1 to {MAX_ID_BYTES} bytes of UTF-8")
        if item in titles:
            raise SourceError(f"{path}, line {line}: item {item!r} was in line {lines[item]} already: keep one")
        if not title and not category:
            raise SourceError(f"{path}, line {line}: item {item!r} has neither title nor category: give one")
        titles[item], lines[item] = (title, category), line
    return titles


def _bounded(opened: TextIO, path: Path) -> Iterator[str]:
    """Yield the lines; `SourceError` for one that would fill the memory."""
    number = 0
    while line := opened.readline(_MAX_LINE + 1):
        number += 1
        if len(line) > _MAX_LINE:
            raise SourceError(f"{path}, line {number}: more than {_MAX_LINE >> 20} MiB: is this a file of lines?")
        yield line


def _json_rows(opened: Iterator[str], path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in enumerate(opened, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError as exc:
            raise SourceError(f"{path}, line {line}: not JSON ({exc})") from exc
        if not isinstance(row, dict):
            raise SourceError(f"{path}, line {line}: a {type(row).__name__}, expected an object")
        yield line, row


def _csv_rows(opened: Iterator[str], path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(opened)
    names = reader.fieldnames or []
    if "item" not in names or not {"title", "category"} & set(names):
        raise SourceError(
            f"{path}: columns {', '.join(names) or 'none'}: expected item and title or category, or JSON lines"
        )
    for name in ("item", "title", "category"):
        if names.count(name) > 1:
            raise SourceError(f"{path}: {names.count(name)} columns {name}: keep one")
    try:
        for row in reader:
            if None in row:
                raise SourceError(
                    f"{path}, line {reader.line_num}: {len(names) + len(row[None])} fields, the header has "
                    f"{len(names)}: put quotes around a field that has a comma in it"
                )
            yield reader.line_num, row
    except csv.Error as exc:
        raise SourceError(f"{path}, after line {reader.line_num}: not CSV ({exc})") from exc


def _bytes(item: str) -> int:
    """Length as UTF-8; 0 for text that has none, such as half of a surrogate pair from a JSON escape."""
    try:
        return len(item.encode())
    except UnicodeEncodeError:
        return 0


def _text(row: dict[str, Any], name: str, path: Path, line: int) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool) and name == "item":
        value = str(value) if abs(value) < 1 << 200 else ""
    if not isinstance(value, str):
        raise SourceError(f"{path}, line {line}: {name} = {value!r}: must be text")
    return normalize_id(value) if name == "item" else _shown(value)


def _shown(text: str) -> str:
    """Return a title in one line that can be printed, at most `MAX_TITLE` characters; empty for a missing one."""
    text = text[: 4 * MAX_TITLE]
    text = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    if text in MISSING:
        return ""
    return text if len(text) <= MAX_TITLE else text[: MAX_TITLE - 1].rstrip() + "…"


__all__ = ["MAX_TITLE", "Titles", "read_items"]
