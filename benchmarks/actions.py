"""Do the actions against drift pay on recorded streams? The same file with actions on and off.

    python -m benchmarks.actions amazon_beauty.csv.gz globo_1m.csv.gz --limit 200000 --seeds 3

Per file and seed two replays, as `intentstream replay` makes them, nobody forgotten: with the default actions, and with
none. Each event is ranked before it is learned. Where no episode acted, the second replay would be the first again and
is left out. `ratio` is NDCG@20 with actions over that without. With `--keep FILE` each replay is written there when it
is done and not made again. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.run_cache import Kept
from intentstream.config import Config
from learner.drift.config import BETS
from learner.runtime import set_threads
from stream.replay.folder import configure_replay
from stream.replay.runner import replay
from stream.sources.files.event_file import EventFile

STEP = 256
METRICS = ("ndcg@20", "hr@20")


def settings(seed: int, act: bool) -> Config:
    """The default configuration of a replay in which nobody is forgotten."""
    config = configure_replay(Config())
    config = msgspec.structs.replace(config, learner=msgspec.structs.replace(config.learner, seed=seed))
    return config if act else msgspec.structs.replace(config, drift=msgspec.structs.replace(config.drift, actions={}))


def run(config: Config, file: Path, limit: int | None) -> dict[str, Any]:
    """Accuracy of a replay, and its episodes."""
    with tempfile.TemporaryDirectory() as folder:
        report = replay(
            config, EventFile(file, limit), Path(folder) / "state", keep=False, step_records=STEP, baselines=False
        )
    accuracy = {name: round(report["prequential"][name], 5) for name in METRICS}
    return accuracy | {"events": report["events"], "episodes": report["drift"]["episodes"]}


def acted(episode: dict[str, Any]) -> bool:
    """Whether the episode did anything on trial."""
    return bool(BETS & set(episode["action"].split("+")))


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--limit", type=int, help="only so many records of each file")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="file of the replays that were made, which are not made again")
    arguments = parser.parse_args()
    set_threads(1)
    kept, rows = Kept(arguments.keep), []
    for file in arguments.files:
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):

            def made(act: bool, file: Path = file, seed: int = seed) -> dict[str, Any]:
                config = settings(seed, act)
                return kept.of([config, file.name, arguments.limit], lambda: run(config, file, arguments.limit))

            on = made(act=True)
            acting = [episode for episode in on["episodes"] if acted(episode)]
            off = made(act=False) if acting else on
            row = {"file": file.name, "seed": seed, "events": on["events"], "acted": len(acting)}
            row |= {f"{name} {how}": one[name] for name in METRICS for how, one in (("on", on), ("off", off))}
            row["ratio"] = round(on["ndcg@20"] / off["ndcg@20"], 4)
            print(json.dumps(row), file=sys.stderr, flush=True)
            rows.append(row)
    print(f"{'file':28} {'seed':>4} {'acted':>5} {'NDCG@20 on':>10} {'off':>7} {'HR@20 on':>8} {'off':>7} {'ratio':>7}")
    for row in rows:
        figures = [row["ndcg@20 on"], row["ndcg@20 off"], row["hr@20 on"], row["hr@20 off"], row["ratio"]]
        print(f"{row['file']:28} {row['seed']:4} {row['acted']:5} " + " ".join(f"{one:8.4f}" for one in figures))
    print(json.dumps({"runs": rows, "least_ratio": min(row["ratio"] for row in rows)}))


if __name__ == "__main__":
    main()
