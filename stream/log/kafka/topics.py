"""Topics on Kafka: created, checked against their settings, looked up."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import kafka
import kafka.errors as errors
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic

from stream.log.base import LogError, TopicMismatch, TopicSpec
from stream.log.kafka.connection import KafkaConnection
from stream.log.topic_checks import compare_topics, missing_topic


class KafkaTopics:
    """The topics of one connection; what was looked up is remembered."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._connection = connection
        self._specs: dict[str, TopicSpec] = {}
        self._partitions: dict[str, int] = {}

    def create(self, specs: Sequence[TopicSpec]) -> None:
        """Create the topics that are missing; leave those that are there."""
        with self._connection.admin("create topics") as admin:
            there = set(admin.list_topics())
            for spec in specs:
                if spec.name not in there:
                    topic = NewTopic(
                        spec.name,
                        num_partitions=spec.partitions,
                        replication_factor=self._connection.config.replication_factor,
                        topic_configs=topic_settings(spec),
                    )
                    with contextlib.suppress(errors.TopicAlreadyExistsError):  # another process was faster
                        admin.create_topics([topic], wait_for_metadata=True)
        self._specs |= {spec.name: spec for spec in specs}

    def check(self, specs: Sequence[TopicSpec], *, may_have_grown: Collection[str] = ()) -> None:
        """Raise `TopicMismatch` when a topic is missing or has other settings than these; retention is not compared.

        may_have_grown: topics that may have more partitions.
        """
        url = self._connection.url
        with self._connection.admin("check topics") as admin:
            there = set(admin.list_topics())
            wanted = {spec.name: spec for spec in specs}
            names = [name for name in wanted if name in there]
            partitions = {t["name"]: len(t["partitions"]) for t in admin.describe_topics(names)} if names else {}
            resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
            settings = admin.describe_configs(resources, config_filter="all").get("topic", {}) if names else {}
        found: dict[str, TopicSpec | None] = {spec.name: None for spec in specs}
        found |= {name: TopicSpec(name, partitions[name], wanted[name].cleanup) for name in names}
        alternative = partial(other_partitions, url)
        compare_topics(specs, found, url, may_have_grown=may_have_grown, alternative=alternative)
        for spec in specs:
            compare_settings(url, spec, {key: str(entry["value"]) for key, entry in settings[spec.name].items()})
        self._specs |= {spec.name: replace(spec, partitions=partitions[spec.name]) for spec in specs}
        self._partitions |= partitions

    def partition_count(self, topic: str) -> int:
        """Number of partitions; `TopicMismatch` when there is no such topic."""
        known = self._partitions.get(topic)
        if known is None:
            with self._connection.admin("look up a topic") as admin:
                if topic not in set(admin.list_topics()):
                    raise missing_topic(topic, self._connection.url)
                known = self._partitions[topic] = len(admin.describe_topics([topic])[0]["partitions"])
        return known

    def remember(self, topic: str, partitions: int) -> None:
        """Note the number of partitions that a topic has now."""
        self._partitions[topic] = partitions
        if topic in self._specs:
            self._specs[topic] = replace(self._specs[topic], partitions=partitions)

    def add_partitions(self, topic: str, partitions: int) -> None:
        """Give a topic that many partitions."""
        there = self.partition_count(topic)
        if partitions < there:
            raise LogError(f"topic {topic} has {there} partitions, which cannot be fewer")
        if partitions > there:
            with self._connection.admin("add partitions") as admin:
                admin.create_partitions({topic: partitions})
            self.remember(topic, partitions)

    def partitions(self, topic: str) -> list[Any]:
        """All partitions of a topic, as the client names them."""
        return [kafka.TopicPartition(topic, p) for p in range(self.partition_count(topic))]

    def spec(self, topic: str) -> TopicSpec:
        """The settings of a topic that matter to a writer."""
        spec = self._specs.get(topic)
        if spec is None:
            with self._connection.admin("look up a topic") as admin:
                if topic not in set(admin.list_topics()):
                    raise missing_topic(topic, self._connection.url)
                resource = ConfigResource(ConfigResourceType.TOPIC, topic)
                settings = admin.describe_configs([resource], config_filter="all")["topic"][topic]
            spec = self._specs[topic] = TopicSpec(
                topic,
                self.partition_count(topic),
                cleanup="compact" if "compact" in str(settings["cleanup.policy"]["value"]) else "delete",
                max_message_bytes=int(settings["max.message.bytes"]["value"]),
            )
        return spec

    def known(self) -> list[str]:
        """Names of the topics that were created, checked or written to."""
        return list(self._specs)


def compare_settings(url: str, spec: TopicSpec, there: Mapping[str, str]) -> None:
    """Raise `TopicMismatch` with the command that corrects every setting of this topic that loses or refuses data.

    A journal that is also compacted keeps one entry. With the clients' own times, retention removes old events, and
    what is made from them, as they arrive.
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
    """What else to do about them: keys change partition, so a running stream keeps the number or starts over."""
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
