"""Finding columns, times and actions in the first lines of JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from stream.errors import SourceError
from stream.mapping.columns import OPTIONAL_FIELDS, EventField, find_columns
from stream.mapping.shape import RecordShape
from stream.mapping.time_forms import find_times
from stream.schema.bare_numbers import wrap_bare_numbers
from stream.sources.files.containers import Container
from stream.sources.files.json_lines import JsonLinesParser
from stream.sources.files.json_paths import JsonPaths, find_paths, no_such_path, paths_in, seen
from stream.sources.files.options import ReadOptions
from stream.sources.files.parser import FileFormat


def json_lines_parser(
    path: Path, container: Container, lines: Sequence[bytes], options: ReadOptions
) -> JsonLinesParser:
    """Find columns, times and actions in the first lines.

    Raises
    ------
    SourceError
        No line is an object, or a column is missing.
    """
    rows = [row for line in lines if (row := _object(line)) is not None]
    if not rows:
        raise SourceError(
            f"{path}: no line of the first {len(lines)} is a JSON object: expected one a line (jq -c . makes them)"
        )
    top = list(dict.fromkeys(name for row in rows for name in row))
    columns, paths = _by_shape(path, rows, options.shape) if options.shape else _by_names(path, rows, top, options)
    samples = paths.samples(rows) if paths else [{f: row.get(c) for f, c in columns.items()} for row in rows]
    times = None
    notes = []
    if "ts" in columns:
        times = find_times([sample.get("ts") for sample in samples], columns["ts"], path, options.times)
    else:
        notes.append("no times: one second from event to event, from 2000-01-01 on, in the order of the lines")
    if "action" in columns:
        actions = [str(one) for sample in samples if isinstance(one := sample.get("action"), str | int)]
        sure = "action" in options.columns or columns["action"] == "action" or options.shape is not None
        taken = sure or options.actions.are_actions(actions)
        notes += options.actions.note(columns["action"], actions, used=taken)
        if taken:
            options.actions.translate(actions)
        else:
            del columns["action"]
            paths = JsonPaths.of_columns(columns, top) if paths else None
    used = {piece.partition(".")[0].removesuffix("[]") for column in columns.values() for piece in column.split("|")}
    file_format = FileFormat(
        "jsonl",
        container,
        columns,
        times.description if times else "none",
        options.actions.used if "action" in columns else {},
        [name for name in top if name not in used],
        notes,
        encoding=options.encoding,
    )
    return JsonLinesParser(file_format, times, options.actions, paths)


def _by_names(
    path: Path, rows: Sequence[dict[str, Any]], top: Sequence[str], options: ReadOptions
) -> tuple[dict[EventField, str], JsonPaths | None]:
    """The columns that are given, or have names that are known."""
    names = list(dict.fromkeys([*top, *(name for row in rows for name in paths_in(row))]))
    given = {field: column for field, column in options.columns.items() if column in names or "." not in column}
    paths_given = find_paths(path, rows, {field: c for field, c in options.columns.items() if field not in given})
    columns = find_columns([*names, *paths_given.values()], path, given | paths_given)
    nested = any(column not in top for column in columns.values())
    return columns, JsonPaths.of_columns(columns, top) if nested else None


def _by_shape(
    path: Path, rows: Sequence[dict[str, Any]], shape: RecordShape
) -> tuple[dict[EventField, str], JsonPaths]:
    """The places of a shape that hold something in the first records."""
    events = [row for row in rows if shape.extractor.is_event(row)]
    if not events:
        wanted = ", ".join(f"{'|'.join(map(str, p))} = {'|'.join(sorted(v))}" for p, v in shape.extractor.where.items())
        raise SourceError(f"{path}: none of the first {len(rows)} records has {wanted}: nothing to replay")
    columns: dict[EventField, str] = {}
    for field, places in shape.extractor.paths.items():
        there = [str(place) for place in places if seen(events, place)]
        if there:
            columns[field] = "|".join(there)
        elif field not in OPTIONAL_FIELDS:
            raise no_such_path(path, rows, field, shape.texts[field])
    return columns, JsonPaths(shape.extractor, shape)


def is_object(line: bytes) -> bool:
    """Whether a line is a JSON object."""
    return _object(line) is not None


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        row = msgspec.json.decode(wrap_bare_numbers(line))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
        return None
    return row if isinstance(row, dict) else None


__all__ = ["is_object", "json_lines_parser"]
