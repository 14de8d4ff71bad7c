"""What a user says about a file of events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from stream.mapping.actions import ActionNames, parse_actions
from stream.mapping.columns import EventField, parse_columns
from stream.mapping.time_forms import TimeOptions, parse_time_format, parse_time_origin
from stream.sources.files.containers import check_encoding


@dataclass(frozen=True)
class ReadOptions:
    """Columns, actions, times and encoding as far as they are given; the rest is found in the file.

    Attributes
    ----------
    columns
        Column of each field: a name, a dotted path, or a number from 1.
    actions
        Translates the file's actions.
    times
        Form and origin of the times.
    encoding
        Of text; empty for UTF-8, or what the byte order mark says.
    """

    columns: Mapping[EventField, str] = field(default_factory=dict)
    actions: ActionNames = field(default_factory=ActionNames)
    times: TimeOptions = TimeOptions()
    encoding: str = ""


DEFAULT_OPTIONS: Final = ReadOptions()


def parse_options(
    known_actions: list[str],
    columns: str = "",
    actions: str = "",
    time_format: str = "",
    time_origin: str = "",
    encoding: str = "",
) -> ReadOptions:
    """Read the options of the command line, empty where not given.

    Raises
    ------
    SourceError
        One of them cannot be understood.
    """
    return ReadOptions(
        parse_columns(columns),
        ActionNames(known_actions, parse_actions(actions)),
        TimeOptions(
            parse_time_format(time_format) if time_format else "",
            parse_time_origin(time_origin) if time_origin else None,
        ),
        check_encoding(encoding) if encoding else "",
    )


__all__ = ["DEFAULT_OPTIONS", "ReadOptions", "parse_options"]
