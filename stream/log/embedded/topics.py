"""Topics of an embedded log: created, checked against their settings, given more partitions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from stream.log.base import LogError, Mode, TopicSpec
from stream.log.embedded.primary import PrimaryStore
from stream.log.embedded.reader import LogReader
from stream.log.embedded.store import Store
from stream.log.topic_checks import compare_topics


class EmbeddedTopics:
    """The topics as one user of the log sees and changes them."""

    def __init__(self, store: Store, reader: LogReader, mode: Mode) -> None:
        self._store = store
        self._reader = reader
        self._mode = mode

    def create(self, specs: Sequence[TopicSpec]) -> None:
        """Create the topics that are missing; leave those that are there."""
        self._store.refresh()
        absent = [spec for spec in specs if self._store.topic(spec.name) is None]
        if not absent:
            return
        with self._changing(f"create topic {absent[0].name}") as store:
            for spec in absent:
                if store.topic(spec.name) is None:
                    store.add_topic(spec)

    def check(self, specs: Sequence[TopicSpec], *, may_have_grown: Collection[str] = ()) -> None:
        """Raise `TopicMismatch` when a topic is missing or has another cleanup policy or number of partitions."""
        self._store.refresh()
        topics = {spec.name: self._store.topic(spec.name) for spec in specs}
        found = {name: topic.spec if topic else None for name, topic in topics.items()}
        compare_topics(specs, found, f"file://{self._store.path}", may_have_grown=may_have_grown)

    def add_partitions(self, topic: str, partitions: int) -> None:
        """Give a topic that many partitions; `LogError` when it has more."""
        there = self.partition_count(topic, current=True)
        with self._changing(f"add partitions to topic {topic}") as store:
            found = store.topic(topic)
            if found is None or partitions < found.spec.partitions:
                raise LogError(f"topic {topic} has {there} partitions, which cannot be fewer")
            store.add_partitions(found, partitions)

    def partition_count(self, topic: str, *, current: bool) -> int:
        """Number of partitions; `TopicMismatch` when there is no such topic."""
        if current:
            self._store.refresh()
        return self._reader.topic(topic).spec.partitions

    @contextmanager
    def _changing(self, doing: str) -> Iterator[PrimaryStore]:
        """The writer's store: this process's own, or opened for this change when no other process writes."""
        if self._mode == "reader":
            raise LogError(f"log {self._store.path}: opened for reading, cannot {doing}")
        store = PrimaryStore.open(self._store.path)
        try:
            with store.writing():
                yield store
        finally:
            store.release()
        self._store.refresh()
