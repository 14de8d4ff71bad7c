"""What `verify` finds: anything lost, anything twice, another state; and that it finds nothing where all is well."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from stream.log import open_log
from stream.log.base import EventLog, Message, OffsetRange, RecordBatch, TopicPartition
from stream.schema import topics
from stream.worker.verify import Verification, _Published, verify
from tests.contracts.log_checks import flip
from tests.unit.stream.worker.test_worker import open_filled, worked_off


class Spoilt:
    """A log that publishes something else than it is given."""

    def __init__(self, log: EventLog, spoil: Callable[[Sequence[Message]], Sequence[Message]]) -> None:
        self._log, self._spoil = log, spoil

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def commit(self, messages: Sequence[Message], positions: Mapping[TopicPartition, int]) -> None:
        self._log.commit(self._spoil(messages), positions)


def verified(
    tmp_path: Path, spoil: Callable[[Sequence[Message]], Sequence[Message]], *, from_oldest_checkpoint: bool = False
) -> Verification:
    """Verify a stream whose third commit is spoilt."""
    config, log = open_filled(tmp_path, checkpoint_every_steps=2)
    commits = [0]

    def third(messages: Sequence[Message]) -> Sequence[Message]:
        commits[0] += 1
        return spoil(messages) if commits[0] == 3 else messages

    with log:
        worked_off(config, Spoilt(log, third), tmp_path / "state")
        return verify(
            config, log, tmp_path / "state", tmp_path / "scratch", from_oldest_checkpoint=from_oldest_checkpoint
        )


def without(topic: str, count: int) -> Callable[[Sequence[Message]], Sequence[Message]]:
    def spoil(messages: Sequence[Message]) -> Sequence[Message]:
        chosen = [message for message in messages if message.topic == topic][:count]
        assert chosen
        return [message for message in messages if message not in chosen]

    return spoil


def test_a_sound_stream_is_equal_from_the_start_and_from_the_oldest_checkpoint(tmp_path: Path) -> None:
    for from_oldest_checkpoint in (False, True):
        found = verified(
            tmp_path / str(from_oldest_checkpoint),
            lambda messages: messages,
            from_oldest_checkpoint=from_oldest_checkpoint,
        )
        assert (found.difference, found.messages > 0) == ("", True)


def test_after_a_stop_in_order_nothing_is_left_to_compare_and_nothing_differs(tmp_path: Path) -> None:
    config, log = open_filled(tmp_path, checkpoint_every_steps=1, keep_checkpoints=1)
    with log:
        worked_off(config, log, tmp_path / "state")
        found = verify(config, log, tmp_path / "state", tmp_path / "scratch", from_oldest_checkpoint=True)
        assert (found.difference, found.steps) == ("", 0)


def test_a_bit_that_flipped_in_a_file_of_the_log_is_found_and_its_file_named(tmp_path: Path) -> None:
    config, log = open_filled(tmp_path, checkpoint_every_steps=2)
    with log:
        worked_off(config, log, tmp_path / "state")
    with open_log(config.log.url):  # writes what lay in the write-ahead log into a file
        pass
    with open_log(config.log.url, mode="reader") as log:
        sound = verify(config, log, tmp_path / "state", tmp_path / "scratch")
        assert sound.difference == "" and sound.log_files > 0
    (file,) = Path(config.log.url.removeprefix("file://")).glob("db/*.sst")
    flip(file, file.stat().st_size // 2)
    with open_log(config.log.url, mode="reader") as log:
        found = verify(config, log, tmp_path / "state", tmp_path / "scratch-2")
    assert f"1 of 1 files are damaged: db/{file.name}" in found.difference


@pytest.mark.parametrize("topic", [topics.RECOMMENDATIONS, topics.DEAD_LETTERS])
def test_a_lost_message_is_found(topic: str, tmp_path: Path) -> None:
    found = verified(tmp_path, without(topic, 1))
    assert f"message to {topic}[" in found.difference


def test_a_lost_list_that_a_later_one_would_have_replaced_is_found(tmp_path: Path) -> None:
    found = verified(tmp_path, without(topics.RECOMMENDATIONS, 10**6))
    assert f"step 3: message to {topics.RECOMMENDATIONS}[" in found.difference


def test_a_message_that_is_there_twice_is_found(tmp_path: Path) -> None:
    def twice(messages: Sequence[Message]) -> Sequence[Message]:
        return [*messages, next(message for message in messages if message.topic == topics.RECOMMENDATIONS)]

    assert f"{topics.RECOMMENDATIONS}[" in verified(tmp_path, twice).difference


class Compacted:
    """A log in which the catalogue's only partition has one record left, a tombstone of key 15 at offset 5."""

    def partition_count(self, topic: str) -> int:
        return 1

    def begin_offsets(self, topic: str) -> list[int]:
        return [0]

    def end_offsets(self, topic: str) -> list[int]:
        return [6 if topic == topics.INTENT_CATALOG else 0]

    def read(self, span: OffsetRange) -> RecordBatch:
        return RecordBatch(span.topic, 0, [5], [b"15"], [None], [0], [()], 6)


@pytest.mark.parametrize("deleted_again", [True, False])
def test_what_a_tombstone_deleted_is_not_lost_though_an_equal_one_came_before(deleted_again: bool) -> None:
    published = _Published(Compacted(), 0)  # type: ignore[arg-type]
    tombstone = Message(topics.INTENT_CATALOG, b"15", None, 0)
    steps = [tombstone, Message(topics.INTENT_CATALOG, b"15", b"{}", 0), *([tombstone] if deleted_again else [])]
    for step, message in enumerate(steps, 1):
        assert published.expect(step, [message]) == ""
    assert ("step 2: message to intent-catalog" in published.rest()) is not deleted_again
