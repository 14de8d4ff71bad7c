"""Proof by repetition: rebuild the state from the journal in one uninterrupted run and compare it with what is there.

It first reads every file of an embedded log. Then it compares two things: every published message with the recomputed
one, in order and exactly once; and the digest of the newest checkpoint with that of the rebuilt state at that step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from state.checkpoints import Checkpoint, CheckpointStore
from stream.config import StreamConfig
from stream.engine.engine import Engine
from stream.engine.init_model import kept_model
from stream.errors import JournalError
from stream.log.base import EventLog, Headers, LogDamaged, Message, OffsetRange
from stream.log.partitioner import partition_of
from stream.schema import topics
from stream.schema.dead_letters import is_mark
from stream.sources.item_metadata import Titles
from stream.worker.journal import journal_end, read_entries
from stream.worker.recovery import redo

_COMPARED = tuple(topic for topic in topics.OUTPUTS if topic != topics.METRICS)  # metrics carry the wall clock
_PAGE = 5_000


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome; `difference` is empty when everything is equal."""

    steps: int
    messages: int
    digest: str  # of the rebuilt state after the newest journalled step
    checkpoint_step: int | None  # the checkpoint that was compared
    difference: str
    log_files: int = 0  # of the log on this machine's disk, all of which were read


def verify(
    config: StreamConfig,
    log: EventLog,
    state: Path,
    scratch: Path,
    *,
    on_step: Callable[[int], None] | None = None,
    from_oldest_checkpoint: bool = False,
    titles: Titles | None = None,
) -> Verification:
    """Rebuild in `scratch` from the start of the journal (or from the oldest checkpoint) and compare.

    `titles` are the worker's: they name the intents in the catalog.

    Raises
    ------
    JournalError
        The journal or the input no longer reaches back to where the replay has to begin.
    """
    try:
        log_files = log.verify_files()
    except LogDamaged as exc:
        return Verification(0, 0, "", None, str(exc))
    checkpoints = CheckpointStore(state / "checkpoints", keep=config.engine.keep_checkpoints)
    newest = checkpoints.peek()
    base = checkpoints.peek(oldest=True) if from_oldest_checkpoint else None
    end = journal_end(log)
    compared = _Published(log, after_step=base.step if base else 0)
    if journal_end(log) != end:
        raise JournalError(
            "a worker is running on this log: stop it, or what it publishes meanwhile looks like a fault"
        )
    engine = Engine(
        config, scratch / "replay", CheckpointStore(scratch / "checkpoints"), base, titles, kept_model(state)
    )
    difference, steps, messages = "", 0, 0
    try:
        for entry in read_entries(log, config.engine.worker, engine.step_number):
            result = redo(engine, log, entry, state)
            steps, messages = steps + 1, messages + len(result.messages)
            difference = difference or compared.expect(entry.step, result.messages)
            if newest is not None and entry.step == newest.step:
                difference = difference or _compare_checkpoint(config, newest, engine, scratch)
            if on_step is not None:
                on_step(entry.step)
        difference = difference or compared.rest()
        digest = engine.digest()
    finally:
        engine.close()
    return Verification(steps, messages, digest, newest.step if newest else None, difference, log_files)


def _compare_checkpoint(config: StreamConfig, checkpoint: Checkpoint, engine: Engine, scratch: Path) -> str:
    stored = Engine(config, scratch / "checkpoint", CheckpointStore(scratch / "checkpoints"), checkpoint)
    try:
        found, made = stored.digest(), engine.digest()
    finally:
        stored.close()
    return "" if found == made else f"checkpoint {checkpoint.path}: digest {found}, rebuilt {made}"


class _Published:
    """The published records as one hash each, per topic partition, consumed in order as they are recomputed.

    A compacted topic may have lost records that a later one with the same key replaced, and tombstones, but never the
    newest record of a key.
    """

    def __init__(self, log: EventLog, after_step: int) -> None:
        self._counts = {topic: log.partition_count(topic) for topic in _COMPARED}
        self._compacted = {spec.name for spec in topics.topic_specs(1) if spec.cleanup == "compact"}
        self._partial = after_step > 0
        self._found: dict[tuple[str, int], list[bytes]] = {}
        self._next: dict[tuple[str, int], int] = {}
        self._whole: set[tuple[str, int]] = set()  # partitions from which nothing was removed
        self._absent: dict[tuple[str, int, bytes | None], int] = {}  # step of a key's newest message, if not found
        for topic, count in self._counts.items():
            begins, ends = log.begin_offsets(topic), log.end_offsets(topic)
            for partition in range(count):
                hashes: list[bytes] = []
                position, taken = begins[partition], 0
                while position < ends[partition]:
                    span = OffsetRange(topic, partition, position, min(position + _PAGE, ends[partition]))
                    batch = log.read(span)
                    rows = zip(batch.keys, batch.values, batch.headers, strict=True)
                    hashes += [_hash(key, value, headers) for key, value, headers in rows if not is_mark(headers)]
                    position = max(batch.next_offset, span.stop)
                    taken += len(batch)
                self._found[topic, partition] = hashes
                if begins[partition] == 0 and taken == ends[partition]:
                    self._whole.add((topic, partition))

    def expect(self, step: int, messages: list[Message]) -> str:
        """Compare a step's messages with the next records of their partitions; returns the first difference."""
        for message in messages:
            partition = message.partition
            if partition is None:
                partition = partition_of(message.key, self._counts[message.topic])
            place = (message.topic, partition)
            found, position = self._found[place], self._next.get(place, 0)
            wanted = _hash(message.key, message.value, message.headers)
            if self._partial and position == 0:
                # skip the records that were published before the checkpoint
                while position < len(found) and found[position] != wanted:
                    position += 1
            if position < len(found) and found[position] == wanted:
                self._next[place] = position + 1
                self._absent.pop((*place, message.key), None)
            elif message.topic not in self._compacted or place in self._whole:
                what = "missing" if position >= len(found) else "another one is in its place"
                return _difference(step, place, message.key, what)
            elif message.value is not None:
                self._absent[(*place, message.key)] = step
            else:  # an equal tombstone before it stands for it, or compaction removed it: no loss
                self._absent.pop((*place, message.key), None)
        return ""

    def rest(self) -> str:
        """Return what is missing for good, or was published beyond the messages recomputed, if anything."""
        for (topic, partition, key), step in self._absent.items():
            return _difference(step, (topic, partition), key, "missing, and no later one replaced it")
        for place, found in sorted(self._found.items()):
            if self._partial and place not in self._next:
                continue  # everything was published before the checkpoint
            beyond = len(found) - self._next.get(place, 0)
            if beyond:
                return (
                    f"{place[0]}[{place[1]}]: {beyond} records that no journalled step explains, or that are there "
                    "twice"
                )
        return ""


def _difference(step: int, place: tuple[str, int], key: bytes | None, what: str) -> str:
    return f"step {step}: message to {place[0]}[{place[1]}] key {key!r}: {what}"


def _hash(key: bytes | None, value: bytes | None, headers: Headers) -> bytes:
    """Hash key, value and headers: headers tell two dead letters with the same bytes apart."""
    parts = [key, value, *(part for name, content in headers for part in (name.encode(), content))]
    hashed = blake2b(digest_size=12)
    for part in parts:
        hashed.update((b"-" if part is None else b"%d:" % len(part)) + (part or b""))
    return hashed.digest()
