"""`intentstream config` and `intentstream reference`: the settings as a file and as pages of the documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from intentstream import reference
from intentstream.config import dump_default, dump_shop
from stream.errors import ConfigError


def config(
    everything: Annotated[
        bool,
        typer.Option("--all", help="Print the internal keys as well, each marked: benchmarks and `tune` set them."),
    ] = False,
    shop: Annotated[bool, typer.Option("--shop", help="Print the file of the simulated shop instead.")] = False,
) -> None:
    """Print the default configuration file.

    Every key stands with its meaning, unit and range.
    """
    if shop and everything:
        raise ConfigError("--all and --shop: give one of them")
    typer.echo(dump_shop() if shop else dump_default(internal=everything))


def write_reference(docs: Annotated[Path, typer.Argument(help="The documentation folder.")] = Path("docs")) -> None:
    """Write the generated pages of the documentation.

    Configuration, topics, JSON Schemas with examples.
    """
    for name in reference.write(docs):
        typer.echo(f"written: {name}")


__all__ = ["config", "write_reference"]
