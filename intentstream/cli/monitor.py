"""`intentstream monitor`: the page and the HTTP API beside a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from intentstream.cli.options import ConfigOption, LogOption
from intentstream.cli.process import stop_on_signals
from intentstream.config import load_config
from monitor import server
from stream.log import open_log


def monitor(
    log: LogOption = None,
    view: Annotated[Path, typer.Option("--view", help="Folder of the current view.")] = Path("var/view"),
    config: ConfigOption = None,
) -> None:
    """Serve the page, the HTTP API and the metrics beside a worker.

    It reads the topics alone: worker and monitor need not share a machine.
    """
    chosen = load_config(config, log_url=log)
    url = chosen.log.url
    stop_on_signals()  # the server stops in order and then raises the signal again: with this it ends with status 0
    with (
        open_log(url, mode="reader", config=chosen.log) as reader,
        open_log(url, mode="producer", config=chosen.log) as producer,
    ):
        server.run(reader, chosen.monitor, view, producer, actions=chosen.actions, events=chosen.events)


__all__ = ["monitor"]
