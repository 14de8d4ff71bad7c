"""`intentstream topics`: list, check and create the topics."""

from __future__ import annotations

from typing import Annotated

import typer

from intentstream.cli.options import ConfigOption, LogOption
from intentstream.config import load_config
from stream.log import open_log
from stream.schema.topics import topic_specs


def topics(
    log: LogOption = None,
    create: Annotated[bool, typer.Option("--create", help="Create the topics that are missing.")] = False,
    config: ConfigOption = None,
) -> None:
    """List, check or create the topics.

    Exits with 2 when one is missing or has other settings.
    """
    chosen = load_config(config, log_url=log)
    specs = topic_specs(chosen.log.partitions, chosen.events.topic)
    with open_log(chosen.log.url, mode="producer" if create else "reader", config=chosen.log) as opened:
        if create:
            opened.create_topics(specs)
        opened.check_topics(specs)
        for spec in specs:
            typer.echo(f"{spec.name:32} {spec.partitions:4} partitions  {spec.cleanup}")


__all__ = ["topics"]
