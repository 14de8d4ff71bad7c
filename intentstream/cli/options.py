"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML file; see `intentstream config`.")]
ShopOption = Annotated[
    Path | None, typer.Option("--shop", help="TOML file of the simulated shop; see `intentstream config --shop`.")
]
LogOption = Annotated[str | None, typer.Option("--log", help="file:///DIR or kafka://host:port[,host:port].")]
StateOption = Annotated[Path, typer.Option("--state", help="State folder.")]
InitOption = Annotated[
    Path | None, typer.Option("--init", help="Folder of `intentstream fit`: a new state starts from its model.")
]
ItemsOption = Annotated[
    Path | None, typer.Option("--items", help="Titles and categories, CSV or JSON lines; they name the intents.")
]
EventFileArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="File or folder: CSV, JSON, Parquet, MovieLens or ELCRec text; also as gzip, bz2, xz, zip or zstd.",
    ),
]

ColumnsOption = Annotated[
    str,
    typer.Option(
        "--columns",
        metavar="user=…,item=…,ts=…,action=…,value=…",
        help="Which column holds what: a name, a dotted path, or a number from 1.",
    ),
]
PresetOption = Annotated[
    str, typer.Option("--preset", help="Shape of the records, such as segment or movielens; see docs/events.md.")
]
ActionsOption = Annotated[
    str, typer.Option("--actions", metavar="OLD=NEW,…", help="The file's names of actions and the configuration's.")
]
TimeFormatOption = Annotated[
    str, typer.Option("--time-format", help="s, ms, us, ns, iso, or a form such as '%d/%m/%Y %H:%M'.")
]
TimeOriginOption = Annotated[
    str, typer.Option("--time-origin", help="Times count from here, such as 2024-01-01T00:00:00Z.")
]
EncodingOption = Annotated[str, typer.Option("--encoding", help="Of text that is not UTF-8, such as cp1252.")]

__all__ = [
    "ActionsOption",
    "ColumnsOption",
    "ConfigOption",
    "EncodingOption",
    "EventFileArgument",
    "InitOption",
    "ItemsOption",
    "LogOption",
    "PresetOption",
    "ShopOption",
    "StateOption",
    "TimeFormatOption",
    "TimeOriginOption",
]
