"""The catalog of intents, and where the intents were after the newest steps."""

from __future__ import annotations

from typing import Final

from rocksdict import WriteBatch

from monitor.view import records
from monitor.view.db import Ring, ViewDb
from monitor.view.records import Sample
from stream.schema.messages import Intent

MAX_INTENTS: Final = 4096
_SAMPLES: Final = 240


class Catalog:
    """The newest message of each intent, in memory and on disk."""

    def __init__(self, db: ViewDb) -> None:
        self._db = db
        self.samples = Ring(db, b"s", _SAMPLES)
        self.by_id: dict[int, Intent] = {}

    def load(self) -> None:
        """Read what the view holds."""
        self.samples.load(records.decode_sample)
        intents = [intent for _, intent in self._db.load(b"c", records.decode_intent)]
        self.by_id = {intent.intent: intent for intent in intents}

    def clear(self) -> None:
        """Forget what is in memory."""
        self.samples.clear()
        self.by_id = {}

    def put(self, write: WriteBatch, intent: Intent, value: bytes) -> None:
        """Keep the newest message of an intent."""
        if intent.intent not in self.by_id and len(self.by_id) >= MAX_INTENTS:
            return
        if intent.intent in self.by_id:
            self.by_id[intent.intent] = intent
        else:
            self.by_id = self.by_id | {intent.intent: intent}  # a copy: other threads iterate over it
        write.put(f"c{intent.intent}".encode(), value)
        self._put_sample(write, intent)

    def remove(self, write: WriteBatch, key: bytes) -> None:
        """Remove an intent that was retired; its number is the record's key."""
        try:
            number = int(key)
        except ValueError:
            return
        self.by_id = {id_: one for id_, one in self.by_id.items() if id_ != number}
        write.delete(f"c{number}".encode())

    def _put_sample(self, write: WriteBatch, intent: Intent) -> None:
        x, y = (intent.position + [0.0, 0.0])[:2]
        entry = {intent.intent: (intent.share, x, y)}
        last: Sample | None = self.samples.last()
        if last is not None and last.step == intent.step:
            sample = Sample(intent.step, last.intents | entry)
            self.samples.replace_last(write, sample, records.pack(sample))
        elif last is None or last.step < intent.step:
            sample = Sample(intent.step, entry)
            self.samples.append(write, sample, records.pack(sample))

    def intents(self) -> list[Intent]:
        """All intents, largest share first."""
        return sorted(self.by_id.values(), key=lambda one: (-one.share, one.intent))
