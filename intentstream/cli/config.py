"""`intentstream config` and `intentstream reference`: the settings as a file and as pages of the documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from intentstream import reference
from intentstream.config import dump_default


def config() -> None:
    """Print the default configuration file.

    Every key stands with its meaning, unit and range.
    """
    typer.echo(dump_default())


def write_reference(docs: Annotated[Path, typer.Argument(help="The documentation folder.")] = Path("docs")) -> None:
    """Write the generated pages of the documentation.

    Configuration, topics, JSON Schemas with examples.
    """
    for name in reference.write(docs):
        typer.echo(f"written: {name}")


__all__ = ["config", "write_reference"]
