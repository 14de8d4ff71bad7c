"""`intentstream why USER`: what is known of a user, and what decided it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console, Group
from rich.table import Table

from intentstream.config import load_config
from stream.engine.engine import open_checkpoint
from stream.engine.queries import Explanation
from stream.errors import EngineError
from stream.log import EventLog, OffsetRange, open_log
from stream.log.partitioner import partition_of
from stream.replay.folder import replay_config
from stream.schema import topics
from stream.schema.messages import IntentShift
from stream.sources.item_metadata import Titles, read_items

_READ: Final = 10_000  # newest records of the user's partition that are looked through
_decode = msgspec.json.Decoder(IntentShift).decode


def why(
    user: Annotated[str, typer.Argument(help="User id.")],
    state: Annotated[Path, typer.Option("--state", help="State folder.")] = Path("var/state"),
    log: Annotated[
        str | None, typer.Option("--log", help="Where the last shifts are looked for; without it, none are shown.")
    ] = None,
    items: Annotated[Path | None, typer.Option("--items", help="Titles: CSV or JSON lines.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Length of the list.")] = 10,
    config: Annotated[Path | None, typer.Option("--config", help="TOML file; see `intentstream config`.")] = None,
) -> None:
    """Explain a user: history, intent, the events that decided it, the list and its reasons, the last shifts."""
    chosen = load_config(config, log_url=log)
    titles = {} if items is None else read_items(items)
    wanted = encoded(user)
    with open_checkpoint(replay_config(chosen, state), state) as engine:
        found = engine.explain(wanted, k)
        step = engine.step_number
    shifts = []
    if log is not None:
        with open_log(chosen.log.url, mode="reader", config=chosen.log) as opened:
            shifts = last_shifts(opened, wanted)
    Console().print(_shown(user, step, found, titles), _shift_table(shifts) if log is not None else "")


def encoded(user: str) -> bytes:
    """A user id as the log has it; `EngineError` for what the terminal gave that is no UTF-8."""
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
    return f"{item} ({title})" if title else item


def _shown(user: str, step: int, found: Explanation, titles: Titles) -> Group:
    answer = found.answer
    if not answer.history:
        head = f"{user}: unknown, as of step {step}; popular items"
    else:
        held = "not decided yet" if found.held is None else f"{found.held}, for {found.held_for} events"
        head = (
            f"{user}, as of step {step}: holds intent {held}; nearest {answer.intent} "
            f"(probability {found.confidence:.3f}), runner-up {found.runner_up}"
        )
    decided = ", ".join(f"{_named(item, titles)} {pull:+.3f}" for item, pull in found.decided)
    history = ", ".join(_named(item, titles) for item in answer.history)
    table = Table("", "item", "score", "because of", title=f"list, from the {answer.source}", title_justify="left")
    reasons = ", ".join(_named(item, titles) for item in answer.because)
    rows = zip(answer.items, answer.scores, found.reasons, strict=True)
    for place, (item, score, own) in enumerate(rows, 1):
        because = ", ".join(_named(one, titles) for one in own)
        table.add_row(str(place), _named(item, titles), f"{score:.4f}", because)
    return Group(
        head,
        f"history, oldest first: {history or 'none'}",
        f"drawn to the nearest intent and away from the runner-up: {decided or 'nothing'}",
        f"the list as a whole, because of: {reasons or 'nothing'}",
        table,
    )


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
            ", ".join(one.evidence),
        )
    return table


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(why)


__all__ = ["last_shifts", "register"]
