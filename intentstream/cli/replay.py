"""`intentstream replay`: a recorded file through the engine, with accuracy measured event by event."""

from __future__ import annotations

import json
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console, Group
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from intentstream.cli.options import (
    ActionsOption,
    ColumnsOption,
    ConfigOption,
    EncodingOption,
    EventFileArgument,
    InitOption,
    ItemsOption,
    PresetOption,
    TimeFormatOption,
    TimeOriginOption,
)
from intentstream.cli.process import refuse_overwriting, refuse_unwritable, stop_on_signals
from intentstream.config import Config, load_config
from intentstream.printing import open_console, readable
from learner.runtime import set_threads
from stream.errors import SourceError
from stream.replay.folder import DAY_MS, configure_replay
from stream.replay.runner import ReplayError, ReplayProgress
from stream.replay.runner import replay as replay_file
from stream.sources.files.event_folder import open_events
from stream.sources.files.options import ReadOptions, parse_options
from stream.sources.files.sorted_events import SortedEvents
from stream.sources.files.source import EventSource
from stream.sources.item_metadata import read_items


def replay(
    file: EventFileArgument,
    limit: Annotated[int | None, typer.Option(help="Only so many records.")] = None,
    step_records: Annotated[int | None, typer.Option(min=1, max=100_000, help="Records per step.")] = None,
    evaluate_every: Annotated[int | None, typer.Option(min=0, help="Steps between evaluations; 0 never.")] = None,
    ttl: Annotated[
        float, typer.Option(min=0, max=36_500, help="Forget users unseen for this many days; 0 nobody.")
    ] = 0.0,
    state: Annotated[Path | None, typer.Option("--state", help="Kept, and continued on the same file.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the figures as JSON to this file.")] = None,
    baselines: Annotated[bool, typer.Option(help="Compute the simple baselines beside it.")] = True,
    init: InitOption = None,
    preset: PresetOption = "",
    columns: ColumnsOption = "",
    actions: ActionsOption = "",
    time_format: TimeFormatOption = "",
    time_origin: TimeOriginOption = "",
    encoding: EncodingOption = "",
    sort: Annotated[bool, typer.Option("--sort", help="Put the records in order of time first, in memory.")] = False,
    items: ItemsOption = None,
    intents: Annotated[Path | None, typer.Option(help="Write shifts and users' intents as JSON lines.")] = None,
    config: ConfigOption = None,
) -> None:
    """Send a file through the engine and report the accuracy.

    Every event is ranked before the engine learns from it; simple baselines stand beside it in the table.
    """
    loaded = load_config(config)
    chosen = _settings(loaded, evaluate_every, ttl)
    _refuse_outputs(report, intents, [file, items, config])
    given = (columns, actions, time_format, time_origin, encoding, preset)
    options = parse_options(chosen.actions.names(), *given, loaded.events)
    console = open_console(stderr=True)
    source = _open(file, limit, options, sort, console)
    failed: ReplayError | None = None
    place = nullcontext(state) if state is not None else tempfile.TemporaryDirectory()
    with place as folder, ReplayBar(console) as bar:
        try:
            figures = replay_file(
                chosen,
                source,
                Path(folder),
                keep=state is not None,
                step_records=step_records or chosen.engine.step_records,
                baselines=baselines,
                init=init,
                titles=read_items(items) if items is not None else None,
                intents=intents,
                stop=stop_on_signals(),
                on_step=bar.show,
                now_ms=int(time.time() * 1000),
            )
        except ReplayError as exc:
            figures, failed = exc.report, exc
    _show(figures, report)
    if failed is not None:
        raise failed
    if not figures["complete"]:
        _say_stopped(figures["records"], console, kept=state is not None)


def _refuse_outputs(report: Path | None, intents: Path | None, inputs: list[Path | None]) -> None:
    refuse_overwriting({"--report": report, "--intents": intents}, inputs)
    refuse_unwritable(report)
    refuse_unwritable(intents)


def _say_stopped(records: int, console: Console, *, kept: bool) -> None:
    goes_on = "the same command goes on" if kept else "the figures are of the part before"
    console.print(f"stopped at record {records:,}: {goes_on}")


def _open(path: Path, limit: int | None, options: ReadOptions, sort: bool, console: Console) -> EventSource:
    file = open_events(path, limit, options)
    console.print(f"{path}: {file.format}")
    return SortedEvents(file) if sort else file


def _settings(chosen: Config, evaluate_every: int | None, ttl_days: float) -> Config:
    set_threads(chosen.learner.threads)
    if evaluate_every is not None:
        engine = msgspec.structs.replace(chosen.engine, evaluate_every=evaluate_every)
        chosen = msgspec.structs.replace(chosen, engine=engine)
    return configure_replay(chosen, round(ttl_days * DAY_MS))


class ReplayBar:
    """The bar on the terminal: how far, how fast, how accurate so far."""

    def __init__(self, console: Console) -> None:
        columns = (
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[events]:,} events"),
            TextColumn("{task.fields[rate]:,.0f}/s"),
            TimeRemainingColumn(),
            TextColumn("NDCG@20 {task.fields[ndcg]}"),
        )
        self._bar = Progress(*columns, console=console)
        self._task = self._bar.add_task("", total=1.0, events=0, rate=0.0, ndcg="-")
        self._began = time.monotonic()
        self._first: int | None = None  # records before this run: a kept folder goes on

    def __enter__(self) -> ReplayBar:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def show(self, progress: ReplayProgress) -> None:
        """Take over where the replay stands after a step."""
        self._first = progress.records if self._first is None else self._first
        rate = (progress.records - self._first) / max(time.monotonic() - self._began, 1e-3)
        accuracy = progress.engine.accuracy.prequential.result()
        ndcg = f"{accuracy['ndcg@20']:.4f}" if accuracy["n"] else "-"
        self._bar.update(self._task, completed=progress.fraction, events=progress.records, rate=rate, ndcg=ndcg)


def _show(figures: dict[str, Any], path: Path | None) -> None:
    open_console().print(report_table(figures))
    if path is None:
        return
    try:
        path.write_text(json.dumps(figures, indent=2) + "\n")
    except OSError as exc:
        raise SourceError(f"{path}: cannot be written: {exc.strerror}") from exc


def report_table(figures: dict[str, Any]) -> Group:
    """The report as tables for the terminal."""
    pace = f"{figures['events_per_second']:,.0f} events/s in the engine"
    speed = f"{figures['seconds']:.1f} s, {pace}, peak memory {figures['peak_rss_mb']:,.0f} MB"
    intents = (
        f"intents: {figures['intents']['active']:.0f} active, effective number {figures['intents']['effective']:.1f}"
    )
    return Group(Text(_counts(figures)), speed, intents, _accuracy(figures), f"digest {figures['digest']}")


def _counts(figures: dict[str, Any]) -> str:
    counts = ["events", "users", "items", "dead_letters", "duplicates", "late"]
    counts += [name for name in ("unknown_fields", "values_dropped", "skipped", "erased") if figures[name]]
    lines = ["  ".join(f"{name.replace('_', ' ')} {figures[name]:,}" for name in counts)]
    if figures["items_recycled"]:
        lines.append(
            f"items recycled {figures['items_recycled']:,}: learner.capacity holds {figures['items']:,} at a time"
        )
    first = figures["first_dead_letter"]
    if first is not None:
        refused = "  ".join(f"{reason} {count:,}" for reason, count in figures["dead_letters_by_reason"].items())
        example = " ".join(f"{first['field']} = {first['value']}: {first['rule']}".split())
        lines.append(f"dead letters by reason: {refused}; the first is record {first['record']:,}: {readable(example)}")
    if figures["unknown_actions"]:
        names = ", ".join(f"{name} {count:,}" for name, count in figures["unknown_actions"].items())
        lines.append(f"unknown actions: {readable(names)}; --actions NAME=KNOWN maps them")
    return "\n".join(lines)


def _accuracy(figures: dict[str, Any]) -> Table:
    table = Table(title="accuracy, every event ranked before it was learned", title_justify="left")
    names = [name for name in figures["prequential"] if name != "n"]
    table.add_column("method")
    for name in [*names, "n"]:
        table.add_column(name, justify="right")
    rows = {"intentstream": figures["prequential"], "  as served": figures["served"], **figures["baselines"]}
    for method, values in rows.items():
        shown = [f"{values[name]:.4f}" if values["n"] else "-" for name in names]  # avoid 0 for an empty sample
        table.add_row(method, *shown, f"{values['n']:,}")
    return table


__all__ = ["ReplayBar", "replay", "report_table"]
