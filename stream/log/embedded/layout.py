"""Keys and values of an embedded log's RocksDB."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from stream.log.base import TopicPartition, TopicSpec

_PARTITION = struct.Struct(">qqqqq")
_ENTRY_KEY = struct.Struct(">cHHQ")


def entry_key(topic_id: int, partition: int, offset: int) -> bytes:
    """Key of the entry that begins at this offset; keys sort as (topic, partition, offset)."""
    return _ENTRY_KEY.pack(b"e", topic_id, partition, offset)


def offset_of(key: bytes) -> int:
    """The base offset in an entry's key."""
    return int.from_bytes(key[-8:], "big")


def topic_key(name: str) -> bytes:
    """Key of a topic's settings."""
    return b"t" + name.encode()


def partition_key(topic_id: int, partition: int) -> bytes:
    """Key of a partition's bounds."""
    return b"p" + topic_id.to_bytes(2, "big") + partition.to_bytes(2, "big")


def writer_key(worker_id: str) -> bytes:
    """Key of a writer's epoch and positions."""
    return b"w" + worker_id.encode()


def spool_key(name: str) -> bytes:
    """Key of the mark that a spooled file was taken in."""
    return b"s" + name.encode()


def idempotency_key(digest: bytes) -> bytes:
    """Key of the time at which an idempotency key was used, found by its digest."""
    return b"k" + digest


def idempotency_age_key(used_ms: int, digest: bytes) -> bytes:
    """Key by which idempotency keys are found in the order of their use."""
    return b"x" + used_ms.to_bytes(8, "big") + digest


@dataclass(slots=True)
class Bounds:
    """What is kept per partition.

    begin, end: offsets; size: bytes of its entries; cleaned: a compaction has seen everything before; live: records in
    compacted partitions at the last compaction.
    """

    begin: int = 0
    end: int = 0
    size: int = 0
    cleaned: int = 0
    live: int = 0

    def pack(self) -> bytes:
        """As stored."""
        return _PARTITION.pack(self.begin, self.end, self.size, self.cleaned, self.live)

    @staticmethod
    def unpack(raw: bytes | None) -> Bounds:
        """From what is stored; nothing stored: an empty partition."""
        return Bounds() if raw is None else Bounds(*_PARTITION.unpack(raw))


class Topic(msgspec.Struct, frozen=True):
    """A topic as stored."""

    id: int
    spec: TopicSpec


class Writer(msgspec.Struct):
    """A claimed worker as stored: the newest epoch may commit."""

    epoch: int = 0
    positions: dict[str, list[int]] = {}  # topic -> offset per partition, -1: none

    def moved(self, positions: Mapping[TopicPartition, int]) -> Writer:
        """The same writer with these positions replaced."""
        moved = {topic: list(offsets) for topic, offsets in self.positions.items()}
        for tp, offset in positions.items():
            offsets = moved.setdefault(tp.topic, [])
            offsets += [-1] * (tp.partition + 1 - len(offsets))
            offsets[tp.partition] = offset
        return Writer(self.epoch, moved)


def positions_of(writer: Writer) -> dict[TopicPartition, int]:
    """A writer's positions by partition."""
    return {
        TopicPartition(topic, partition): offset
        for topic, offsets in writer.positions.items()
        for partition, offset in enumerate(offsets)
        if offset >= 0
    }
