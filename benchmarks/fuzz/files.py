"""Damaged files against the readers of events: no crash, no silent loss, errors of one printable line.

Each file is one of `tests/data/formats`, with bytes flipped, removed, repeated or put in between, some in another
encoding, compressed, or cut off. Every record of a file that opens must be an event, an erasure or a dead letter.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import resource
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from stream.errors import SourceError
from stream.schema.decoder import Decoder
from stream.schema.events import ActionsConfig
from stream.sources.files.event_file import EventFile
from stream.sources.files.options import ReadOptions, parse_options

DATA = Path(__file__).parents[2] / "tests" / "data" / "formats"
_JUNK = (b'"', b"\n", b"\r", b"\x00", b",", b"\t", b"::", b"{", b"[", b"]}", b"nan", b"1e999", b"9" * 400, b"\xff\xfe")
_JUNK_MORE = (
    b"[" * 3000,
    b'{"a":' * 300,
    b"\xed\xa0\x80",
    "ＮＡ\u2028".encode(),
    b"-",
    b"0x7",
    b"\\u0000",
    b"PAR1",
    b"inf",
)


def zipped(data: bytes) -> bytes:
    """Return a zip with one file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", data)
    return buffer.getvalue()


PACKERS: list[Callable[[bytes], bytes]] = [gzip.compress, bz2.compress, lzma.compress, zstandard.compress, zipped]


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Damage some bytes, change the encoding, compress, and cut off: each now and then."""
    made = bytearray(data)
    for _ in range(int(rng.integers(0, 6))):
        at = int(rng.integers(0, max(len(made), 1)))
        kind = int(rng.integers(0, 5))
        if kind == 0 and made:
            made[at] = int(rng.integers(0, 256))
        elif kind == 1:
            del made[at : at + int(rng.integers(1, 50))]
        elif kind == 2:
            made[at:at] = made[at : at + int(rng.integers(1, 200))]
        else:
            junk = (*_JUNK, *_JUNK_MORE)
            made[at:at] = junk[int(rng.integers(0, len(junk)))]
    data = bytes(made)
    if rng.random() < 0.1:
        encoding = ("utf-16", "utf-32", "utf-16-le", "latin-1")[int(rng.integers(0, 4))]
        data = data.decode(errors="replace").encode(encoding, "replace")
    if rng.random() < 0.2:
        data = PACKERS[int(rng.integers(0, len(PACKERS)))](data)
        if data and rng.random() < 0.3:
            at = int(rng.integers(0, len(data)))
            data = data[:at] + bytes([int(rng.integers(0, 256))]) + data[at + 1 :]
    return data[: int(rng.integers(0, len(data) + 1))] if rng.random() < 0.1 else data


def options_of(case: dict[str, Any]) -> ReadOptions:
    """The options of a case."""
    names = [name.removeprefix("--").replace("-", "_") for name in case["args"][::2]]
    return parse_options(ActionsConfig().names(), **dict(zip(names, case["args"][1::2], strict=True)))


def read(path: Path, case: dict[str, Any], decoder: Decoder) -> Counter[str]:
    """Read a file to its end; counts of its records. AssertionError where they do not add up."""
    found: Counter[str] = Counter()
    try:
        for chunk in EventFile(path, options=options_of(case)):
            decoded = decoder.decode(chunk.values, chunk.keys)
            assert len(chunk.originals) == len(chunk.values) == len(chunk.keys) == len(chunk)
            found["records"] += len(chunk)
            found["events"] += len(decoded.events)
            found["dead_letters"] += len(decoded.rejections)
            found["erasures"] += len(decoded.erasures)
            found["values_dropped"] += len(chunk.dropped_values)
        found["read"] = 1
    except SourceError as exc:
        text = str(exc)
        assert text.isprintable() and len(text) < 2000, text
        found["refused_midway" if found else "refused"] = 1
    assert found["records"] == found["events"] + found["dead_letters"] + found["erasures"]
    return found


def fuzz_files(count: int, seed: int) -> dict[str, Any]:
    """Read `count` damaged files.

    Returns
    -------
    Counts of files by outcome, which add up to `count`, and of their records; the longest time of one file in seconds
    of the processor; resident memory in MB in the middle and at the end.
    """
    rng = np.random.default_rng(seed)
    cases = json.loads((DATA / "cases.json").read_text())
    total: Counter[str] = Counter()
    longest, slowest, decoder = 0.0, "", Decoder(ActionsConfig())
    memory = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            case = cases[int(rng.integers(0, len(cases)))]
            path = Path(folder) / case["file"]
            path.write_bytes(damaged((DATA / case["file"]).read_bytes(), rng))
            began = time.process_time()
            try:
                total += read(path, case, decoder)
            except Exception as exc:
                kept = Path(tempfile.gettempdir()) / f"fuzz-{seed}-{number}-{case['file']}"
                kept.write_bytes(path.read_bytes())
                raise AssertionError(f"{kept} {case['args']}: {exc!r}") from exc
            seconds = time.process_time() - began
            if seconds > longest:
                longest, slowest = seconds, case["file"]
            path.unlink()
            if number in (count // 2, count - 1):
                memory.append(round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
    figures = {"inputs": count, **total, "longest_s": round(longest, 3), "slowest": slowest, "rss_mb": memory}
    return figures | {"reconciles": total["read"] + total["refused"] + total["refused_midway"] == count}


__all__ = ["fuzz_files"]
