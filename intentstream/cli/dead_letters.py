"""`intentstream dead-letters list|show|replay`: list refused records, show one, send them again."""

from __future__ import annotations

import re
import sys
import time
from typing import Annotated

import typer

from intentstream.cli.options import ConfigOption, LogOption
from intentstream.config import load_config
from intentstream.printing import readable
from stream.errors import DeadLetterError
from stream.log import open_log
from stream.schema import topics
from stream.worker.dead_letters import PARTITION, DeadLetter, find_dead_letter, newest_dead_letters, replay_dead_letters

ReasonOption = Annotated[str | None, typer.Option("--reason", help="Only those refused for this reason.")]

dead_letters = typer.Typer(
    help="List, show and send again records that were refused.", no_args_is_help=True, add_completion=False
)


def _when(letter: DeadLetter) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(letter.timestamp_ms / 1000))


@dead_letters.command("list")
def list_command(
    log: LogOption = None,
    reason: ReasonOption = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="The newest so many.")] = 50,
    waiting: Annotated[bool, typer.Option("--waiting", help="Only those that were not sent again.")] = False,
    config: ConfigOption = None,
) -> None:
    """One line for each letter: place, time, reason, field, what was there, origin."""
    chosen = load_config(config, log_url=log)
    with open_log(chosen.log.url, mode="reader", config=chosen.log) as opened:
        found = newest_dead_letters(opened, limit, reason, waiting=waiting)
    for letter in found:
        again = "  (sent again)" if letter.replayed else ""
        line = f"{PARTITION}:{letter.offset:<8} {_when(letter)} {letter.reason:15} {letter.field:8} {letter.found:.60}"
        typer.echo(readable(f"{line}  from {letter.origin}{again}"))
    typer.echo(f"{len(found)} dead letters", err=True)


@dead_letters.command("show")
def show_command(
    place: Annotated[str, typer.Argument(metavar="PARTITION:OFFSET", help="As `list` prints it.")],
    log: LogOption = None,
    raw: Annotated[bool, typer.Option("--raw", help="Only the record's own bytes, nothing escaped.")] = False,
    config: ConfigOption = None,
) -> None:
    """Everything about one letter, its own bytes included."""
    if not re.fullmatch(rf"({PARTITION}:)?\d{{1,18}}", place, re.ASCII):
        raise DeadLetterError(
            f"no letter at {place!r}: expected PARTITION:OFFSET; {topics.DEAD_LETTERS} has one partition"
        )
    chosen = load_config(config, log_url=log)
    with open_log(chosen.log.url, mode="reader", config=chosen.log) as opened:
        letter = find_dead_letter(opened, int(place.split(":")[-1]))
    if raw:
        sys.stdout.buffer.write(letter.value or b"")
        return
    rows = {
        "letter": f"{topics.DEAD_LETTERS}[{PARTITION}] offset {letter.offset}",
        "time": _when(letter),
        "origin": letter.origin,
        "reason": letter.reason,
        "field": letter.field,
        "value": letter.found,
        "rule": letter.rule,
        "sent again": "yes" if letter.replayed else "no",
        "key": "none" if letter.key is None else repr(letter.key)[2:-1],
        "whole": "no, cut down" if letter.truncated else "yes",
        "bytes": "none" if letter.value is None else repr(letter.value)[2:-1],
    }
    for name, text in rows.items():
        typer.echo(f"{name:10} {readable(text)}")


@dead_letters.command("replay")
def replay_command(
    log: LogOption = None,
    reason: ReasonOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, oldest first.")] = None,
    config: ConfigOption = None,
) -> None:
    """Append the letters' own bytes to the event topic again, each once, however often this is run or killed.

    A file log has one writer: stop its worker first. On Kafka the worker may run.
    """
    chosen = load_config(config, log_url=log)
    topic = chosen.events.topic
    with open_log(chosen.log.url, config=chosen.log) as opened:
        done = replay_dead_letters(opened, now_ms=int(time.time() * 1000), reason=reason, limit=limit, topic=topic)
    typer.echo(f"{done.sent} letters sent again to {topic}")
    if done.left:
        typer.echo(f"{done.left} left: too large for {topic}, or no longer whole")


__all__ = ["dead_letters"]
