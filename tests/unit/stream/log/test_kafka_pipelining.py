"""Requests of a transaction that are on the way together, and what becomes of them when something fails."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import kafka
import kafka.errors as errors
import pytest
from kafka.future import Future
from kafka.producer import sender as clients
from kafka.producer.producer_batch import ProducerBatch
from kafka.producer.transaction_manager import ProducerIdAndEpoch, TransactionManager, TransactionState
from kafka.structs import OffsetAndMetadata

from stream.log.kafka.fast.pipelining import PipelinedSender, pipeline

TP = kafka.TopicPartition("t", 0)


class Client:
    """Answers nothing by itself."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Future]] = []
        self.ready = True

    def is_ready(self, node: str) -> bool:
        return self.ready

    def send(self, node: str, request: Any) -> Future:
        self.sent.append((type(request).__name__, Future()))
        return self.sent[-1][1]


class NamedClient(Client):
    """What the client's own sender takes."""

    cluster = None

    def await_ready(self, node: str, timeout_ms: int = 0) -> bool:
        return self.ready


class Sender:
    def __init__(self) -> None:
        self._client = Client()
        self._in_flight_batches: dict[Any, list[Any]] = {}
        self.data = 0

    def _send_producer_data(self) -> None:
        self.data += 1


class Accumulator:
    undrained = False

    def has_undrained(self) -> bool:
        return self.undrained


@pytest.fixture
def manager() -> TransactionManager:
    """One whose transaction has offsets and a partition, and nothing sent."""
    manager = TransactionManager("w", 60_000, 10, (4, 0), None)
    manager._transition_to(TransactionState.INITIALIZING)
    manager.producer_id_and_epoch = ProducerIdAndEpoch(1, 0)
    manager._transition_to(TransactionState.READY)
    manager._transaction_coordinator = manager._consumer_group_coordinator = "node"
    manager.begin_transaction()
    manager.send_offsets_to_transaction({TP: OffsetAndMetadata(1, "", -1)}, "w")
    manager.maybe_add_partition_to_transaction(TP)
    return manager


def overlap_of(manager: TransactionManager) -> tuple[PipelinedSender, Sender, Accumulator, list[str]]:
    sender, accumulator, one = Sender(), Accumulator(), ["the client's own way"]
    alone: list[str] = []

    def send_one() -> bool:
        alone.extend(one)
        return False

    return PipelinedSender(manager, sender, accumulator, send_one), sender, accumulator, alone


def test_what_belongs_to_the_transaction_is_said_at_once(manager: TransactionManager) -> None:
    overlap, sender, _, alone = overlap_of(manager)
    assert overlap()
    assert [name for name, _ in sender._client.sent] == ["AddOffsetsToTxnRequest", "AddPartitionsToTxnRequest"]
    assert manager.has_in_flight_transactional_request() and not alone


def test_the_client_waits_until_both_are_answered_and_both_are_tried_again(manager: TransactionManager) -> None:
    overlap, sender, _, alone = overlap_of(manager)
    overlap()
    (_, first), (_, second) = sender._client.sent
    first.failure(errors.KafkaConnectionError("gone"))
    assert manager.has_in_flight_transactional_request()
    second.failure(errors.KafkaConnectionError("gone"))
    assert not manager.has_in_flight_transactional_request()
    assert not manager.has_error()
    names = [type(handler).__name__ for _, _, handler in sorted(manager._pending_requests)]
    assert names[-2:] == ["AddOffsetsToTxnHandler", "AddPartitionsToTxnHandler"]
    assert not overlap()  # what is repeated goes the client's way, coordinators first
    assert alone and len(sender._client.sent) == 2


@pytest.mark.parametrize("order", [lambda x: x, reversed], ids=["in order", "in reverse"])
def test_an_answer_that_ends_the_producer_ends_it_whichever_comes_first(
    order: Callable[[list[Any]], list[Any]], manager: TransactionManager
) -> None:
    overlap, sender, _, _ = overlap_of(manager)
    overlap()
    for _, future in order(list(sender._client.sent)):
        future.failure(errors.UnsupportedVersionError("no"))
    assert manager.has_fatal_error() and not manager.has_in_flight_transactional_request()


def test_records_go_ahead_of_requests_but_only_once(manager: TransactionManager) -> None:
    overlap, sender, accumulator, _ = overlap_of(manager)
    accumulator.undrained = True
    overlap()
    assert sender.data == 1
    sender._in_flight_batches[TP] = [object()]
    overlap()
    assert sender.data == 1


def test_nothing_is_sent_ahead_to_a_node_that_is_not_ready_or_after_the_end(manager: TransactionManager) -> None:
    overlap, sender, accumulator, alone = overlap_of(manager)
    sender._client.ready = False
    assert not overlap()
    assert alone and not sender._client.sent
    assert len(manager._pending_requests) == 2
    sender._client.ready, accumulator.undrained = True, True
    manager.begin_commit()
    assert not overlap()
    assert not sender._client.sent and not sender.data


def test_a_request_is_not_forgotten_when_its_coordinator_cannot_be_reached(manager: TransactionManager) -> None:
    class Unreachable(NamedClient):
        def is_ready(self, node: str) -> bool:
            return False

        def await_ready(self, node: str, timeout_ms: int = 0) -> bool:
            raise errors.KafkaConnectionError("not ready")

    accumulator = SimpleNamespace(has_undrained=lambda: False, has_incomplete=False)
    sender = clients.Sender(Unreachable(), None, accumulator, transaction_manager=manager, retry_backoff_ms=1)
    pipeline(SimpleNamespace(_transaction_manager=manager, _sender=sender, _accumulator=accumulator))
    assert sender._maybe_send_pending_request()
    names = [type(handler).__name__ for _, _, handler in sorted(manager._pending_requests)]
    assert names == ["FindCoordinatorHandler", "AddPartitionsToTxnHandler", "AddOffsetsToTxnHandler"]
    assert not manager.has_in_flight_transactional_request()


@pytest.mark.parametrize("error", [errors.OutOfOrderSequenceNumberError, errors.InvalidProducerEpochError])
def test_after_a_lost_sequence_or_epoch_nothing_is_sent_to_what_was_being_added(
    manager: TransactionManager, error: type[Exception]
) -> None:
    """By itself the client goes on with a new epoch, in which these partitions belong to no transaction."""
    accumulator = SimpleNamespace(has_undrained=lambda: False, delivery_timeout_ms=60_000, deallocate=lambda _: None)
    sender = clients.Sender(NamedClient(), None, accumulator, transaction_manager=manager)
    pipeline(SimpleNamespace(_transaction_manager=manager, _sender=sender, _accumulator=accumulator))
    assert sender._maybe_send_pending_request()
    (_, offsets), (_, partitions) = sender._client.sent
    batch = ProducerBatch(TP, SimpleNamespace(next_offset=lambda: 1))
    sender._complete_batch_with_exception(batch, error("refused"))
    partitions.success(SimpleNamespace(results_by_topic_v3_and_below=[("t", [(0, 0)])]))
    offsets.success(SimpleNamespace(error_code=0))
    assert manager.has_fatal_error() and batch.is_done
    assert not manager.is_send_to_partition_allowed(TP)
    assert not manager.has_in_flight_transactional_request()
