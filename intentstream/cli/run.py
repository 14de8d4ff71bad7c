"""`intentstream run`: simulated shop, log, worker and page in one process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from intentstream.cli.options import ConfigOption, ItemsOption, ShopOption
from intentstream.cli.process import refuse_mapping, stop_on_signals
from intentstream.cli.worker import run_worker
from intentstream.config import Config, load_config, load_shop
from intentstream.printing import open_console
from learner.runtime import set_threads
from monitor.server import serve
from stream.log import open_log
from stream.schema import topics
from stream.serving import CheckpointRanker
from stream.sources.item_metadata import read_items
from stream.sources.simulator.shop import Shop


def run(
    folder: Annotated[Path, typer.Option("--dir", help="Holds log, state and view.")] = Path("var"),
    rate: Annotated[float, typer.Option(min=1, max=100_000, help="Simulated events per second.")] = 300.0,
    seed: Annotated[int, typer.Option(help="Of the simulated shop.")] = 1,
    page: Annotated[bool, typer.Option(help="Serve the page and the HTTP API, at http://127.0.0.1:8050.")] = True,
    items: ItemsOption = None,
    shop: ShopOption = None,
    config: ConfigOption = None,
) -> None:
    """Run a simulated shop, the log, the worker and the page in one process.

    Ctrl-C stops them in order; the next start goes on where this one ended.
    """
    chosen = load_config(config, log_url=f"file://{(folder / 'log').resolve()}")
    refuse_mapping(chosen)
    shop_config = load_shop(shop)
    set_threads(chosen.learner.threads)
    titles = read_items(items) if items is not None else None
    stop = stop_on_signals()
    with open_log(chosen.log.url, config=chosen.log) as opened:
        opened.create_topics(topics.topic_specs(chosen.log.partitions))
        simulated = Shop(shop_config, opened, state=folder / "shop.npz", seed=seed, rate=rate)
        title = f"a simulated shop at {rate:,.0f} events/s"
        with serve_page(chosen, folder) if page else nullcontext("") as url:
            if url and not open_console().is_terminal:  # nobody sees the live view, which has it in its title
                typer.echo(f"the page and the HTTP API: {url}")
            run_worker(
                chosen, opened, folder / "state", stop, feed=simulated.feed, title=f"{title}  {url}", titles=titles
            )
        simulated.save()


@contextmanager
def serve_page(chosen: Config, folder: Path) -> Iterator[str]:
    """Serve the page and the API from a thread, on log handles of their own; yields the URL."""
    url = chosen.log.url
    with (
        open_log(url, mode="reader", config=chosen.log) as reader,
        open_log(url, mode="producer", config=chosen.log) as producer,
        CheckpointRanker(chosen, folder / "state") as ranker,
        serve(
            reader,
            chosen.monitor,
            folder / "view",
            producer,
            actions=chosen.actions,
            events=chosen.events,
            ranker=ranker,
        ) as address,
    ):
        yield address


__all__ = ["run", "serve_page"]
