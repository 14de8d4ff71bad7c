"""`intentstream monitor`: the page and the HTTP API beside a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from intentstream.cli.options import ConfigOption, LogOption
from intentstream.cli.process import stop_on_signals
from intentstream.config import load_config
from learner.runtime import set_threads
from monitor import server
from stream.log import open_log
from stream.serving import CheckpointRanker


def monitor(
    log: LogOption = None,
    state: Annotated[
        Path, typer.Option("--state", help="The worker's state folder; its checkpoints make lists on request.")
    ] = Path("var/state"),
    view: Annotated[Path, typer.Option("--view", help="Folder of the current view.")] = Path("var/view"),
    config: ConfigOption = None,
) -> None:
    """Serve the page, the HTTP API and the metrics beside a worker.

    It reads the topics: worker and monitor need not share a machine. Where the worker's state folder is at hand, lists
    are also made on request: for unknown users and sessions, like an item, without some items.
    """
    chosen = load_config(config, log_url=log)
    url = chosen.log.url
    set_threads(chosen.learner.threads)
    stop_on_signals()  # the server stops in order and then raises the signal again: with this it ends with status 0
    with (
        open_log(url, mode="reader", config=chosen.log) as reader,
        open_log(url, mode="producer", config=chosen.log) as producer,
        CheckpointRanker(chosen, state) as ranker,
    ):
        server.run(reader, chosen.monitor, view, producer, actions=chosen.actions, events=chosen.events, ranker=ranker)


__all__ = ["monitor"]
