"""What the brokers' coordinators know of a worker: its consumer group's offsets and its last transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import kafka
import kafka.errors as errors
from kafka.admin import AbortTransactionSpec

from stream.log.base import LogError, TopicPartition
from stream.log.kafka.client_path import KNOWN_VERSIONS
from stream.log.kafka.connection import KafkaConnection
from stream.log.kafka.errors import explained

_PREFIX: Final = "intentstream-"
_UNDECIDED_MS: Final = 2_000  # a decided offset is there sooner; a worker's transaction is open for a whole step


def name_of(worker_id: str) -> str:
    """A worker's consumer group and transactional id."""
    return _PREFIX + worker_id


def group_positions(
    connection: KafkaConnection, worker_id: str, *, wait_until_decided: bool
) -> dict[TopicPartition, int]:
    """The positions of a worker's last commit; empty when there was none.

    wait_until_decided: wait for an open transaction; otherwise return, after a while, the positions before it.
    """
    group, doing = name_of(worker_id), f"read the positions of worker {worker_id}"
    with connection.admin(doing) as admin:
        try:
            found = connection.patiently(lambda: admin.list_group_offsets({group: None})).get(group, {})
        except errors.GroupIdNotFoundError:
            found = {}
    if not found:
        return {}
    # The admin client may see offsets whose transaction is about to end; a read_committed consumer waits for it.
    with explained(connection.url, doing):
        consumer = connection.consumer(group_id=group)
        wait_ms = connection.config.request_timeout_ms if wait_until_decided else _UNDECIDED_MS
        try:
            offsets = {tp: consumer.committed(tp, timeout_ms=wait_ms) for tp in found}
        except errors.KafkaTimeoutError:
            if wait_until_decided:
                raise
            offsets = {tp: there.offset for tp, there in found.items()}
        finally:
            consumer.close(autocommit=False, timeout_ms=1000)
    return {TopicPartition(tp.topic, tp.partition): at for tp, at in offsets.items() if at is not None and at >= 0}


def last_transaction(connection: KafkaConnection, worker_id: str) -> Any:
    """The coordinator's description of the worker's last transaction; None: it knows none, or is too old to say."""
    name = name_of(worker_id)
    with connection.admin(f"look who is worker {worker_id}") as admin:
        try:
            return connection.patiently(lambda: admin.describe_transactions([name]))[name]
        except (errors.TransactionalIdNotFoundError, errors.UnsupportedVersionError):
            return None


def abort_left_open(connection: KafkaConnection, worker_id: str, partitions: Sequence[Any], *, committed: bool) -> bool:
    """Abort what the worker left open in these partitions, by the admin client; other transactions stay.

    Returns
    -------
    Whether there was any.

    Raises
    ------
    LogError
        The coordinator had committed it: no public method of the client marks a commit.
    """
    last = last_transaction(connection, worker_id)
    with connection.admin("look for transactions left open") as admin:
        left = [
            (tp, producer)
            for tp, state in admin.describe_producers(partitions).items()
            for producer in state.active_producers
            if last is not None
            and producer.producer_id == last.producer_id
            and producer.current_transaction_start_offset >= 0
        ]
        if left and committed:
            names = ", ".join(f"{tp.topic}[{tp.partition}]" for tp, _ in left)
            raise LogError(
                f"{connection.url}: the brokers lost the mark of a commit of worker {worker_id} in {names} "
                f"(KAFKA-20734), and kafka-python {kafka.__version__} cannot write it: install kafka-python "
                f"{' or '.join(KNOWN_VERSIONS)} and start again"
            )
        for tp, producer in left:
            epoch = max(0, producer.coordinator_epoch)  # -1 before the producer's first mark, which brokers refuse
            admin.abort_transaction(AbortTransactionSpec(tp, producer.producer_id, producer.producer_epoch, epoch))
    return bool(left)
