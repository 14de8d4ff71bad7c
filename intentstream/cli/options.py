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
    typer.Argument(metavar="FILE", help="CSV, JSON lines, Parquet, MovieLens or ELCRec text, any of them gzipped."),
]

__all__ = [
    "ConfigOption",
    "EventFileArgument",
    "InitOption",
    "ItemsOption",
    "LogOption",
    "ShopOption",
    "StateOption",
]
