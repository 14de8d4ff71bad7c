"""`intentstream tune`: a bounded search over the learner's settings on the first part of a recorded stream."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from intentstream import config_file
from intentstream.cli.options import (
    ActionsOption,
    ColumnsOption,
    EncodingOption,
    EventFileArgument,
    PresetOption,
    TimeFormatOption,
    TimeOriginOption,
)
from intentstream.cli.process import refuse_overwriting
from intentstream.config import Config, load_config
from intentstream.printing import open_console
from learner.offline.files import replace
from learner.offline.tuning import MOST_TRIALS, Recorded, SearchEnded, Trial
from learner.offline.tuning import tune as search
from learner.runtime import set_threads
from stream.errors import ConfigError, SourceError
from stream.schema.decoder import Decoder
from stream.sources.files.event_file import EventFile
from stream.sources.files.event_folder import EventFolder, open_events
from stream.sources.files.options import parse_options

FEWEST_EVENTS: Final = 100  # below that, a difference between two settings is chance


def tune(
    file: EventFileArgument,
    out: Annotated[Path, typer.Option("--out", help="The configuration file to write.")] = Path("tuned.toml"),
    trials: Annotated[int, typer.Option(min=1, max=MOST_TRIALS, help="Most runs, the first with what is given.")] = 12,
    limit: Annotated[int, typer.Option(help="Records from the start of the file that a run goes over.")] = 50_000,
    seconds: Annotated[float, typer.Option(min=1, help="Longest search; an unfinished run does not count.")] = 1800.0,
    judge_from: Annotated[
        float, typer.Option(min=0, max=0.95, help="Share of the records that only train; the rest judges.")
    ] = 0.5,
    preset: PresetOption = "",
    columns: ColumnsOption = "",
    actions: ActionsOption = "",
    time_format: TimeFormatOption = "",
    time_origin: TimeOriginOption = "",
    encoding: EncodingOption = "",
    config: Annotated[
        Path | None, typer.Option("--config", help="Where the search starts; what it does not touch is kept.")
    ] = None,
) -> None:
    """Search for better settings on the first part of a file.

    The settings found are written as a configuration file.
    """
    base = load_config(config)
    set_threads(base.learner.threads)
    _refuse_place(out, file)
    console = open_console()
    given = (columns, actions, time_format, time_origin, encoding, preset)
    options = parse_options(base.actions.names(), *given, base.events)
    stream, found = record(open_events(file, limit, options), base)
    console.print(f"{file}: {found}")
    until = time.monotonic() + seconds
    with _progress(console) as bar:
        task = bar.add_task("run 1", total=trials * len(stream), best="")
        done: list[Trial] = []

        def step(setting: str, value: Any, events: int) -> None:
            if time.monotonic() > until:
                raise SearchEnded
            named = setting if value is None else f"{setting} = {value}"
            bar.update(
                task,
                description=f"run {len(done) + 1} of at most {trials}: {named}",
                completed=len(done) * len(stream) + events,
            )

        def finished(trial: Trial) -> None:
            done.append(trial)
            bar.update(task, best=f"best NDCG@20 {max(trial.ndcg for trial in done):.4f}")

        try:
            learner, _ = search(stream, base.learner, trials, judge_from, finished, step, base.engine.step_records)
        except SearchEnded:
            raise ConfigError(
                f"--seconds {seconds:g}: not enough for one run over {len(stream)} events: raise it, or lower --limit"
            ) from None
    head = (
        f"# Tuned on {len(stream)} events of {file.name}: {judge_from:.0%} of them to train on, the rest to judge by.\n"
    )
    _write(out, head, done, msgspec.structs.replace(base, learner=learner), console)


def record(file: EventFile | EventFolder, config: Config) -> tuple[Recorded, str]:
    """The file's good events in order of time as arrays, and what they are in words; dislikes are left out.

    Raises
    ------
    SourceError
        Too few events to judge anything by.
    ConfigError
        More items than the learner may hold.
    """
    decoder, weight = Decoder(config.actions), np.array(config.actions.weights(), dtype=np.float32)
    users: list[bytes] = []
    items: list[str] = []
    times, weights, bad = [], [], 0
    for chunk in file:
        decoded = decoder.decode(chunk.values, chunk.keys)
        users += decoded.events.users
        items += decoded.events.items
        times.append(decoded.events.ts)
        weights.append(weight[decoded.events.actions])
        bad += len(decoded.rejections)
    all_ts = np.concatenate(times) if times else np.zeros(0, np.int64)
    all_weights = np.concatenate(weights) if weights else np.zeros(0, np.float32)
    order = np.argsort(all_ts, kind="stable")
    order = order[all_weights[order] > 0]
    if len(order) < FEWEST_EVENTS:
        raise SourceError(
            f"{file.path}: {len(order)} events to tune on ({bad} bad records), expected {FEWEST_EVENTS} or more: "
            "raise --limit, or take a longer file"
        )
    places = order.tolist()
    stream = Recorded([users[i] for i in places], [items[i] for i in places], all_ts[order], all_weights[order])
    held = int(stream.items.max())
    if held > config.learner.capacity:
        raise ConfigError(
            f"{file.path}: {held} items, learner.capacity is {config.learner.capacity}: raise it, or lower --limit"
        )
    left_out = len(all_ts) - len(order)
    words = f"{file.format}: {len(order):,} events of {len(set(users)):,} users on {held:,} items"
    return stream, words + f"; left out: {bad} bad records, {left_out} dislikes"


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[best]}"))
    return Progress(*columns, console=console, transient=True)


def _write(out: Path, head: str, done: list[Trial], chosen: Config, console: Console) -> None:
    """Write the chosen configuration below what was found, and show the runs."""
    best = max(trial.ndcg for trial in done)
    head += f"# NDCG@20 {done[0].ndcg:.4f} before, {best:.4f} after {len(done)} runs.\n"
    replace(out, lambda path: path.write_text(head + config_file.render(chosen), encoding="utf-8"))
    console.print(_table(done))
    console.print(f"written: {out}")


def _refuse_place(out: Path, file: Path) -> None:
    """A search of half an hour must not end in a folder that is not there, nor replace its events."""
    refuse_overwriting({"--out": out}, [file])
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: no folder {out.parent}: make it, or choose another place")
    if out.is_dir():
        raise ConfigError(f"--out {out}: is a folder: name a file in it, such as {out / 'tuned.toml'}")


def _table(trials: list[Trial]) -> Table:
    table = Table("setting", "value", "NDCG@20", "")
    for trial in trials:
        value = "" if trial.value is None else str(trial.value)
        table.add_row(trial.setting, value, f"{trial.ndcg:.4f}", "kept" if trial.kept else "")
    return table


__all__ = ["record", "tune"]
