"""What starting costs: processor time and peak memory of commands that do not learn, beside an interpreter alone.

    python -m benchmarks.start [--runs 5]

Each command runs as a process of its own, in turn with `python -c pass`; medians are printed, the last line as JSON.
The limits are half a second of processor time and 80 MB on a machine that is otherwise idle. Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

MOST_SECONDS, MOST_MB = 0.5, 80.0
MAIN = "from intentstream.cli.app import main; main()"
BARE = (sys.executable, "-c", "pass")


class Cost(NamedTuple):
    """Of one process."""

    seconds: float
    """processor time, user and system"""
    megabytes: float
    """peak resident memory"""


def cost_of(command: tuple[str, ...]) -> Cost:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def commands(folder: Path) -> dict[str, tuple[str, ...]]:
    """Command lines by name; the folder gets a log with our topics."""
    log = ("--log", f"file://{folder / 'log'}")
    created = (sys.executable, "-c", MAIN, "topics", "--create", *log)
    subprocess.run(created, check=True, stdout=subprocess.DEVNULL)
    lines = {
        "--help": ("--help",),
        "config": ("config",),
        "status": ("status", *log, "--state", str(folder / "state")),
        "topics": ("topics", *log),
    }
    return {name: (sys.executable, "-c", MAIN, *words) for name, words in lines.items()}


def measure(runs: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        lines = {"python -c pass": BARE, **commands(Path(folder))}
        costs: dict[str, list[Cost]] = {name: [] for name in lines}
        for _ in range(runs):
            for name, command in lines.items():
                costs[name].append(cost_of(command))
    middle = {
        name: Cost(*(statistics.median(values) for values in zip(*found, strict=True))) for name, found in costs.items()
    }
    bare = middle.pop("python -c pass")
    for name, cost in middle.items():
        print(
            f"{name:10} {cost.seconds:.2f} s, {cost.seconds / bare.seconds:.1f} times an interpreter alone; "
            f"{cost.megabytes:.0f} MB"
        )
    return {
        "runs": runs,
        "bare_s": round(bare.seconds, 3),
        "bare_mb": round(bare.megabytes, 1),
        "seconds": {name: round(cost.seconds, 3) for name, cost in middle.items()},
        "ratio": {name: round(cost.seconds / bare.seconds, 1) for name, cost in middle.items()},
        "megabytes": {name: round(cost.megabytes, 1) for name, cost in middle.items()},
        "within": all(cost.seconds <= MOST_SECONDS and cost.megabytes <= MOST_MB for cost in middle.values()),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    print(json.dumps(measure(parser.parse_args().runs)))
