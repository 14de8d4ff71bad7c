"""How fast events come in: decoding and validating, user keys, the simulator, files of every format.

    python -m benchmarks.sources [--events 200000] [--repeat 3]

One core; each figure is the best of the repeats, in events per second. The last line is JSON.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl

from stream.schema.decoder import Decoder
from stream.schema.events import ActionsConfig
from stream.schema.user_keys import user_keys
from stream.sources.files.event_file import read_events
from stream.sources.simulator.config import SimulatorConfig
from stream.sources.simulator.simulator import Simulator

STEP = 2000


def rate(events: int, repeat: int, work: Callable[[], object]) -> int:
    best = min(_seconds(work) for _ in range(repeat))
    return round(events / best)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def decoding(events: int, repeat: int) -> dict[str, int]:
    decoder = Decoder(ActionsConfig())
    users = [b"user-%d" % (i * 7919 % 50_000) for i in range(events)]
    plain = [
        b'{"user":"%b","item":"item-%d","ts":%d}' % (u, i % 9999, 1_600_000_000_000 + i) for i, u in enumerate(users)
    ]
    action = [value[:-1] + b',"action":"click","value":1.5}' for value in plain]
    unknown = [value[:-1] + b',"session":"x%d"}' % i for i, value in enumerate(plain)]
    some_bad = [value[:-5] if i % 500 == 0 else value for i, value in enumerate(plain)]
    keys: list[bytes | None] = list(users)

    def decode(values: list[bytes]) -> None:
        for first in range(0, events, STEP):
            decoder.decode(values[first : first + STEP], keys[first : first + STEP])

    found = {
        "decode_plain": rate(events, repeat, lambda: decode(plain)),
        "decode_with_action_and_value": rate(events, repeat, lambda: decode(action)),
        "decode_one_in_500_bad": rate(events, repeat, lambda: decode(some_bad)),
        "decode_every_one_with_an_unknown_field": rate(events, repeat, lambda: decode(unknown)),
    }
    return found | {"user_keys": rate(events, repeat, lambda: user_keys(users))}


def simulating(events: int, repeat: int) -> dict[str, int]:
    def arrays() -> object:
        return Simulator(SimulatorConfig(), seed=1).next_chunk(events)

    def records() -> object:
        return Simulator(SimulatorConfig(), seed=1).next_chunk(events).values

    return {"simulate_arrays": rate(events, repeat, arrays), "simulate_json": rate(events, repeat, records)}


def files(events: int, repeat: int) -> dict[str, int]:
    chunk = Simulator(SimulatorConfig(bad_share=0.0), seed=1).next_chunk(events)
    columns = {"user": [key.decode() for key in chunk.keys], "item": chunk.item_ids, "ts": chunk.ts}
    frame = pl.DataFrame(columns)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        csv, gz, lines, parquet = (Path(folder) / name for name in ("a.csv", "a.csv.gz", "a.jsonl", "a.parquet"))
        frame.write_csv(csv)
        gz.write_bytes(gzip.compress(csv.read_bytes(), 6))
        frame.write_ndjson(lines)
        frame.write_parquet(parquet)
        for path in (csv, gz, lines, parquet):

            def records(path: Path = path) -> object:
                return sum(len(chunk.values) + len(chunk.keys) for chunk in read_events(path))

            found["replay_" + path.name.removeprefix("a.").replace(".", "_")] = rate(events, repeat, records)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    found = decoding(options.events, options.repeat)
    found |= simulating(options.events, options.repeat)
    found |= files(options.events, options.repeat)
    for name, value in found.items():
        print(f"{name:40} {value:>12,} events/s")
    print(json.dumps({"events": options.events, **found}))


if __name__ == "__main__":
    main()
