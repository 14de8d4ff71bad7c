"""Settings of the topics on Kafka: what they are created with, and what of them is checked."""

from __future__ import annotations

from collections.abc import Mapping

from stream.log.base import TopicMismatch, TopicSpec


def compare_settings(url: str, spec: TopicSpec, there: Mapping[str, str]) -> None:
    """Raise `TopicMismatch` with the command that mends everything at this topic that would lose or refuse data.

    A journal that is compacted too keeps one entry; with the clients' own times a topic that takes old events, or what
    is made from them, is removed as it arrives.
    """
    needed = topic_settings(spec)
    unfit = [key for key in ("cleanup.policy", "message.timestamp.type") if there[key] != needed[key]]
    if int(there["max.message.bytes"]) < spec.max_message_bytes:
        unfit.append("max.message.bytes")
    if unfit:
        raise TopicMismatch(
            f"topic {spec.name} has {', '.join(f'{key}={there[key]}' for key in unfit)}, this version needs "
            f"{', '.join(f'{key}={needed[key]}' for key in unfit)}: kafka-configs.sh --bootstrap-server "
            f"{url.removeprefix('kafka://')} --alter --entity-type topics --entity-name {spec.name} "
            f"--add-config {','.join(f'{key}={needed[key]}' for key in unfit)}"
        )


def other_partitions(url: str, spec: TopicSpec, there: int) -> str:
    """What to do about them: keys change partition, so a stream that has begun keeps the number or starts over."""
    if there < spec.partitions:
        return (
            f"; or, where the stream starts over, kafka-topics.sh --bootstrap-server {url.removeprefix('kafka://')} "
            f"--alter --topic {spec.name} --partitions {spec.partitions}"
        )
    return (
        ". If they were added since the last checkpoint: Kafka cannot take them away and keys have moved, so "
        "start over with "
        "another engine.worker and an empty folder: intentstream worker --state NEW"
    )


def topic_settings(spec: TopicSpec) -> dict[str, str]:
    """The settings of a topic on Kafka."""
    settings = {
        "cleanup.policy": spec.cleanup,
        "max.message.bytes": str(spec.max_message_bytes),
        "message.timestamp.type": "LogAppendTime",
    }
    if spec.cleanup == "delete":
        settings["retention.ms"] = str(-1 if spec.retention_ms is None else spec.retention_ms)
        settings["retention.bytes"] = str(-1 if spec.retention_bytes is None else spec.retention_bytes)
    return settings
