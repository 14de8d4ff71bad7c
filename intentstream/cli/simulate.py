"""`intentstream simulate`: a simulated shop that appends to a log."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from intentstream.cli.options import ConfigOption, LogOption, ShopOption
from intentstream.cli.process import refuse_mapping, refuse_overwriting, refuse_unwritable, stop_on_signals
from intentstream.config import load_config, load_shop
from stream.errors import SourceError
from stream.log import open_log
from stream.schema import topics
from stream.sources.simulator.shop import Shop


def simulate(
    log: LogOption = None,
    rate: Annotated[float, typer.Option(min=0, help="Events per second; 0: as fast as it goes.")] = 300.0,
    limit: Annotated[int | None, typer.Option(help="Stop after so many events.")] = None,
    seed: Annotated[int, typer.Option(help="Of the shop.")] = 1,
    truth: Annotated[
        Path | None, typer.Option(help="Write what is true (intents, switches, drifts) to this file.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option("--keep", help="File that keeps the shop's state: the next start goes on, not anew.")
    ] = None,
    shop: ShopOption = None,
    config: ConfigOption = None,
) -> None:
    """Append a simulated shop's events to the log.

    A worker may run on the same log.
    """
    chosen, shop_config = load_config(config, log_url=log), load_shop(shop)
    refuse_mapping(chosen)
    if limit is not None and limit < 1:
        raise SourceError(f"limit {limit}: must be at least 1; leave it out to go on until Ctrl-C")
    refuse_overwriting({"--truth": truth, "--keep": keep}, [shop, config])
    refuse_unwritable(truth)
    stop = stop_on_signals()
    with open_log(chosen.log.url, mode="producer", config=chosen.log) as opened:
        opened.create_topics(topics.topic_specs(chosen.log.partitions))
        simulated = Shop(shop_config, opened, state=keep, seed=seed, rate=rate, truth=truth)
        while not stop() and (limit is None or simulated.made < limit):
            simulated.feed(limit=None if limit is None else limit - simulated.made)
            if rate:
                time.sleep(0.02)
        simulated.save()
    typer.echo(f"{simulated.made:,} events appended to {chosen.log.url}")


__all__ = ["simulate"]
