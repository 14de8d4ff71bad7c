"""`intentstream worker`: one worker on a log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from intentstream.cli.options import ConfigOption, InitOption, ItemsOption, LogOption, StateOption
from intentstream.cli.process import stop_on_signals
from intentstream.config import Config, load_config
from intentstream.printing import open_console
from intentstream.terminal import LiveView
from learner.runtime import set_threads
from stream.errors import SchemasUnavailable
from stream.log import EventLog, open_log
from stream.mapping.check import FIRST_RECORDS, check_mapping, decode_records, describe
from stream.mapping.shape import FIELDS, resolve_shape
from stream.mapping.wire import open_reader
from stream.schema import topics
from stream.sources.item_metadata import Titles, read_items
from stream.worker.first_records import first_records
from stream.worker.worker import Worker

logger = logging.getLogger(__name__)


def worker(
    log: LogOption = None,
    state: StateOption = Path("var/state"),
    init: InitOption = None,
    items: ItemsOption = None,
    config: ConfigOption = None,
) -> None:
    """Read the event topic, learn, publish.

    Ctrl-C finishes the step, takes a checkpoint and ends.
    """
    chosen = load_config(config, log_url=log)
    set_threads(chosen.learner.threads)
    titles = read_items(items) if items is not None else None
    stop = stop_on_signals()
    with open_log(chosen.log.url, config=chosen.log) as opened:
        if not chosen.log.url.startswith("kafka:"):  # whoever runs brokers decides on partitions and retention
            opened.create_topics(topics.topic_specs(chosen.log.partitions, chosen.events.topic))
        announce_mapping(chosen, opened)
        run_worker(chosen, opened, state, stop, init=init, titles=titles)


def announce_mapping(chosen: Config, opened: EventLog) -> None:
    """Check `[events]` with the first records of the topic, and print what it takes for what.

    Raises
    ------
    ConfigError
        It is not understood, or does not fit these records.
    """
    events = chosen.events
    if not events.renames:
        return
    shape = resolve_shape(events, chosen.actions.names())
    values = [value for batch in first_records(opened, events.topic, FIRST_RECORDS) for value in batch.values]
    reader = open_reader(events)
    if reader is not None:
        try:
            reader.prepare(values)
        except SchemasUnavailable as exc:
            logger.warning("the mapping is not checked with the first records: %s", exc)
            return
    records = decode_records(values, reader)
    if records:
        check_mapping(shape, records, [field for field in FIELDS if getattr(events, field)])
        open_console(stderr=True).print(f"{events.topic}: {describe(shape, records)}", markup=False, soft_wrap=True)


def run_worker(
    chosen: Config,
    opened: EventLog,
    state: Path,
    stop: Callable[[], bool],
    *,
    feed: Callable[[], object] | None = None,
    title: str = "",
    init: Path | None = None,
    titles: Titles | None = None,
) -> None:
    """Run a worker until `stop`; a terminal shows the live view, anything else plain log lines."""
    console = open_console()
    view = LiveView(console, title or chosen.log.url) if console.is_terminal else None
    show = view.update if view else None
    running = Worker(chosen, opened, state, feed=feed, on_status=show, init=init, titles=titles)
    try:
        with view or nullcontext():
            running.run(stop)
    finally:
        running.close()
    console.print(
        f"stopped after step {running.engine.step_number}: {running.engine.counters['events']:,} events learned, "
        f"checkpoint taken, state in {state}",
        soft_wrap=True,
    )


__all__ = ["announce_mapping", "run_worker", "worker"]
