"""A transaction's requests, sent together where none needs the other's answer.

kafka-python sends them one by one, five to a commit, each after the answer to the one before: AddOffsetsToTxn,
AddPartitionsToTxn, TxnOffsetCommit, Produce, EndTxn. The first two say what belongs to the transaction, the next two
write it; within a pair neither needs the other's answer. The client still decides what is sent, what an answer means
and what is tried again: a repeated request goes alone, as without this module.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import kafka.errors as errors
from kafka.producer.transaction_manager import Priority, TransactionState


class PipelinedSender:
    """Replaces the sender's `_maybe_send_pending_request`; everything here runs in the sender's thread.

    The client knows one transactional request in flight, by number. It gets the number of the newest request sent here,
    and that of each request when its answer comes.
    """

    def __init__(self, manager: Any, sender: Any, accumulator: Any, send_one: Callable[[], bool]) -> None:
        self._manager = manager
        self._sender = sender
        self._accumulator = accumulator
        self._send_one = send_one
        self._in_flight: set[int] = set()
        self._sent = 0

    def __call__(self) -> bool:
        """Send what may go now; return whether a transactional request was among it."""
        if self._transaction_is_open():
            # Only with no records in flight: more than one request ahead would fill the connection up.
            if self._accumulator.has_undrained() and not any(self._sender._in_flight_batches.values()):  # noqa: SLF001
                self._sender._send_producer_data()  # noqa: SLF001  # takes partitions that were added, no others
            handlers = self._ready_together() if self._transaction_is_open() else []
            if handlers:
                for handler, node in handlers:
                    self._send(handler, node)
                return True
        return self._send_one()

    def _transaction_is_open(self) -> bool:
        return bool(self._manager._current_state == TransactionState.IN_TRANSACTION)  # noqa: SLF001

    def _ready_together(self) -> list[tuple[Any, Any]]:
        """All waiting requests with their nodes, when there are several and all of them may go now; else none."""
        manager = self._manager
        with manager._lock:  # noqa: SLF001
            if manager._new_partitions_in_transaction:  # noqa: SLF001
                manager._enqueue_request(manager._add_partitions_to_transaction_handler())  # noqa: SLF001
            waiting = sorted(manager._pending_requests)  # noqa: SLF001
            handlers = [(one, manager.coordinator(one.coordinator_type)) for *_, one in waiting if _may_go_ahead(one)]
            fit = len(handlers) == len(waiting) > 1 and all(
                node is not None and self._sender._client.is_ready(node)  # noqa: SLF001
                for _, node in handlers
            )
            if fit:
                manager._pending_requests.clear()  # noqa: SLF001
            return handlers if fit else []

    def _send(self, handler: Any, node: Any) -> None:
        self._sent += 1
        self._in_flight.add(self._sent)
        self._set_in_flight(self._sent)
        future = self._sender._client.send(node, handler.request)  # noqa: SLF001
        future.add_both(partial(self._answered, handler, self._sent))

    def _answered(self, handler: Any, number: int, answer: Any) -> None:
        self._in_flight.discard(number)
        self._set_in_flight(number)
        try:
            handler.on_complete(number, answer)
        finally:
            if self._in_flight:
                self._set_in_flight(max(self._in_flight))

    def _set_in_flight(self, number: int) -> None:
        self._manager._in_flight_request_correlation_id = number  # noqa: SLF001


def _may_go_ahead(handler: Any) -> bool:
    return bool(handler.priority == Priority.ADD_PARTITIONS_OR_OFFSETS and not handler.is_retry)


def _await_without_error(await_ready: Callable[..., bool], pause_s: float, *arguments: Any, **options: Any) -> bool:
    try:
        return await_ready(*arguments, **options)
    except errors.KafkaConnectionError:
        time.sleep(pause_s)
        return False


def pipeline(producer: Any) -> None:
    """Make a transactional `KafkaProducer` send so from now on.

    The producer no longer takes an unreachable node for an error: its sender (3.0.12) then asks for another
    coordinator, but forgets the request in hand, and the commit would wait for its answer until the timeout.

    Nor does it take a new epoch by itself when brokers refuse an epoch or a sequence number. The transaction is over
    then, but partitions whose answer is under way would count as part of one, and get records outside of any. It is a
    fatal error, as with brokers before 2.5: a new claim decides.
    """
    manager, sender, accumulator = producer._transaction_manager, producer._sender, producer._accumulator  # noqa: SLF001
    client, pause_s = sender._client, sender.config["retry_backoff_ms"] / 1000  # noqa: SLF001
    client.await_ready = partial(_await_without_error, client.await_ready, pause_s)
    manager._supports_epoch_bump = lambda: False  # noqa: SLF001
    send = sender._maybe_send_pending_request  # noqa: SLF001
    sender._maybe_send_pending_request = PipelinedSender(manager, sender, accumulator, send)  # noqa: SLF001
