"""The command line. Every refusal is one line on standard error that says what to do; never a traceback."""

from __future__ import annotations

import json
import logging
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console, Group
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

import monitor
from intentstream import reference
from intentstream.cli import dead_letters, fit, intents, tune
from intentstream.config import Config, dump_default, load_config
from intentstream.terminal import LiveView
from learner import LearnerError, set_threads
from state import StateError
from stream.engine.engine import open_checkpoint
from stream.errors import SourceError, StreamError
from stream.log import EventLog, LogError, open_log
from stream.replay.folder import of_one_partition, replay_config
from stream.replay.runner import FileTruncated, ReplayProgress, replay
from stream.schema import topics
from stream.sources.files.event_file import EventFile
from stream.sources.item_metadata import Titles, read_items
from stream.sources.simulator.shop import Shop
from stream.worker.status import worker_health
from stream.worker.verify import verify
from stream.worker.worker import Worker

app = typer.Typer(
    name="intentstream",
    help="A recommender that learns while the events arrive.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
logger = logging.getLogger(__name__)

ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML file; see `intentstream config`.")]
LogOption = Annotated[str | None, typer.Option("--log", help="file:///DIR or kafka://host:port[,host:port].")]
StateOption = Annotated[Path, typer.Option("--state", help="State folder.")]
InitOption = Annotated[
    Path | None, typer.Option("--init", help="Folder of `intentstream fit`: a new state begins with its model.")
]
ItemsOption = Annotated[
    Path | None, typer.Option("--items", help="Titles and categories, CSV or JSON lines; they name the intents.")
]


def settings(path: Path | None, log_url: str | None = None) -> Config:
    """The configuration with the command line's log in it; sets the process's thread count, once."""
    config = load_config(path, log_url=log_url)
    set_threads(config.learner.threads)
    return config


def refuse_unwritable(path: Path | None) -> None:
    """Find out before the work what would otherwise be found out when it is done, and lost.

    Raises
    ------
    SourceError
        The file cannot be written.
    """
    if path is None:
        return
    try:
        new = not path.exists()
        path.open("ab").close()
        if new:
            path.unlink()
    except OSError as exc:
        raise SourceError(f"{path}: cannot be written: {exc.strerror}: give another file") from exc


def stop_on_signals() -> Callable[[], bool]:
    """Return a function that turns true after SIGINT or SIGTERM; a second signal ends the process at once."""
    stopping = False

    def handle(signum: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            raise SystemExit(130)
        stopping = True

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    return lambda: stopping


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is done, with coordinates.")] = False,
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=Console(stderr=True), show_path=False)],
    )
    logging.getLogger("kafka").setLevel(logging.ERROR)  # its retries are ours to report


@app.command("config")
def print_config() -> None:
    """Print the default configuration file, every key with meaning, unit and range."""
    typer.echo(dump_default())


@app.command()
def worker(
    log: LogOption = None,
    state: StateOption = Path("var/state"),
    init: InitOption = None,
    items: ItemsOption = None,
    config: ConfigOption = None,
) -> None:
    """Read the event topic, learn, publish; Ctrl-C finishes the step, takes a checkpoint and ends."""
    chosen = settings(config, log)
    titles = read_items(items) if items is not None else None
    stop = stop_on_signals()
    with open_log(chosen.log.url, config=chosen.log) as opened:
        if not chosen.log.url.startswith("kafka:"):  # whoever runs brokers decides on partitions and retention
            opened.create_topics(topics.topic_specs(chosen.log.partitions))
        _work(chosen, opened, state, stop, init=init, titles=titles)


def _work(
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
    """Run a worker with the live view when there is a terminal, with plain log lines otherwise."""
    console = Console()
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
        f"checkpoint taken, state in {state}"
    )


@app.command("replay")
def replay_command(
    file: Annotated[
        Path, typer.Argument(help="CSV, JSON lines, Parquet, MovieLens or ELCRec text, any of them gzipped.")
    ],
    limit: Annotated[int | None, typer.Option(help="Only so many records.")] = None,
    step_events: Annotated[int | None, typer.Option(min=1, max=100_000, help="Records per step.")] = None,
    evaluate_every: Annotated[int | None, typer.Option(min=0, help="Steps between evaluations; 0 never.")] = None,
    state: Annotated[Path | None, typer.Option("--state", help="Kept, and continued on the same file.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the figures as JSON to this file.")] = None,
    baselines: Annotated[bool, typer.Option(help="Compute the simple baselines beside it.")] = True,
    init: InitOption = None,
    items: ItemsOption = None,
    intents: Annotated[Path | None, typer.Option(help="Write shifts and users' intents as JSON lines.")] = None,
    config: ConfigOption = None,
) -> None:
    """Send a file through the engine: live accuracy while it runs, a table at the end."""
    chosen = settings(config)
    engine = chosen.engine
    if evaluate_every is not None:
        engine = msgspec.structs.replace(engine, evaluate_every=evaluate_every)
    chosen = of_one_partition(msgspec.structs.replace(chosen, engine=engine))
    refuse_unwritable(report)
    source = EventFile(file, limit)
    titles = read_items(items) if items is not None else None
    stop = stop_on_signals()
    console = Console(stderr=True)
    console.print(f"{file}: {source.format}", highlight=False)
    columns = (
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[events]:,} events"),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TimeRemainingColumn(),
        TextColumn("NDCG@20 {task.fields[ndcg]}"),
    )
    began = time.monotonic()
    failed: FileTruncated | None = None
    with tempfile.TemporaryDirectory() as temporary, Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=1.0, events=0, rate=0.0, ndcg="-")
        first: int | None = None

        def show(progress: ReplayProgress) -> None:
            nonlocal first
            first = progress.records if first is None else first
            rate = (progress.records - first) / max(time.monotonic() - began, 1e-3)
            accuracy = progress.engine.prequential.result()
            ndcg = f"{accuracy['ndcg@20']:.4f}" if accuracy["n"] else "-"
            bar.update(task, completed=progress.fraction, events=progress.records, rate=rate, ndcg=ndcg)

        try:
            figures = replay(
                chosen,
                source,
                state or Path(temporary),
                keep=state is not None,
                step_events=step_events or engine.step_events,
                baselines=baselines,
                init=init,
                titles=titles,
                intents=intents,
                stop=stop,
                on_step=show,
            )
        except FileTruncated as exc:
            figures, failed = exc.report, exc
    Console().print(report_table(figures))
    if report is not None:
        try:
            report.write_text(json.dumps(figures, indent=2) + "\n")
        except OSError as exc:
            raise SourceError(f"{report}: cannot be written: {exc.strerror}") from exc
    if failed is not None:
        raise failed
    if not figures["complete"]:
        goes_on = "the same command goes on" if state is not None else "the figures are of the part before"
        console.print(f"stopped at record {figures['records']:,}: {goes_on}", highlight=False)


def report_table(figures: dict[str, Any]) -> Group:
    """The report as tables for the terminal."""
    counts = ["events", "users", "items", "dead_letters", "duplicates", "late"]
    counts += [name for name in ("unknown_fields", "erased") if figures[name]]
    line = "  ".join(f"{name.replace('_', ' ')} {figures[name]:,}" for name in counts)
    first = figures["first_dead_letter"]
    refused = "  ".join(f"{reason} {count:,}" for reason, count in figures["dead_letters_by_reason"].items())
    letters = ""
    if first is not None:
        letters = f"\ndead letters by reason: {refused}; the first is record {first['record']:,}: " + " ".join(
            f"{first['field']} = {first['value']}: {first['rule']}".split()
        )
    if figures["items_recycled"]:
        line += f"\nitems recycled {figures['items_recycled']:,}: learner.capacity holds {figures['items']:,} at a time"
    pace = f"{figures['events_per_second']:,.0f} events/s in the engine"
    speed = f"{figures['seconds']:.1f} s, {pace}, peak memory {figures['peak_rss_mb']:,.0f} MB"
    table = Table(title="accuracy, every event ranked before it was learned", title_justify="left")
    names = [name for name in figures["prequential"] if name != "n"]
    table.add_column("method")
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("n", justify="right")
    rows = {"intentstream": figures["prequential"], "  as served": figures["served"], **figures["baselines"]}
    for method, values in rows.items():
        shown = [f"{values[name]:.4f}" if values["n"] else "-" for name in names]  # of nothing, no figure is a bad one
        table.add_row(method, *shown, f"{values['n']:,}")
    intents = (
        f"intents: {figures['intents']['active']:.0f} active, effective number {figures['intents']['effective']:.1f}"
    )
    return Group(Text(line + letters), speed, intents, table, f"digest {figures['digest']}")


@app.command()
def run(
    folder: Annotated[Path, typer.Option("--dir", help="Holds log, state and view.")] = Path("var"),
    rate: Annotated[float, typer.Option(min=1, max=100_000, help="Simulated events per second.")] = 300.0,
    seed: Annotated[int, typer.Option(help="Of the simulated shop.")] = 1,
    page: Annotated[bool, typer.Option(help="Serve the page and the HTTP API, at http://127.0.0.1:8050.")] = True,
    items: ItemsOption = None,
    config: ConfigOption = None,
) -> None:
    """Everything in one process: a simulated shop, the log, the worker, the page; Ctrl-C stops in order."""
    chosen = settings(config, f"file://{(folder / 'log').resolve()}")
    titles = read_items(items) if items is not None else None
    stop = stop_on_signals()
    with open_log(chosen.log.url, config=chosen.log) as opened:
        opened.create_topics(topics.topic_specs(chosen.log.partitions))
        shop = Shop(chosen.simulate, opened, state=folder / "shop.npz", seed=seed, rate=rate)
        title = f"a simulated shop at {rate:,.0f} events/s"
        with _page(chosen, folder / "view") if page else nullcontext("") as url:
            if url and not Console().is_terminal:  # nobody sees the live view, which has it in its title
                typer.echo(f"the page and the HTTP API: {url}")
            _work(chosen, opened, folder / "state", stop, feed=shop.feed, title=f"{title}  {url}", titles=titles)
        shop.save()


@contextmanager
def _page(chosen: Config, view: Path) -> Iterator[str]:
    """The page and the API in a thread, on handles of their own; gives the URL."""
    url = chosen.log.url
    with (
        open_log(url, mode="reader", config=chosen.log) as reader,
        open_log(url, mode="producer", config=chosen.log) as producer,
        monitor.serve(reader, chosen.monitor, view, producer, actions=chosen.actions) as address,
    ):
        yield address


@app.command("monitor")
def monitor_command(
    log: LogOption = None,
    view: Annotated[Path, typer.Option("--view", help="Folder of the current view.")] = Path("var/view"),
    config: ConfigOption = None,
) -> None:
    """Serve the page, the HTTP API and the metrics beside a worker, from the topics alone."""
    chosen = settings(config, log)
    url = chosen.log.url
    stop_on_signals()  # the server stops in order and then raises the signal again: with this it ends with status 0
    with (
        open_log(url, mode="reader", config=chosen.log) as reader,
        open_log(url, mode="producer", config=chosen.log) as producer,
    ):
        monitor.run(reader, chosen.monitor, view, producer, actions=chosen.actions)


@app.command("reference")
def reference_command(docs: Annotated[Path, typer.Argument(help="The documentation folder.")] = Path("docs")) -> None:
    """Write the generated pages: configuration, topics, JSON Schemas with examples."""
    for name in reference.write(docs):
        typer.echo(f"written: {name}")


@app.command()
def simulate(
    log: LogOption = None,
    rate: Annotated[float, typer.Option(min=0, help="Events per second; 0: as fast as it goes.")] = 300.0,
    limit: Annotated[int | None, typer.Option(help="Stop after so many events.")] = None,
    seed: Annotated[int, typer.Option(help="Of the shop.")] = 1,
    truth: Annotated[
        Path | None, typer.Option(help="Write what is true (intents, switches, drifts) to this file.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option("--keep", help="File that keeps the shop's state: the next start goes on, not anew.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Append a simulated shop's events to the log; a worker may be running on it."""
    chosen = settings(config, log)
    if limit is not None and limit < 1:
        raise SourceError(f"limit {limit}: must be at least 1; leave it out to go on until Ctrl-C")
    refuse_unwritable(truth)
    stop = stop_on_signals()
    with open_log(chosen.log.url, mode="producer", config=chosen.log) as opened:
        opened.create_topics(topics.topic_specs(chosen.log.partitions))
        shop = Shop(chosen.simulate, opened, state=keep, seed=seed, rate=rate, truth=truth)
        while not stop() and (limit is None or shop.made < limit):
            shop.feed(limit=None if limit is None else limit - shop.made)
            if rate:
                time.sleep(0.02)
        shop.save()
    typer.echo(f"{shop.made:,} events appended to {chosen.log.url}")


@app.command("topics")
def topics_command(
    log: LogOption = None,
    create: Annotated[bool, typer.Option("--create", help="Create the topics that are missing.")] = False,
    config: ConfigOption = None,
) -> None:
    """List the topics, or create them; exits with 2 when one is missing or has other settings."""
    chosen = settings(config, log)
    specs = topics.topic_specs(chosen.log.partitions)
    with open_log(chosen.log.url, mode="producer" if create else "reader", config=chosen.log) as opened:
        if create:
            opened.create_topics(specs)
        opened.check_topics(specs)
        for spec in specs:
            typer.echo(f"{spec.name:32} {spec.partitions:4} partitions  {spec.cleanup}")


@app.command()
def recommend(
    user: str,
    state: StateOption = Path("var/state"),
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Length of the list.")] = 10,
    config: ConfigOption = None,
) -> None:
    """Recommend to a user from the newest checkpoint, without disturbing a worker that runs."""
    with open_checkpoint(replay_config(settings(config), state), state) as engine:
        found = engine.recommend(intents.encoded(user), k)
        known = f"intent {found.intent}" if found.history else "unknown user, popular items"
        typer.echo(f"{user}: {known}, as of step {engine.step_number}")
        for place, (item, score) in enumerate(zip(found.items, found.scores, strict=True), 1):
            typer.echo(f"{place:4}  {item:40} {score:9.4f}")


@app.command("verify")
def verify_command(
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
    """Rebuild the state from the journal and compare digests and published messages; exits with 1 at a difference."""
    chosen = settings(config, log)
    with (
        open_log(chosen.log.url, mode="reader", config=chosen.log) as opened,
        tempfile.TemporaryDirectory() as temporary,
        Progress(
            SpinnerColumn(), "step {task.completed}", TimeElapsedColumn(), console=Console(stderr=True)
        ) as progress,
    ):
        task = progress.add_task("", total=None)
        found = verify(
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
    typer.echo(f"first difference: {found.difference}" if found.difference else "everything is equal")
    raise typer.Exit(1 if found.difference else 0)


@app.command()
def status(
    log: LogOption = None,
    state: StateOption = Path("var/state"),
    max_lag: Annotated[int, typer.Option(min=0, help="Records waiting above which the worker is unhealthy.")] = 10_000,
    config: ConfigOption = None,
) -> None:
    """Lag, last step, last checkpoint, time a restart would take.

    Exit status 0: healthy; 1: not, the lines with `problem` say why; 2: it could not find out, for a wrong option or
    configuration, or a log that cannot be reached.
    """
    chosen = settings(config, log)
    with open_log(chosen.log.url, mode="reader", config=chosen.log) as opened:
        found = worker_health(chosen, opened, state, now_ms=int(time.time() * 1000), max_lag=max_lag)
    typer.echo(f"worker         {chosen.engine.worker}, {found.metrics.state if found.metrics else 'never seen'}")
    typer.echo(f"lag            {sum(found.lag.values())} records  {found.lag}")
    typer.echo(f"last step      {found.last_step}")
    typer.echo(f"last checkpoint       {'none' if found.checkpoint_step is None else f'step {found.checkpoint_step}'}")
    seconds = "unknown" if found.recovery_seconds is None else f"about {found.recovery_seconds:.0f} s"
    typer.echo(f"behind the checkpoint {found.behind_checkpoint} journalled steps; a restart redoes them in {seconds}")
    for problem in found.problems:
        typer.echo(f"problem        {problem}")
    raise typer.Exit(1 if found.problems else 0)


fit.register(app)
intents.register(app)
tune.register(app)
dead_letters.register(app)


def main() -> None:
    """Entry point: known errors become one line and exit status 2."""
    try:
        app()
    except (StreamError, LogError, StateError, LearnerError, monitor.MonitorError) as exc:
        sys.stderr.write(f"intentstream: {' '.join(str(exc).split())}\n")
        sys.exit(2)
