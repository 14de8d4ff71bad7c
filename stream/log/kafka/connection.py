"""Connections to Kafka: clients that leave nothing behind when they cannot be made."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import kafka
import kafka.errors as errors
from kafka.admin import KafkaAdminClient

from stream.log.base import LogError
from stream.log.kafka.calls import PAUSE_S
from stream.log.kafka.client_path import client_path
from stream.log.kafka.config import KafkaConfig
from stream.log.kafka.errors import explained
from stream.log.kafka.producer import LogProducer

_BATCH_BYTES: Final = 64 * 1024  # of records in one produce batch; below max_message_bytes of every topic
_MAX_REQUEST_BYTES: Final = 8 * 1024 * 1024
_LINGER_MS: Final = 20  # a commit flushes at once; this only keeps half-full batches back while it is being filled
_RECONNECT_MS: Final = 1_000  # the client's 30 s would keep a worker waiting for a broker that is long back
_METADATA_MS: Final = 30_000  # after which a producer puts keys into partitions that were added
_COORDINATOR_BUSY: Final = (
    errors.CoordinatorNotAvailableError,
    errors.CoordinatorLoadInProgressError,
    errors.NotCoordinatorError,
)


class KafkaConnection:
    """Brokers, security and timeouts, and the clients made with them.

    Parameters
    ----------
    url
        `kafka://host:port[,host:port]`.
    config
        Security and timeouts.
    """

    def __init__(self, url: str, config: KafkaConfig) -> None:
        parts = urlsplit(url)
        if "@" in url:  # first: no other message may show it
            raise LogError("log kafka://: no user or password in the URL: use log.kafka.sasl_* in the configuration")
        if not parts.netloc or parts.path not in ("", "/") or parts.query:
            raise LogError(f"log {url}: expected kafka://host:port[,host:port]")
        self.url = f"kafka://{parts.netloc}"
        self.config = config
        self.path = client_path()
        self._options: dict[str, Any] = {
            "bootstrap_servers": parts.netloc.split(","),
            "bootstrap_timeout_ms": config.request_timeout_ms,
            "reconnect_backoff_max_ms": _RECONNECT_MS,
            **config.client_options(),
        }

    @contextlib.contextmanager
    def admin(self, doing: str) -> Iterator[Any]:
        """An admin client for one question or change; the client's errors become the log's."""
        with explained(self.url, doing):
            admin = connect(KafkaAdminClient, **self._options)
            try:
                yield admin
            finally:
                admin.close()

    def consumer(self, **settings: Any) -> Any:
        """A consumer that neither commits nor chooses positions by itself. Raises the client's errors."""
        return connect(
            kafka.KafkaConsumer,
            **{"group_id": None, "isolation_level": "read_committed"} | settings,
            enable_auto_commit=False,
            auto_offset_reset="none",
            metrics_enabled=False,
            **self._options,
        )

    def producer(self, **settings: Any) -> LogProducer:
        """A producer; with a `transactional_id` one of transactions. Raises the client's errors."""
        client = connect(
            kafka.KafkaProducer,
            acks="all",
            batch_size=_BATCH_BYTES,
            linger_ms=_LINGER_MS,
            max_request_size=_MAX_REQUEST_BYTES,
            max_block_ms=self.config.request_timeout_ms,
            delivery_timeout_ms=max(self.config.commit_timeout_ms, self.config.request_timeout_ms + _LINGER_MS),
            allow_auto_create_topics=False,
            metadata_max_age_ms=_METADATA_MS,
            metrics_enabled=False,
            **settings,
            **self._options,
        )
        return self.path.producer(client)

    def offsets(self, ask: Callable[[Sequence[Any]], dict[Any, int]], partitions: Sequence[Any]) -> list[int]:
        """The answer of `ask`, a consumer's `beginning_offsets` or `end_offsets`, for each partition.

        kafka-python 3.0.12 leaves out a partition whose leader it does not know (yet, or during an election) when it
        knows that of another one, and then fails over the missing one.
        """
        deadline = time.monotonic() + self.config.request_timeout_ms / 1000
        while True:
            try:
                found = ask(partitions)
                return [found[tp] for tp in partitions]
            except KeyError as exc:
                if time.monotonic() > deadline:
                    raise errors.KafkaTimeoutError(f"{exc.args[0]} has no leader that is known") from exc
                time.sleep(PAUSE_S)

    def patiently(self, ask: Callable[[], Any]) -> Any:
        """Ask a coordinator; a new broker first creates the topic it works on, which takes a second."""
        deadline = time.monotonic() + self.config.request_timeout_ms / 1000
        while True:
            try:
                return ask()
            except _COORDINATOR_BUSY:
                if time.monotonic() > deadline:
                    raise
                time.sleep(PAUSE_S)


def connect(kind: Any, **settings: Any) -> Any:
    """Make a client of this kind; when its constructor fails, close the thread and the sockets that it had opened.

    kafka-python starts its network thread before it looks for the brokers and forgets it when there are none: a worker
    that waits an hour for its broker would keep one thread for each try.
    """
    opened: list[Any] = []
    network = kind.DEFAULT_CONFIG.get("kafka_client")

    def opening(**configs: Any) -> Any:
        opened.append(network(**configs))
        return opened[-1]

    try:
        return kind(**settings) if network is None else kind(kafka_client=opening, **settings)
    except BaseException:
        for one in opened:
            one.close()
        raise
