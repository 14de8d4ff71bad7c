"""Feed hostile input to the product; fails when counts do not reconcile.

    python -m benchmarks.fuzz [--records N] [--seed S] [--only records,http,files]

Each part is one function that takes the number of inputs and the seed and returns its figures. The last line is JSON:
for every part the counts by outcome, which add up to the inputs, the largest time of one input, and resident memory
on the way.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any, Final

from benchmarks.fuzz.files import fuzz_files
from benchmarks.fuzz.http import fuzz_http
from benchmarks.fuzz.records import fuzz_records

_RECORDS_PER_FILE: Final = 100  # a damaged file is one input and holds some 60 records
PARTS: Final[dict[str, Callable[[int, int], dict[str, Any]]]] = {
    "records": fuzz_records,
    "http": fuzz_http,
    "files": lambda records, seed: fuzz_files(max(1, records // _RECORDS_PER_FILE), seed),
}


def main() -> None:
    """Run the parts and print their figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--records", type=int, default=240_000, help="inputs of each part; files hold a hundred each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",")
    if unknown := sorted(set(chosen) - PARTS.keys()):
        parser.error(f"--only {','.join(unknown)}: expected some of {','.join(PARTS)}")
    figures = {name: PARTS[name](arguments.records, arguments.seed) for name in chosen}
    print(json.dumps({"seed": arguments.seed, **figures}))  # noqa: T201
    if wrong := [name for name, found in figures.items() if not found["reconciles"]]:
        raise SystemExit(f"{', '.join(wrong)}: the counts do not add up to the inputs")


if __name__ == "__main__":
    main()
