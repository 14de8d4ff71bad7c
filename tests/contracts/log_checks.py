"""The contract of `EventLog` as checks; every implementation runs all of them.

A check gets a `LogCase`: a way to open the same log again and again, and a namespace of its own (a broker is shared).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from stream.log import (
    AppendRequest,
    EventLog,
    LogError,
    Message,
    MessageTooLarge,
    Mode,
    OffsetOutOfRange,
    OffsetRange,
    RecordBatch,
    TopicMismatch,
    TopicPartition,
    TopicSpec,
    WriterFenced,
)
from stream.log.partitioner import partition_of

WAIT_MS = 10_000  # for records that must come; none of the checks waits that long when all is well


@dataclass(frozen=True)
class LogCase:
    """One log under test."""

    open: Callable[[Mode], EventLog]
    prefix: str

    def name(self, text: str) -> str:
        """A topic's or worker's name in this check's namespace."""
        return f"{self.prefix}-{text}"

    def spec(self, text: str = "events", partitions: int = 1, **settings: object) -> TopicSpec:
        return TopicSpec(self.name(text), partitions, **settings)  # type: ignore[arg-type]  # checked by TopicSpec's users


def messages_of(topic: str, count: int, start: int = 0, users: int = 7) -> list[Message]:
    return [
        Message(topic, b"user-%d" % (i % users), b"value-%d" % i, 1_700_000_000_000 + i)
        for i in range(start, start + count)
    ]


def take(log: EventLog, positions: dict[TopicPartition, int], count: int, at_once: int = 1000) -> list[RecordBatch]:
    """Poll until `count` records came; moves the positions."""
    batches: list[RecordBatch] = []
    while sum(map(len, batches)) < count:
        polled = log.poll(positions, at_once, WAIT_MS)
        assert polled, f"{sum(map(len, batches))} of {count} records came"
        for batch in polled:
            tp = TopicPartition(batch.topic, batch.partition)
            assert batch.next_offset > positions[tp]
            assert not batch.offsets or batch.offsets[0] >= positions[tp]
            positions[tp] = batch.next_offset
        batches += polled
    return batches


def values(batches: list[RecordBatch]) -> list[bytes | None]:
    return [value for batch in batches for value in batch.values]


def starts(spec: TopicSpec) -> dict[TopicPartition, int]:
    return {TopicPartition(spec.name, p): 0 for p in range(spec.partitions)}


def flip(path: Path, at: int) -> None:
    """Change one bit of a file, as a disk does."""
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def check_topics_are_created_once_and_checked(case: LogCase) -> None:
    spec = case.spec(partitions=3)
    with case.open("owner") as log:
        with pytest.raises(TopicMismatch, match="topics --create"):
            log.check_topics([spec])
        log.create_topics([spec])
        log.create_topics([spec, case.spec("lists", cleanup="compact")])
        log.check_topics([spec, case.spec("lists", cleanup="compact")])
        assert log.partition_count(spec.name) == 3
        with pytest.raises(TopicMismatch, match="has 3 partitions"):
            log.check_topics([case.spec(partitions=4)])
        with pytest.raises(TopicMismatch, match="cleanup.policy=compact"):
            log.check_topics([case.spec("lists")])
        with pytest.raises(TopicMismatch, match="does not exist"):
            log.partition_count(case.name("other"))


def check_partitions_that_were_added_are_seen_and_read(case: LogCase) -> None:
    spec = case.spec(partitions=2)
    with case.open("owner") as log:
        log.create_topics([spec])
        log.append(messages_of(spec.name, 20))
        log.check_topics([spec], may_have_grown=[spec.name])
        with case.open("reader") as reader:
            assert reader.partition_count(spec.name) == log.partition_count(spec.name, current=True) == 2
            with case.open("producer") as other:
                other.add_partitions(spec.name, 4)
            assert reader.partition_count(spec.name, current=True) == log.partition_count(spec.name, current=True) == 4
            assert reader.partition_count(spec.name) == 4
            assert len(reader.end_offsets(spec.name)) == len(reader.begin_offsets(spec.name)) == 4
            with pytest.raises(TopicMismatch, match="has 4 partitions"):
                log.check_topics([spec])
            log.check_topics([spec], may_have_grown=[spec.name])
            with pytest.raises(TopicMismatch, match="has 4 partitions"):  # never fewer
                log.check_topics([case.spec(partitions=5)], may_have_grown=[spec.name])
            with pytest.raises(LogError, match="4 partitions"):
                log.add_partitions(spec.name, 3)
            with pytest.raises(TopicMismatch, match="does not exist"):
                log.partition_count(case.name("other"), current=True)
            grown = case.spec(partitions=4)
            with case.open("producer") as other:
                other.append(messages_of(spec.name, 100, start=20, users=97))
            positions = starts(grown)
            got = take(reader, positions, 120)
            assert {batch.partition for batch in got} == {0, 1, 2, 3}
            assert positions == ends(reader, grown)
            assert sorted(values(got), key=str) == sorted((b"value-%d" % i for i in range(120)), key=str)


def check_records_come_back_as_they_were(case: LogCase) -> None:
    spec = case.spec()
    sent = [
        Message(spec.name, b"anna", b'{"a": 1}', 1_700_000_000_000, (("reason", b"x"), ("empty", b""))),
        Message(spec.name, b"anna", None, 1_700_000_000_001),
        Message(spec.name, None, bytes(range(256)) * 20, 1_700_000_000_002),
        Message(spec.name, b"", b"", 1_700_000_000_003),
    ]
    with case.open("owner") as log:
        log.create_topics([spec])
        log.append(sent)
        got = take(log, starts(spec), 4)
        assert [key for b in got for key in b.keys] == [m.key for m in sent]
        assert values(got) == [m.value for m in sent]
        assert [h for b in got for h in b.headers] == [m.headers for m in sent]
        assert [o for b in got for o in b.offsets] == [0, 1, 2, 3]
        assert {b.topic for b in got} == {spec.name}


def check_keys_choose_the_partition_as_kafka_does(case: LogCase) -> None:
    spec = case.spec(partitions=5)
    sent = [*messages_of(spec.name, 200, users=97), Message(spec.name, b"user-1", b"forced", 0, (), 4)]
    with case.open("owner") as log:
        log.create_topics([spec])
        log.append(sent)
        for batch in take(log, starts(spec), 201):
            for key, value in zip(batch.keys, batch.values, strict=True):
                expected = 4 if value == b"forced" else partition_of(key, 5)
                assert batch.partition == expected
        with pytest.raises(LogError, match="5 partitions"):
            log.append([Message(spec.name, b"a", b"b", 0, (), 5)])


def check_order_and_offsets_per_partition(case: LogCase) -> None:
    spec = case.spec(partitions=3)
    with case.open("owner") as log:
        log.create_topics([spec])
        for i in range(5):
            log.append(messages_of(spec.name, 37, start=37 * i))
        got = take(log, starts(spec), 185, at_once=10)
        by_key: dict[bytes | None, list[int]] = {}
        for batch in got:
            assert len(batch) <= 10
            assert all(a < b for a, b in pairwise(batch.offsets))
            for key, value in zip(batch.keys, batch.values, strict=True):
                assert value is not None
                by_key.setdefault(key, []).append(int(value.split(b"-")[1]))
        assert sorted(n for found in by_key.values() for n in found) == list(range(185))
        assert all(found == sorted(found) for found in by_key.values())


def check_no_partition_starves(case: LogCase) -> None:
    spec = case.spec(partitions=2)
    with case.open("owner") as log:
        log.create_topics([spec])
        log.append([Message(spec.name, b"k", b"busy", 0, (), 0)] * 500 + [Message(spec.name, b"k", b"rare", 0, (), 1)])
        positions = starts(spec)
        for _ in range(30):
            batches = log.poll(positions, 10, WAIT_MS)
            assert sum(map(len, batches)) <= 10
            for batch in batches:
                positions[TopicPartition(spec.name, batch.partition)] = batch.next_offset
            if b"rare" in values(batches):
                return
        raise AssertionError("300 records of the busy partition came before the one of the other")


def check_poll_waits_no_longer_than_asked_and_wakes_up(case: LogCase) -> None:
    spec = case.spec()
    with case.open("owner") as log:
        log.create_topics([spec])
        assert log.poll(starts(spec), 10, 20) == []

        def later() -> None:
            with case.open("owner") as other:
                other.append(messages_of(spec.name, 1))

        thread = threading.Thread(target=later)
        thread.start()
        try:
            assert values(take(log, starts(spec), 1)) == [b"value-0"]
        finally:
            thread.join()


def check_begin_and_end_offsets(case: LogCase) -> None:
    spec = case.spec(partitions=2)
    with case.open("owner") as log:
        log.create_topics([spec])
        assert log.begin_offsets(spec.name) == log.end_offsets(spec.name) == [0, 0]
        log.append([Message(spec.name, b"k", b"v", 0, (), 1)] * 3)
        assert log.begin_offsets(spec.name) == [0, 0]
        assert log.end_offsets(spec.name) == log.stable_offsets(spec.name) == [0, 3]


def check_commit_is_messages_and_positions_together(case: LogCase) -> None:
    inputs, outputs, journal = case.spec("in", 2), case.spec("out", 2), case.spec("journal")
    worker = case.name("w")
    with case.open("owner") as log:
        log.create_topics([inputs, outputs, journal])
        assert log.committed(worker) == {}
        log.claim(worker)
        a, b = TopicPartition(inputs.name, 0), TopicPartition(inputs.name, 1)
        log.commit([*messages_of(outputs.name, 10), Message(journal.name, b"w", b"step-1", 0)], {a: 5})
        assert log.committed(worker) == {a: 5}
        log.commit([], {b: 7})
        log.commit(messages_of(outputs.name, 10, start=10), {a: 9})
        assert log.committed(worker) == {a: 9, b: 7}
        found = values(take(log, starts(outputs), 20))
        assert sorted(found, key=str) == sorted((b"value-%d" % i for i in range(20)), key=str)
        assert values(take(log, starts(journal), 1)) == [b"step-1"]
    with case.open("reader") as log:
        assert log.committed(worker) == {a: 9, b: 7}


def check_a_prepared_commit_is_like_any_other(case: LogCase) -> None:
    """Whatever was said before it: other positions, other partitions, nothing at all, or a claim in between."""
    inputs, outputs = case.spec("in", 2), case.spec("out", 2)
    worker = case.name("w")
    a, b = (TopicPartition(inputs.name, p) for p in range(2))
    here, there = (TopicPartition(outputs.name, p) for p in range(2))
    with case.open("owner") as log:
        log.create_topics([inputs, outputs])
        log.prepare({a: 1}, [here])  # not claimed yet
        log.claim(worker)
        log.prepare({a: 5, b: 6}, [here, there])
        assert log.committed(worker) == {}
        log.commit([Message(outputs.name, b"k", b"1", 0, partition=1)], {a: 5, b: 6})
        assert log.committed(worker) == {a: 5, b: 6}
        log.prepare({a: 7, b: 8}, [here])
        log.commit([Message(outputs.name, b"k", b"2", 0, partition=1)], {a: 8})
        log.prepare({a: 9}, [there])
        log.claim(worker)
        assert log.committed(worker) == {a: 8, b: 6}
        log.commit([Message(outputs.name, b"k", b"3", 0, partition=1)], {})
        log.prepare({a: 10}, [here])
    with case.open("owner") as log:
        log.claim(worker)
        assert log.committed(worker) == {a: 8, b: 6}
        assert values(take(log, starts(outputs), 3)) == [b"1", b"2", b"3"]


def check_commit_needs_a_claim(case: LogCase) -> None:
    spec = case.spec()
    with case.open("owner") as log:
        log.create_topics([spec])
        with pytest.raises(LogError, match="claim"):
            log.commit(messages_of(spec.name, 1), {})
        assert log.end_offsets(spec.name) == [0]


def check_a_second_claim_fences_the_first(case: LogCase) -> None:
    spec, worker = case.spec(), case.name("w")
    tp = TopicPartition(spec.name, 0)
    with case.open("owner") as old, case.open("owner") as new:
        old.create_topics([spec])
        old.claim(worker)
        old.commit(messages_of(spec.name, 2), {tp: 1})
        new.claim(worker)
        with pytest.raises(WriterFenced, match=worker):
            old.commit([Message(spec.name, b"k", b"zombie", 0)], {tp: 100})
        with pytest.raises(WriterFenced):
            old.commit([Message(spec.name, b"k", b"zombie", 0)], {tp: 100})
        assert new.committed(worker) == {tp: 1}
        new.commit(messages_of(spec.name, 2, start=2), {tp: 2})
        assert new.committed(worker) == {tp: 2}
        assert values(take(new, starts(spec), 4)) == [b"value-0", b"value-1", b"value-2", b"value-3"]


def check_another_worker_is_not_fenced(case: LogCase) -> None:
    spec = case.spec()
    with case.open("owner") as one, case.open("owner") as two:
        one.create_topics([spec])
        one.claim(case.name("w1"))
        two.claim(case.name("w2"))
        one.commit(messages_of(spec.name, 1), {TopicPartition(spec.name, 0): 1})
        two.commit(messages_of(spec.name, 1), {TopicPartition(spec.name, 0): 2})
        assert one.committed(case.name("w1")) == {TopicPartition(spec.name, 0): 1}
        assert one.committed(case.name("w2")) == {TopicPartition(spec.name, 0): 2}


def check_a_refused_commit_writes_nothing(case: LogCase) -> None:
    spec, worker = case.spec(max_message_bytes=2000), case.name("w")
    tp = TopicPartition(spec.name, 0)
    with case.open("owner") as log:
        log.create_topics([spec])
        log.claim(worker)
        with pytest.raises(MessageTooLarge, match="max_message_bytes"):
            log.commit([*messages_of(spec.name, 3), Message(spec.name, b"k", bytes(3000), 0)], {tp: 3})
        with pytest.raises(TopicMismatch):
            log.commit([*messages_of(spec.name, 3), Message(case.name("none"), b"k", b"v", 0)], {tp: 3})
        assert log.committed(worker) == {}
        log.commit(messages_of(spec.name, 1, start=9), {tp: 4})
        assert values(take(log, starts(spec), 1)) == [b"value-9"]
        with pytest.raises(MessageTooLarge):
            log.append([Message(spec.name, b"k", bytes(3000), 0)])


def check_compacted_topics_need_a_key(case: LogCase) -> None:
    spec = case.spec("lists", cleanup="compact")
    with case.open("owner") as log:
        log.create_topics([spec])
        with pytest.raises(LogError, match="without a key"):
            log.append([Message(spec.name, None, b"v", 0)])
        log.append([Message(spec.name, b"k", b"v", 0)])
        assert values(take(log, starts(spec), 1)) == [b"v"]


def check_read_gives_exactly_the_range(case: LogCase) -> None:
    spec = case.spec(partitions=2)
    with case.open("owner") as log:
        log.create_topics([spec])
        log.claim(case.name("w"))
        spans: list[tuple[OffsetRange, RecordBatch]] = []
        positions = starts(spec)
        for i in range(4):
            log.append(messages_of(spec.name, 11, start=22 * i))
            log.commit(messages_of(spec.name, 11, start=22 * i + 11), {TopicPartition(spec.name, 0): i})
            before = dict(positions)
            for batch in take(log, positions, 22, at_once=5):
                tp = TopicPartition(spec.name, batch.partition)
                spans.append((OffsetRange(spec.name, batch.partition, before[tp], batch.next_offset), batch))
                before[tp] = batch.next_offset
    with case.open("reader") as log:
        for span, batch in spans:
            again = log.read(span)
            assert (again.offsets, again.keys, again.values) == (batch.offsets, batch.keys, batch.values)
            assert again.next_offset == span.stop
        empty = log.read(OffsetRange(spec.name, 0, 3, 3))
        assert len(empty) == 0 and empty.next_offset == 3


def check_offsets_out_of_range(case: LogCase) -> None:
    spec = case.spec()
    tp = TopicPartition(spec.name, 0)
    with case.open("owner") as log:
        log.create_topics([spec])
        log.append(messages_of(spec.name, 3))
        with pytest.raises(OffsetOutOfRange, match="4"):
            log.poll({tp: 4}, 10, WAIT_MS)
        with pytest.raises(OffsetOutOfRange):
            log.read(OffsetRange(spec.name, 0, 1, 5))
        assert values(log.poll({tp: 1}, 10, WAIT_MS)) == [b"value-1", b"value-2"]  # still usable
        assert log.poll({tp: 3}, 10, 0) == []


def check_everything_survives_a_reopen(case: LogCase) -> None:
    spec, worker = case.spec(partitions=2), case.name("w")
    tp = TopicPartition(spec.name, 0)
    with case.open("owner") as log:
        log.create_topics([spec])
        log.claim(worker)
        log.append(messages_of(spec.name, 5))
        log.commit(messages_of(spec.name, 5, start=5), {tp: 3})
        ends = log.end_offsets(spec.name)
    with case.open("owner") as log:
        log.check_topics([spec])
        assert log.end_offsets(spec.name)[0] >= ends[0]
        assert log.committed(worker) == {tp: 3}
        log.claim(worker)
        log.commit(messages_of(spec.name, 5, start=10), {tp: 6})
        found = values(take(log, starts(spec), 15))
        assert sorted(found, key=str) == sorted((b"value-%d" % i for i in range(15)), key=str)
        assert (
            log.poll({TopicPartition(spec.name, p): end for p, end in enumerate(log.end_offsets(spec.name))}, 9, 0)
            == []
        )


def check_readers_and_producers(case: LogCase) -> None:
    spec = case.spec(partitions=2)
    with case.open("owner") as owner:
        owner.create_topics([spec])
        with case.open("producer") as producer, case.open("reader") as reader:
            producer.append(messages_of(spec.name, 20))
            positions = starts(spec)
            assert len(values(take(reader, positions, 20))) == 20
            with pytest.raises(LogError, match="reading"):
                reader.append(messages_of(spec.name, 1))
            with pytest.raises(LogError):
                reader.claim(case.name("w"))
            with pytest.raises(LogError):
                reader.commit([], {})


def check_large_batches(case: LogCase) -> None:
    spec = case.spec(partitions=3)
    sent = [Message(spec.name, b"user-%d" % (i % 101), b"x" * (i % 300), i) for i in range(5000)]
    with case.open("owner") as log:
        log.create_topics([spec])
        log.claim(case.name("w"))
        log.commit(sent, {TopicPartition(spec.name, 0): 1})
        got = take(log, starts(spec), 5000, at_once=700)
        by_key: dict[bytes | None, list[int]] = {}
        for batch in got:
            for key, value in zip(batch.keys, batch.values, strict=True):
                by_key.setdefault(key, []).append(len(value or b""))
        assert by_key[b"user-7"] == [i % 300 for i in range(7, 5000, 101)]


def check_an_append_under_a_known_key_writes_nothing(case: LogCase) -> None:
    spec = case.spec(partitions=2)
    key, other = case.name("key").encode(), case.name("other").encode()
    with case.open("owner") as log:
        log.create_topics([spec])
        assert log.append(messages_of(spec.name, 5), idempotency_key=key)
        assert not log.append(messages_of(spec.name, 5), idempotency_key=key)
        assert not log.append(messages_of(spec.name, 3, start=100), idempotency_key=key)  # whatever it holds
        assert log.append(messages_of(spec.name, 1, start=5), idempotency_key=other)
        assert log.append(messages_of(spec.name, 1, start=6))
        assert log.append(messages_of(spec.name, 1, start=7))
    with case.open("producer") as log:  # known to whoever comes later
        assert not log.append(messages_of(spec.name, 5), idempotency_key=key)
        found = values(take(log, starts(spec), 8))
        assert sorted(found, key=str) == [b"value-%d" % i for i in range(8)]
        assert sum(len(b) for b in log.poll(ends(log, spec), 100, 0)) == 0


def ends(log: EventLog, spec: TopicSpec) -> dict[TopicPartition, int]:
    return {TopicPartition(spec.name, p): end for p, end in enumerate(log.end_offsets(spec.name))}


def check_requests_with_keys_are_written_together(case: LogCase) -> None:
    spec = case.spec()
    a, b = case.name("a").encode(), case.name("b").encode()
    with case.open("owner") as log:
        log.create_topics([spec])
        first = AppendRequest(messages_of(spec.name, 2), a)
        again = AppendRequest(messages_of(spec.name, 2), a)
        plain = AppendRequest(messages_of(spec.name, 1, start=2))
        assert log.append_each([first, again, plain]) == [True, False, True]
        last = AppendRequest(messages_of(spec.name, 1, start=3), b)
        assert log.append_each([first, last]) == [False, True]
        assert log.append_each([first, last]) == [False, False]
        assert log.append_each([]) == []
        assert values(take(log, starts(spec), 4)) == [b"value-%d" % i for i in range(4)]


def check_a_refused_append_leaves_its_key_unknown(case: LogCase) -> None:
    spec, key = case.spec(max_message_bytes=2000), case.name("key").encode()
    with case.open("owner") as log:
        log.create_topics([spec])
        with pytest.raises(MessageTooLarge):
            log.append([*messages_of(spec.name, 2), Message(spec.name, b"k", bytes(3000), 0)], idempotency_key=key)
        with pytest.raises(TopicMismatch):
            log.append([Message(case.name("none"), b"k", b"v", 0)], idempotency_key=key)
        assert log.append(messages_of(spec.name, 2), idempotency_key=key)
        assert values(take(log, starts(spec), 2)) == [b"value-0", b"value-1"]
    with case.open("reader") as log, pytest.raises(LogError, match="reading"):
        log.append(messages_of(spec.name, 1), idempotency_key=key)


def check_of_appends_at_once_under_one_key_one_is_written(case: LogCase) -> None:
    spec, keys = case.spec(), [case.name(f"key-{i}").encode() for i in range(6)]
    answers: list[list[bool]] = []
    with case.open("owner") as log:
        log.create_topics([spec])

        def append() -> None:
            with case.open("producer") as producer:
                answers.append(
                    [producer.append([Message(spec.name, key, key, 0)], idempotency_key=key) for key in keys]
                )

        threads = [threading.Thread(target=append) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [sum(each) for each in zip(*answers, strict=True)] == [1] * len(keys)
        assert sorted(values(take(log, starts(spec), len(keys))), key=str) == keys


def check_close_twice(case: LogCase) -> None:
    log = case.open("owner")
    log.close()
    log.close()


LOG_CHECKS: list[Callable[[LogCase], None]] = [
    check_topics_are_created_once_and_checked,
    check_partitions_that_were_added_are_seen_and_read,
    check_records_come_back_as_they_were,
    check_keys_choose_the_partition_as_kafka_does,
    check_order_and_offsets_per_partition,
    check_no_partition_starves,
    check_poll_waits_no_longer_than_asked_and_wakes_up,
    check_begin_and_end_offsets,
    check_commit_is_messages_and_positions_together,
    check_a_prepared_commit_is_like_any_other,
    check_commit_needs_a_claim,
    check_a_second_claim_fences_the_first,
    check_another_worker_is_not_fenced,
    check_a_refused_commit_writes_nothing,
    check_compacted_topics_need_a_key,
    check_read_gives_exactly_the_range,
    check_offsets_out_of_range,
    check_everything_survives_a_reopen,
    check_readers_and_producers,
    check_large_batches,
    check_an_append_under_a_known_key_writes_nothing,
    check_requests_with_keys_are_written_together,
    check_a_refused_append_leaves_its_key_unknown,
    check_of_appends_at_once_under_one_key_one_is_written,
    check_close_twice,
]
