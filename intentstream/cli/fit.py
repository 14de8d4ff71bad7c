"""`intentstream fit` and `intentstream evaluate`: the ELCRec paper's protocol on a file of sequences."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from intentstream import config_file
from intentstream.cli.process import refuse_overwriting
from intentstream.config import Config
from intentstream.printing import open_console
from learner.offline.config import DeviceName, FitConfig
from learner.offline.evaluation import evaluate as evaluate_model
from learner.offline.files import load_authors, load_fitted, replace
from learner.offline.fit import evaluate_folder
from learner.offline.fit import fit as fit_model
from learner.offline.init_learner import matching
from learner.offline.presets import MODERN, PRESETS
from learner.offline.report import draw_curve, write_report
from learner.offline.sequences import Sequences, read_sequences
from learner.offline.trainer import FitProgress
from stream.errors import ConfigError

Preset = Literal["modern", "beauty", "sports", "toys", "yelp"]
STREAM_CONFIG = "intentstream.toml"  # in the folder of the model
SHOWN = ("hr@5", "ndcg@5", "hr@10", "ndcg@10", "hr@20", "ndcg@20")

DataArgument = Annotated[Path, typer.Argument(help="Lines `user item item ...` in time order, items numbered from 1.")]
ReportOption = Annotated[Path | None, typer.Option("--report", help="Write the figures here, as JSON.")]
ThreadsOption = Annotated[int, typer.Option("--threads", min=1, max=1024, help="Threads of the arithmetic.")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="TOML or JSON file with any of the settings; the rest is the preset's.")
]


def fit(
    data: DataArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder of the model; an interrupted fit goes on from it.")],
    preset: Annotated[Preset, typer.Option(help="modern: ours; the others: the paper's settings.")] = "modern",
    config: ConfigOption = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Most epochs, over the settings'.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of every draw, over the settings'.")] = None,
    report: ReportOption = None,
    curve: Annotated[Path | None, typer.Option(help="Picture of the training [default: OUT/curve.png].")] = None,
    threads: ThreadsOption = 2,
    device: Annotated[
        DeviceName | None, typer.Option(help="Where to calculate, over the settings' [default: auto].")
    ] = None,
) -> None:
    """Train on a file of sequences, choose by the validation items, test once."""
    refuse_overwriting({"--report": report, "--curve": curve}, [data, config])
    torch.set_num_threads(threads)
    console = open_console()
    settings = _settings(preset, config, epochs=epochs, seed=seed, device=device)
    sequences = _read(data, console)
    with _bar(console) as bar:
        task = bar.add_task("epoch", total=None, note="")

        def show(now: FitProgress) -> None:
            found = "" if now.validation is None else f"  validation NDCG@20 {now.validation:.4f}, best {now.best:.4f}"
            place = f"network {now.member} of {settings.members}, epoch {now.epoch} of at most {now.epochs}"
            bar.update(
                task,
                description=place,
                total=settings.members * now.epochs * now.steps,
                completed=((now.member - 1) * now.epochs + now.epoch - 1) * now.steps + now.step,
                note=f"loss {now.loss:.4f}{found}",
            )
            if now.step == now.steps and not console.is_terminal:  # a file shows no bar: a line an epoch
                console.print(f"{place}: loss {now.loss:.4f}{found}", soft_wrap=True)

        try:
            result = fit_model(settings, sequences, out, show)
        except KeyboardInterrupt:
            bar.stop()
            console.print(f"interrupted; the same command goes on after the last finished epoch, kept in {out}")
            raise typer.Exit(130) from None
    draw_curve(curve or out / "curve.png", result.log, f"{data.name}, {preset}")
    if report is not None:
        write_report(report, result.report)
    columns = {name: result.report[name] for name in ("validation", "test")}
    if "network" in result.report:
        columns |= {f"{name}, network alone": result.report["network"][name] for name in ("validation", "test")}
    console.print(_table(columns))
    console.print(
        f"{result.report['epochs']} epochs, best {result.report['best_epoch']}, "
        f"{result.report['epoch_seconds']:.1f} s each; {result.report['peak_rss_mb']:.0f} MB; model in {out}"
    )
    _write_stream_config(out, console)


def _settings(preset: Preset, path: Path | None, **options: object) -> FitConfig:
    """The preset, the file over it, and the options that were given over both."""
    settings = MODERN if preset == "modern" else PRESETS[preset]
    if path is not None:
        settings = config_file.load(path, settings)
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return msgspec.convert(msgspec.to_builtins(settings) | given, FitConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"--epochs, --seed: {error}") from None


def _write_stream_config(out: Path, console: Console) -> None:
    """A configuration of the model's shape, for the stream that is to begin with it."""
    fitted = load_fitted(out)
    if fitted.model.config.score != "dot":
        return  # the stream cannot begin with it
    path, default = out / STREAM_CONFIG, Config()
    config = msgspec.structs.replace(default, learner=matching(default.learner, fitted))
    replace(path, lambda part: part.write_text(config_file.render(config)))
    console.print(f"next: intentstream worker --init {out} --config {path}", soft_wrap=True)


def evaluate(
    data: Annotated[
        list[Path],
        typer.Argument(metavar="[DIR] DATA", help="Folder of `fit`, then the data; with --checkpoint, the data."),
    ],
    checkpoint: Annotated[Path | None, typer.Option(help="Weights that the authors published (.pt).")] = None,
    split: Annotated[Literal["test", "validation"], typer.Option(help="Which answers to find.")] = "test",
    report: ReportOption = None,
    threads: ThreadsOption = 2,
) -> None:
    """Test a model by the paper's protocol.

    All items are ranked; the user's own history is excluded.
    """
    refuse_overwriting({"--report": report}, [*data, checkpoint])
    torch.set_num_threads(threads)
    console = open_console()
    if len(data) != (2 if checkpoint is None else 1):
        wanted = "DIR DATA" if checkpoint is None else "DATA alone beside --checkpoint"
        raise ConfigError(f"evaluate got {len(data)} paths, expected {wanted}")
    sequences = _read(data[-1], console)
    started = time.perf_counter()
    with _bar(console) as bar:
        task = bar.add_task(split, total=len(sequences), note="users")

        def tick(users: int) -> None:
            bar.advance(task, users)

        if checkpoint is None:
            figures = evaluate_folder(data[0], sequences, split, tick)
        else:
            model = load_authors(checkpoint, items=sequences.item_count)
            figures = evaluate_model(model, sequences, split, tick=tick).figures()
            figures["seconds"] = time.perf_counter() - started
    if report is not None:
        write_report(report, figures)
    console.print(_table({split: figures}))
    console.print(
        f"{figures['users']} users, {figures['intents.active']} intents in use, effective number "
        f"{figures['intents.effective']:.1f}; {figures['seconds']:.1f} s"
    )


def _read(path: Path, console: Console) -> Sequences:
    sequences = read_sequences(path)
    if sequences.left_out:
        console.print(
            f"{sequences.left_out} users with fewer than 3 items left out: one each to train, validate and test"
        )
    return sequences


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
    return Progress(*columns, console=console, transient=True)


def _table(columns: dict[str, dict[str, float]]) -> Table:
    table = Table("", *columns)
    for name in SHOWN:
        table.add_row(name.upper(), *(f"{figures[name]:.4f}" for figures in columns.values()))
    return table


__all__ = ["evaluate", "fit"]
