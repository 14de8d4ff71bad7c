"""`intentstream status`: is the worker healthy?"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from intentstream.cli.options import ConfigOption, LogOption, StateOption
from intentstream.config import load_config
from stream.log import open_log
from stream.worker.status import worker_health


def status(
    log: LogOption = None,
    state: StateOption = Path("var/state"),
    max_lag: Annotated[int, typer.Option(min=0, help="Records waiting above which the worker is unhealthy.")] = 10_000,
    config: ConfigOption = None,
) -> None:
    """Show whether the worker is healthy, its lag and its last checkpoint.

    Exit status 0: healthy; 1: not, the lines with `problem` say why; 2: it could not find out, for a wrong option or
    configuration, or a log that cannot be reached.
    """
    chosen = load_config(config, log_url=log)
    with open_log(chosen.log.url, mode="reader", config=chosen.log) as opened:
        found = worker_health(chosen, opened, state, now_ms=int(time.time() * 1000), max_lag=max_lag)
    seconds = "unknown" if found.recovery_seconds is None else f"about {found.recovery_seconds:.0f} s"
    rows = {
        "worker": f"{chosen.engine.worker}, {found.metrics.state if found.metrics else 'never seen'}",
        "lag": f"{sum(found.lag.values())} records  {found.lag}",
        "last step": f"{found.last_step}",
        "last checkpoint": "none" if found.checkpoint_step is None else f"step {found.checkpoint_step}",
        "behind the checkpoint": f"{found.behind_checkpoint} journalled steps; a restart redoes them in {seconds}",
    }
    if found.repartitioned:
        rows["repartitioned"] = (
            f"{found.repartitioned} events lately, which were in another partition than their user's"
        )
    for name, text in rows.items():
        typer.echo(f"{name:21} {text}")
    for problem in found.problems:
        typer.echo(f"{'problem':21} {problem}")
    raise typer.Exit(1 if found.problems else 0)


__all__ = ["status"]
