"""Which way records take through kafka-python: around its slow parts, or by its public API alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

import kafka

from stream.log.base import LogError
from stream.log.kafka.decoder import RecordDecoder
from stream.log.kafka.producer import LogProducer

KNOWN_VERSIONS: Final = ("3.0.12",)  # the tests know the insides of these, which the fast path uses
OVERRIDE: Final = "INTENTSTREAM_KAFKA_CLIENT_PATH"  # an environment variable for tests


class ClientPath(NamedTuple):
    """The classes that write and read through a client."""

    name: Literal["fast", "public"]
    producer: Callable[[Any], LogProducer]  # of a `KafkaProducer`
    decoder: Callable[[Any], RecordDecoder]  # of a `KafkaConsumer`


def client_path(version: str = kafka.__version__) -> ClientPath:
    """The fast path for a version of kafka-python that the tests know, the public one for any other.

    >>> client_path("3.9.9").name
    'public'
    """
    name = os.environ.get(OVERRIDE) or ("fast" if version in KNOWN_VERSIONS else "public")
    if name == "public":
        return ClientPath("public", LogProducer, RecordDecoder)
    if name != "fast":
        raise LogError(f"{OVERRIDE} = {name!r}: fast or public")
    from stream.log.kafka.fast.producer import FastProducer  # its imports reach inside the client
    from stream.log.kafka.fast.records import FastDecoder

    return ClientPath("fast", FastProducer, FastDecoder)
