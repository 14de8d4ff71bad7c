"""Checks that both logs make: of topics against their settings, and of messages against their topic."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from stream.log.base import Headers, LogError, MessageTooLarge, TopicMismatch, TopicSpec

_RECORD_OVERHEAD: Final = 128  # bytes counted for a record beside key, value and headers; above what Kafka adds


def check_messages(
    spec: TopicSpec,
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    headers: Sequence[Headers] | None = None,
) -> None:
    """Raise `MessageTooLarge` for the first message that the topic does not take, `LogError` where a key is missing.

    Every message is counted with the largest headers among them; None: no message has headers.
    """
    header_bytes = max((sum(len(name) + len(value) for name, value in found) for found in headers or ()), default=0)
    limit = spec.max_message_bytes - _RECORD_OVERHEAD - header_bytes
    for key, value in zip(keys, values, strict=True):
        size = (len(value) if value is not None else 0) + (len(key) if key is not None else 0)
        if size > limit:
            raise MessageTooLarge(
                f"message for topic {spec.name} with key {(key or b'')[:64]!r}: "
                f"{size + _RECORD_OVERHEAD + header_bytes} bytes, the topic takes {spec.max_message_bytes} "
                "(max_message_bytes)"
            )
    if spec.cleanup == "compact" and None in keys:
        raise LogError(f"message for topic {spec.name} without a key: the topic is compacted, which needs one")


def missing_topic(topic: str, url: str) -> TopicMismatch:
    """The error for a topic that does not exist."""
    return TopicMismatch(f"topic {topic} does not exist: create it with `intentstream topics --create --log {url}`")


def compare_topics(
    wanted: Sequence[TopicSpec],
    found: Mapping[str, TopicSpec | None],
    url: str,
    *,
    may_have_grown: Collection[str] = (),
    alternative: Callable[[TopicSpec, int], str] = lambda *_: ", or start over on other topics (keys change partition)",
) -> None:
    """Raise `TopicMismatch` for the first topic that is missing or has another policy or number of partitions.

    may_have_grown: topics that may have more partitions than wanted. alternative: from the wanted settings and the
    number of partitions found, the text on what else than the setting `log.partitions` can be changed.
    """
    for spec in wanted:
        there = found[spec.name]
        if there is None:
            raise missing_topic(spec.name, url)
        grown = spec.name in may_have_grown and there.partitions > spec.partitions
        if there.partitions != spec.partitions and not grown:
            raise TopicMismatch(
                f"topic {spec.name} has {there.partitions} partitions, the configuration says {spec.partitions}: set "
                f"log.partitions = {there.partitions}{alternative(spec, there.partitions)}"
            )
        if there.cleanup != spec.cleanup:
            raise TopicMismatch(
                f"topic {spec.name} has cleanup.policy={there.cleanup}, this version needs {spec.cleanup}: create the "
                "log anew in another folder"
            )
