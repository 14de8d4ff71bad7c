"""Finding how the rows of a delimited file are laid out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from stream.errors import SourceError
from stream.mapping.actions import ActionNames
from stream.mapping.columns import LINE_ORDER, EventField, find_columns, known_fields, preset_columns
from stream.mapping.time_forms import find_times
from stream.mapping.times import NumberTimes, TimeReader, in_time_order
from stream.sources.files.containers import Container, refuse_other_encodings
from stream.sources.files.delimited import DelimitedParser, RowLayout
from stream.sources.files.options import ReadOptions
from stream.sources.files.parser import FileFormat, FormatName
from stream.sources.files.quotes import split_quoted

_SEPARATORS: Final = (b"\t", b",", b";", b"|", b"::")
_IDS: Final[tuple[EventField, ...]] = ("user", "item")
_LOOKED_AT: Final = 50  # lines that the separator and the header are found in
_LINE_SHOWN: Final = 80
_NO_TIMES: Final = "no times: one second from event to event, from 2000-01-01 on, in the order of the lines"


def find_separator(lines: Sequence[bytes]) -> bytes | None:
    """Return the separator of the lines; None when there is none but blanks.

    That of a header with known names comes first; otherwise the one that cuts most lines into equally many cells.
    """
    if not lines:
        return None
    for separator in _SEPARATORS:
        names = [cell.decode(errors="replace") for cell in split_quoted(lines[0], separator)]
        if known_fields(names) >= set(_IDS):
            return separator
    best, best_share = None, 0.5
    for separator in _SEPARATORS:
        widths = Counter(len(split_quoted(line, separator)) for line in lines[:_LOOKED_AT])
        width, count = widths.most_common(1)[0]
        share = count / widths.total()
        if width > 1 and share > best_share:
            best, best_share = separator, share
    return best


def delimited_parser(
    path: Path, container: Container, lines: list[bytes], separator: bytes | None, options: ReadOptions
) -> DelimitedParser:
    """Find header, columns, times and actions in the first lines.

    Raises
    ------
    SourceError
        A column is missing, there is no header and not all columns are given by number, or there are no rows.
    """
    layout = RowLayout(separator, {}, 0, header=False)
    records = list(layout.records(iter(lines)))
    first = split_quoted(records[0], separator)
    header = _is_header(first, records[1:], separator, options)
    names = [cell.decode(errors="replace").strip() for cell in first]
    if header:
        columns = find_columns(names, path, preset_columns(names, options.preset) | _named(options.columns))
        if len(records) == 1:
            raise SourceError(f"{path}: has a header but no rows: nothing to replay")
    else:
        names = [str(number) for number in range(1, len(first) + 1)]
        columns = _numbered(path, records, separator, names, options)
    positions: dict[EventField, int] = {field: names.index(column) for field, column in columns.items()}
    return build_parser(path, container, records, RowLayout(separator, positions, len(names), header), names, options)


def build_parser(
    path: Path,
    container: Container,
    records: Sequence[bytes],
    layout: RowLayout,
    names: Sequence[str],
    options: ReadOptions,
    format_name: FormatName = "csv",
) -> DelimitedParser:
    """Find times and actions of a layout in the first records, and return the parser for all."""
    rows = [
        row for record in records[layout.header :] if len(row := split_quoted(record, layout.separator)) == layout.width
    ]
    positions = dict(layout.positions)
    times: TimeReader | None = None
    notes = []
    if "ts" in positions:
        cells = [row[positions["ts"]] for row in rows]
        times = find_times(cells, names[positions["ts"]], path, options.times)
        notes = _order_notes(cells, times)
    else:
        notes = [_NO_TIMES]
    if "action" in positions:
        place = positions["action"]
        sample = [row[place].decode(errors="replace") for row in rows]
        sure = "action" in (*options.columns, *options.preset) or names[place].lower() == "action"
        used = sure or options.actions.are_actions(sample)
        notes += options.actions.note(names[place], sample, used=used)
        if used:
            options.actions.translate(sample)
        else:
            del positions["action"]
    columns = {field: names[place] for field, place in positions.items()}
    layout = RowLayout(layout.separator, positions, layout.width, layout.header)
    file_format = FileFormat(
        format_name,
        container,
        columns,
        times.description if times else "none",
        options.actions.used if "action" in positions else {},
        [name for place, name in enumerate(names) if place not in positions.values()],
        notes,
        layout.rule,
        options.encoding,
    )
    return DelimitedParser(file_format, layout, times, options.actions)


def _order_notes(cells: Sequence[bytes], times: TimeReader) -> list[str]:
    try:
        return [] if in_time_order(times.read_cells(cells)) else ["not in time order: --sort puts it in order"]
    except (ValueError, OverflowError):  # some cell is no time
        return []


def _is_header(first: Sequence[bytes], rest: Sequence[bytes], separator: bytes | None, options: ReadOptions) -> bool:
    """Whether the first line holds names: given ones, known ones, or text over a column of numbers or times."""
    given = [column for column in _named(options.columns).values() if column != LINE_ORDER]
    if given and not all(column.isdigit() for column in given):
        return True
    if len(known_fields([cell.decode(errors="replace") for cell in first])) >= 2:
        return True
    if any(_is_number(cell) for cell in first):
        return False
    rows = [row for record in rest[:_LOOKED_AT] if len(row := split_quoted(record, separator)) == len(first)]
    numeric = [all(_is_number(row[place]) for row in rows) for place in range(len(first))] if rows else []
    return any(numeric) if given or rows else True


def _named(columns: Mapping[EventField, str]) -> dict[EventField, str]:
    """The columns without constants, which every row has."""
    return {field: column for field, column in columns.items() if not column.startswith("=")}


def _is_number(cell: bytes) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbered(
    path: Path, records: Sequence[bytes], separator: bytes | None, names: Sequence[str], options: ReadOptions
) -> dict[EventField, str]:
    """The columns given by number; SourceError when user or item is not, or when there is no such column."""
    given = preset_columns(names, options.preset) | _named(options.columns)
    if "user" not in given or "item" not in given:
        raise no_header(path, records, separator)
    for field, column in given.items():
        if column not in names and not (field == "ts" and column == LINE_ORDER):
            raise SourceError(f"{path}: --columns {field}={column}: the first line has {len(names)} cells")
    return {field: column for field, column in given.items() if column in names}


def no_header(path: Path, records: Sequence[bytes], separator: bytes | None) -> SourceError:
    """Return the error for a file without header: its first line, and the option with what can be seen."""
    first = records[0]
    refuse_other_encodings(path, first)
    row = split_quoted(first, separator)
    text = first[:_LINE_SHOWN].decode(errors="replace").replace("\n", " ")
    shown = "".join(one if one.isprintable() or one == "\t" else "\N{REPLACEMENT CHARACTER}" for one in text)
    time = next((place for place in range(len(row)) if _holds_times(records, separator, place)), None)
    action = next((place for place in range(len(row)) if _holds_actions(records, separator, place)), None)
    option = "user=?,item=?" + ("" if time is None else f",ts={time + 1}")
    option += "" if action is None else f",action={action + 1}"
    order = "; without ts= the order of the lines counts" if time is None else ""
    return SourceError(f"{path}: no header, first line {shown!r}: say what its columns hold: --columns {option}{order}")


def _cells(records: Sequence[bytes], separator: bytes | None, place: int) -> list[bytes]:
    return [row[place] for record in records[:_LOOKED_AT] if len(row := split_quoted(record, separator)) > place]


def _holds_actions(records: Sequence[bytes], separator: bytes | None, place: int) -> bool:
    return ActionNames().are_actions([cell.decode(errors="replace") for cell in _cells(records, separator, place)])


def _holds_times(records: Sequence[bytes], separator: bytes | None, place: int) -> bool:
    cells = _cells(records, separator, place)
    try:
        times = find_times(cells, "", Path())
        read = times.read_cells(cells)
    except (SourceError, ValueError, OverflowError):
        return False
    return bool(len(read)) and (not isinstance(times, NumberTimes) or bool((read > 0).all()))


__all__ = ["build_parser", "delimited_parser", "find_separator", "no_header"]
