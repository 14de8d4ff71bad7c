"""The command line. Every refusal is one line on standard error that says what to do; never a traceback.

A command's module is imported when the command runs: `--help` and `status` need neither torch nor the web server.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from typing import Annotated, Any, Final, NamedTuple

import typer
from rich.logging import RichHandler
from typer.core import TyperCommand, TyperGroup

from intentstream.printing import open_console, readable
from learner.errors import LearnerError
from monitor.errors import MonitorError
from state.errors import StateError
from stream.errors import StreamError
from stream.log.base import LogError


class Command(NamedTuple):
    """The location of a command and its line in `--help`."""

    module: str
    function: str
    summary: str


COMMANDS: Final[dict[str, Command]] = {
    name: Command(f"intentstream.cli.{module}", function, summary)
    for name, module, function, summary in (
        ("run", "run", "run", "Run a simulated shop, the log, the worker and the page in one process."),
        ("worker", "worker", "worker", "Read the event topic, learn, publish."),
        ("monitor", "monitor", "monitor", "Serve the page, the HTTP API and the metrics beside a worker."),
        ("simulate", "simulate", "simulate", "Append a simulated shop's events to the log."),
        ("replay", "replay", "replay", "Send a file through the engine and report the accuracy."),
        ("map", "map", "map_records", "Print an events section to start from, for a file or a topic."),
        ("fit", "fit", "fit", "Train on a file of sequences, choose by the validation items, test once."),
        ("evaluate", "fit", "evaluate", "Test a model by the paper's protocol."),
        ("tune", "tune", "tune", "Search for better settings on the first part of a file."),
        ("recommend", "user", "recommend", "Recommend to a user from the newest checkpoint."),
        ("why", "user", "why", "Explain a user: history, intent, list, and the reasons for them."),
        ("status", "status", "status", "Show whether the worker is healthy, its lag and its last checkpoint."),
        ("topics", "topics", "topics", "List, check or create the topics."),
        ("dead-letters", "dead_letters", "dead_letters", "List, show and send again records that were refused."),
        ("verify", "verify", "verify", "Rebuild the state from the journal and compare."),
        ("config", "config", "config", "Print the default configuration file."),
        ("reference", "config", "write_reference", "Write the generated pages of the documentation."),
    )
}


def load(name: str) -> Any:
    """Import a command; returns it as typer runs it."""
    found = getattr(import_module(COMMANDS[name].module), COMMANDS[name].function)
    if not isinstance(found, typer.Typer):
        single = typer.Typer(add_completion=False)
        single.command(name)(found)
        found = single
    command = typer.main.get_command(found)
    command.name = name
    return command


class CommandTable(TyperGroup):
    """The group of all commands; one that is run is imported then, the others stand there with their summary."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, command in COMMANDS.items():
            self.add_command(TyperCommand(name, help=command.summary))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the command that was typed, then resolve it as usual."""
        if args[0] in COMMANDS:
            self.add_command(load(args[0]))
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="intentstream",
    cls=CommandTable,
    help="A recommender that learns while the events arrive.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log each step, with its offsets.")] = False,
) -> None:
    console = open_console(stderr=True)
    level = logging.INFO if verbose else logging.WARNING
    if console.is_terminal:
        logging.basicConfig(level=level, format="%(message)s", handlers=[RichHandler(console=console, show_path=False)])
    else:  # one line a message, however long, for whoever collects them
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s")
    # The log reports the client's retries and failures itself, in one line.
    logging.getLogger("kafka").setLevel(logging.ERROR if verbose else logging.CRITICAL)


def main() -> None:
    """Entry point: known errors become one line and exit status 2."""
    try:
        app()
    except (StreamError, LogError, StateError, LearnerError, MonitorError) as exc:
        sys.stderr.write(f"intentstream: {readable(' '.join(str(exc).split()))}\n")
        sys.exit(2)


__all__ = ["COMMANDS", "app", "load", "main"]
