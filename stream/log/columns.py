"""Records of one partition as columns, while they are read."""

from __future__ import annotations

from dataclasses import dataclass, field

from stream.log.base import Headers, RecordBatch


@dataclass(slots=True)
class RecordColumns:
    """Records of one partition in offset order; the lists have the same length."""

    offsets: list[int] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    timestamps_ms: list[int] = field(default_factory=list)
    headers: list[Headers] = field(default_factory=list)

    @staticmethod
    def of(batch: RecordBatch) -> RecordColumns:
        """The columns of a batch, which share its lists."""
        return RecordColumns(batch.offsets, batch.keys, batch.values, batch.timestamps_ms, batch.headers)

    def __len__(self) -> int:
        return len(self.offsets)

    def extend(self, other: RecordColumns) -> None:
        """Append the records of `other`."""
        self.offsets += other.offsets
        self.keys += other.keys
        self.values += other.values
        self.timestamps_ms += other.timestamps_ms
        self.headers += other.headers

    def joined(self, other: RecordColumns) -> RecordColumns:
        """These records and those of `other`, in lists that belong to one of the two: use only the result."""
        if not self.offsets:
            return other
        self.extend(other)
        return self

    def rows(self, first: int, last: int) -> RecordColumns:
        """Copies of the rows [first, last)."""
        return RecordColumns(
            self.offsets[first:last],
            self.keys[first:last],
            self.values[first:last],
            self.timestamps_ms[first:last],
            self.headers[first:last],
        )

    def drop(self, count: int) -> None:
        """Remove the first `count` rows."""
        for column in (self.offsets, self.keys, self.values, self.timestamps_ms, self.headers):
            del column[:count]

    def batch(self, topic: str, partition: int, next_offset: int) -> RecordBatch:
        """The records as a batch, which shares the lists."""
        return RecordBatch(
            topic, partition, self.offsets, self.keys, self.values, self.timestamps_ms, self.headers, next_offset
        )
