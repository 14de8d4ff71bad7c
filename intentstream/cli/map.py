"""`intentstream map`: a section `[events]` to start from, for a file or a topic."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from intentstream.cli.options import ConfigOption, LogOption
from intentstream.config import load_config
from stream.errors import ConfigError, SourceError
from stream.log import open_log
from stream.mapping.check import FIRST_RECORDS, decode_records
from stream.mapping.suggest import Suggestion, suggest, suggest_columns
from stream.schema import topics
from stream.sources.files.containers import open_text
from stream.sources.files.event_file import EventFile
from stream.sources.files.spool import spool
from stream.worker.first_records import first_records


def map_records(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE_OR_TOPIC", help="A file, - for standard input, kafka://HOST:PORT/TOPIC or a topic."
        ),
    ],
    log: LogOption = None,
    config: ConfigOption = None,
) -> None:
    """Print an events section to start from, for a file or a topic.

    It looks at the first records; comments name what is not sure. The output is a configuration file as it is.
    """
    chosen = load_config(config, log_url=log)
    known = chosen.actions.names()
    if source == "-" or (not source.startswith("kafka://") and Path(source).exists()):
        typer.echo(str(_of_file(Path(source), known)), nl=False)
        return
    url, topic = chosen.log.url, source
    if source.startswith("kafka://"):
        url, _, topic = source.rpartition("/")
        if not topic or url.endswith("/"):
            raise ConfigError(f"{source}: expected a topic behind the brokers, such as kafka://localhost:9092/clicks")
    elif not url.startswith("kafka:") and not Path(url.removeprefix("file://")).exists():
        raise SourceError(f"{source}: there is no such file, and no log at {url} with such a topic")
    with open_log(url, mode="reader", config=chosen.log) as opened:
        batches = first_records(opened, topic, FIRST_RECORDS)
    values = [value for batch in batches for value in batch.values]
    if not values:
        raise ConfigError(f"topic {topic}: holds no record yet")
    if any(value is not None and value[:1] == b"\0" for value in values):
        raise ConfigError(
            f"topic {topic}: holds records framed with the id of a schema: set events.format and events.registry_url, "
            "and name the fields of the schema in events.user, events.item, events.ts"
        )
    pairs = [(key, value) for one in batches for key, value in zip(one.keys, one.values, strict=True)]
    rows = [(key, record) for key, value in pairs for record in decode_records([value])]
    if not rows:
        raise ConfigError(f"topic {topic}: none of the first {len(values)} records is a JSON object")
    keys, records = [key for key, _ in rows], [record for _, record in rows]
    typer.echo(str(suggest(records, known, keys, topic if topic != topics.EVENTS else "")), nl=False)


def _of_file(path: Path, known: list[str]) -> Suggestion:
    on_disk, copy = spool(path)
    try:
        records = _json_records(on_disk)
        if records:
            return suggest(records, known)
        found = EventFile(on_disk).format
        return suggest_columns(found.columns, found.unused, found.unit)
    finally:
        if copy is not None:
            copy.close()


def _json_records(path: Path) -> list[Any]:
    """The first objects of a file of JSON lines, or of one array; none when it is something else."""
    try:
        with open_text(path) as text:
            first = text.readline(1 << 20)
            if first.lstrip()[:1] == "[":
                whole = msgspec.json.decode(first + text.read())
                return [one for one in whole[:FIRST_RECORDS] if isinstance(one, dict)]
            if first.lstrip()[:1] != "{":
                return []
            lines = itertools.chain([first], itertools.islice(text, FIRST_RECORDS - 1))
            return decode_records([line.encode() for line in lines])
    except (OSError, UnicodeError, msgspec.MsgspecError):
        return []


__all__ = ["map_records"]
