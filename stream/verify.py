"""Proof by repetition: rebuild the state from the journal in one uninterrupted run and compare it with what is there.

Two things are compared: every message that was published against the one recomputed, in order and exactly once; and the
digest of the newest cut against the digest of the rebuilt state at that step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from state import Cut, CutStore
from stream import topics
from stream.beginning import kept_model, refuse_other
from stream.config import Config
from stream.engine import Engine
from stream.itemfile import Titles
from stream.journal import input_ranges, read_entries
from stream.letters import is_mark
from stream.log.base import EventLog, Message, OffsetRange
from stream.log.murmur2 import partition_of

_COMPARED = tuple(topic for topic in topics.OUTPUTS if topic != topics.METRICS)  # metrics carry the wall clock
_PAGE = 5_000


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found; `difference` is empty when everything is equal."""

    steps: int
    messages: int
    digest: str  # of the rebuilt state after the newest journalled step
    cut_step: int | None  # the cut that was compared
    difference: str


def verify(
    config: Config,
    log: EventLog,
    state: Path,
    scratch: Path,
    *,
    on_step: Callable[[int], None] | None = None,
    from_oldest_cut: bool = False,
    titles: Titles | None = None,
) -> Verification:
    """Rebuild in `scratch` from the start of the journal (or from the oldest cut) and compare.

    `titles` are those that the worker had: they name the intents in the catalogue.

    Raises
    ------
    JournalError
        The journal or the input no longer reaches back to where the replay has to begin.
    """
    cuts = CutStore(state / "cuts", keep=config.engine.keep_cuts)
    newest = cuts.peek()
    base = cuts.peek(oldest=True) if from_oldest_cut else None
    compared = _Published(log, after_step=base.step if base else 0)
    engine = Engine(config, scratch / "replay", CutStore(scratch / "cuts"), base, titles, kept_model(state))
    difference, steps, messages = "", 0, 0
    try:
        for entry in read_entries(log, config.engine.worker, engine.step_number):
            if entry.step == 1:
                refuse_other(entry.notes, engine.began_with, state)
            for partition, start, _ in entry.ranges:
                engine.jump(partition, start)
            result = engine.step([log.read(span) for span in input_ranges(entry)])
            steps, messages = steps + 1, messages + len(result.messages)
            difference = difference or compared.expect(entry.step, result.messages)
            engine.learn(entry.learn_steps)
            if newest is not None and entry.step == newest.step:
                difference = difference or _compare_cut(config, newest, engine, scratch)
            if on_step is not None:
                on_step(entry.step)
        difference = difference or compared.rest()
        digest = engine.digest()
    finally:
        engine.close()
    return Verification(steps, messages, digest, newest.step if newest else None, difference)


def _compare_cut(config: Config, cut: Cut, engine: Engine, scratch: Path) -> str:
    stored = Engine(config, scratch / "cut", CutStore(scratch / "cuts"), cut)
    try:
        found, made = stored.digest(), engine.digest()
    finally:
        stored.close()
    return "" if found == made else f"cut {cut.path}: digest {found}, rebuilt {made}"


class _Published:
    """The published records as one hash each, per topic partition, consumed in order as they are recomputed.

    A compacted topic may have lost records that a later one with the same key replaced; those may be missing here.
    """

    def __init__(self, log: EventLog, after_step: int) -> None:
        self._counts = {topic: log.partition_count(topic) for topic in _COMPARED}
        self._compacted = {spec.name for spec in topics.topic_specs(1) if spec.cleanup == "compact"}
        self._partial = after_step > 0
        self._found: dict[tuple[str, int], list[bytes]] = {}
        self._next: dict[tuple[str, int], int] = defaultdict(int)
        for topic, count in self._counts.items():
            begins, ends = log.begin_offsets(topic), log.end_offsets(topic)
            for partition in range(count):
                hashes: list[bytes] = []
                position = begins[partition]
                while position < ends[partition]:
                    span = OffsetRange(topic, partition, position, min(position + _PAGE, ends[partition]))
                    batch = log.read(span)
                    rows = zip(batch.keys, batch.values, batch.headers, strict=True)
                    hashes += [_hash(key, value) for key, value, headers in rows if not is_mark(headers)]
                    position = max(batch.next_offset, span.stop)
                self._found[topic, partition] = hashes

    def expect(self, step: int, messages: list[Message]) -> str:
        """Compare a step's messages with the next records of their partitions; returns the first difference."""
        for message in messages:
            partition = message.partition
            if partition is None:
                partition = partition_of(message.key, self._counts[message.topic])
            place = (message.topic, partition)
            found, position = self._found[place], self._next[place]
            wanted = _hash(message.key, message.value)
            if self._partial and position == 0:
                # the published records before the cut are skipped: begin where the first recomputed one stands
                while position < len(found) and found[position] != wanted:
                    position += 1
            if position < len(found) and found[position] == wanted:
                self._next[place] = position + 1
            elif message.topic not in self._compacted:
                what = "missing" if position >= len(found) else "another one stands there"
                return f"step {step}: message to {message.topic}[{partition}] key {message.key!r}: {what}"
        return ""

    def rest(self) -> str:
        """Return what was published beyond the messages recomputed, if anything."""
        for (topic, partition), found in sorted(self._found.items()):
            beyond = len(found) - self._next[topic, partition]
            if beyond:
                return (
                    f"{topic}[{partition}]: {beyond} records that no journalled step explains, or that are there twice"
                )
        return ""


def _hash(key: bytes | None, value: bytes | None) -> bytes:
    mark = b"\0" if value is None else b"\1"
    return blake2b(
        mark + len(key or b"").to_bytes(4, "little") + (key or b"") + (value or b""), digest_size=12
    ).digest()
