"""`intentstream verify`: rebuild the state from the journal and compare."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn

from intentstream.cli.options import ConfigOption, ItemsOption, LogOption, StateOption
from intentstream.config import load_config
from intentstream.printing import open_console
from learner.runtime import set_threads
from stream.log import open_log
from stream.sources.item_metadata import read_items
from stream.worker import verify as verification


def verify(
    log: LogOption = None,
    state: StateOption = Path("var/state"),
    config: ConfigOption = None,
    scratch: Annotated[
        Path | None, typer.Option(help="Folder for the rebuilt state; a temporary one otherwise.")
    ] = None,
    items: ItemsOption = None,
    from_checkpoint: Annotated[
        bool, typer.Option(help="Begin at the oldest checkpoint, not at the journal's start.")
    ] = False,
) -> None:
    """Rebuild the state from the journal and compare.

    Digests and published messages must be equal; exits with 1 at the first difference.
    """
    chosen = load_config(config, log_url=log)
    set_threads(chosen.learner.threads)
    with (
        open_log(chosen.log.url, mode="reader", config=chosen.log) as opened,
        tempfile.TemporaryDirectory() as temporary,
        Progress(
            SpinnerColumn(), "step {task.completed}", TimeElapsedColumn(), console=open_console(stderr=True)
        ) as progress,
    ):
        task = progress.add_task("", total=None)
        found = verification.verify(
            chosen,
            opened,
            state,
            scratch or Path(temporary),
            from_oldest_checkpoint=from_checkpoint,
            titles=read_items(items) if items is not None else None,
            on_step=lambda step: progress.update(task, completed=step),
        )
    compared = "no checkpoint" if found.checkpoint_step is None else f"the checkpoint at step {found.checkpoint_step}"
    typer.echo(f"{found.steps} steps, {found.messages} messages, {compared}; digest {found.digest}")
    if found.log_files:
        typer.echo(f"all {found.log_files} files of the log match their checksums")
    typer.echo(f"first difference: {found.difference}" if found.difference else "everything is equal")
    raise typer.Exit(1 if found.difference else 0)


__all__ = ["verify"]
