"""`intentstream recommend` and `intentstream why`: one user, read from the newest checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.table import Table

from intentstream.cli.options import ConfigOption, ItemsOption, StateOption
from intentstream.config import load_config
from intentstream.printing import open_console, readable
from learner.runtime import set_threads
from stream.engine.queries import Explanation
from stream.engine.read_only import open_checkpoint
from stream.errors import EngineError
from stream.log import EventLog, OffsetRange, open_log
from stream.log.partitioner import partition_of
from stream.replay.folder import replay_config
from stream.schema import topics
from stream.schema.messages import IntentShift
from stream.sources.item_metadata import Titles, read_items

_READ: Final = 10_000  # newest records of the user's partition that are searched
_decode = msgspec.json.Decoder(IntentShift).decode


UserArgument = Annotated[str, typer.Argument(metavar="USER", help="User id.")]
LengthOption = Annotated[int, typer.Option("-k", min=1, max=1000, help="Length of the list.")]


def recommend(
    user: UserArgument,
    state: StateOption = Path("var/state"),
    k: LengthOption = 10,
    config: ConfigOption = None,
) -> None:
    """Recommend to a user from the newest checkpoint.

    A worker may run on the same folder.
    """
    chosen = load_config(config)
    set_threads(chosen.learner.threads)
    with open_checkpoint(replay_config(chosen, state), state) as engine:
        found = engine.recommend(encoded(user), k)
        known = f"intent {found.intent}" if found.history else "unknown user, popular items"
        typer.echo(f"{readable(user)}: {known}, as of step {engine.step_number}")
        for place, (item, score) in enumerate(zip(found.items, found.scores, strict=True), 1):
            typer.echo(f"{place:4}  {readable(item):40} {score:9.4f}")


def why(
    user: UserArgument,
    state: StateOption = Path("var/state"),
    log: Annotated[
        str | None, typer.Option("--log", help="Log to read the newest shifts from; without it, none are shown.")
    ] = None,
    items: ItemsOption = None,
    k: LengthOption = 10,
    config: ConfigOption = None,
) -> None:
    """Explain a user: history, intent, list, and the reasons for them.

    With a log, the user's newest shifts as well.
    """
    chosen = load_config(config, log_url=log)
    set_threads(chosen.learner.threads)
    titles = {} if items is None else read_items(items)
    wanted = encoded(user)
    with open_checkpoint(replay_config(chosen, state), state) as engine:
        found = engine.explain(wanted, k)
        step = engine.step_number
    shifts = []
    if log is not None:
        with open_log(chosen.log.url, mode="reader", config=chosen.log) as opened:
            shifts = last_shifts(opened, wanted)
    console = open_console()
    for line in _sentences(user, step, found, titles):
        console.print(line, soft_wrap=True)
    console.print(_list_table(found, titles), _shift_table(shifts) if log is not None else "")


def encoded(user: str) -> bytes:
    """The user id as bytes of UTF-8, as the log holds it.

    Raises
    ------
    EngineError
        What was typed is not UTF-8.
    """
    try:
        return user.encode()
    except UnicodeEncodeError:
        raise EngineError(f"user id {user!r}: is not UTF-8, so that no user can have it") from None


def last_shifts(log: EventLog, user: bytes, most: int = 5) -> list[IntentShift]:
    """The user's newest shifts, newest first, among the newest records of the partition that holds them."""
    partition = partition_of(user, log.partition_count(topics.INTENT_SHIFTS))
    begin = log.begin_offsets(topics.INTENT_SHIFTS)[partition]
    end = log.end_offsets(topics.INTENT_SHIFTS)[partition]
    batch = log.read(OffsetRange(topics.INTENT_SHIFTS, partition, max(begin, end - _READ), end))
    own = [value for key, value in zip(batch.keys, batch.values, strict=True) if key == user and value is not None]
    return [_decode(value) for value in own[::-1][:most]]


def _named(item: str, titles: Titles) -> str:
    title = titles.get(item, ("", ""))[0]
    return readable(f"{item} ({title})" if title else item)


def _sentences(user: str, step: int, found: Explanation, titles: Titles) -> list[str]:
    answer = found.answer
    if not answer.history:
        head = f"{readable(user)}: unknown, as of step {step}; popular items"
    else:
        held = "not decided yet" if found.held is None else f"{found.held}, for {found.held_for} events"
        head = (
            f"{readable(user)}, as of step {step}: holds intent {held}; nearest {answer.intent} "
            f"(probability {found.confidence:.3f}), runner-up {found.runner_up}"
        )
    decided = ", ".join(f"{_named(item, titles)} {pull:+.3f}" for item, pull in found.decided)
    history = ", ".join(_named(item, titles) for item in answer.history)
    reasons = ", ".join(_named(item, titles) for item in answer.because)
    return [
        head,
        f"history, oldest first: {history or 'none'}",
        f"drawn to the nearest intent and away from the runner-up: {decided or 'nothing'}",
        f"the list as a whole, because of: {reasons or 'nothing'}",
    ]


def _list_table(found: Explanation, titles: Titles) -> Table:
    answer = found.answer
    table = Table("", "item", "score", "because of", title=f"list, from the {answer.source}", title_justify="left")
    rows = zip(answer.items, answer.scores, found.reasons, strict=True)
    for place, (item, score, own) in enumerate(rows, 1):
        because = ", ".join(_named(one, titles) for one in own)
        table.add_row(str(place), _named(item, titles), f"{score:.4f}", because)
    return table


def _shift_table(shifts: list[IntentShift]) -> Table | str:
    if not shifts:
        return "no shift among the newest messages"
    table = Table(
        "from", "to", "cause", "confidence", "held for", "evidence", title="last shifts", title_justify="left"
    )
    for one in shifts:
        table.add_row(
            str(one.from_intent),
            str(one.to_intent),
            one.cause,
            f"{one.confidence:.2f}",
            f"{one.held_for} events",
            readable(", ".join(one.evidence)),
        )
    return table


__all__ = ["encoded", "last_shifts", "recommend", "why"]
