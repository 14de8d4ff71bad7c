"""Records of any shape into events, with the same outcome as `stream.schema.decoder` has for our own JSON.

Most records take one pass over compiled accessors; the others, one by one, become records of our own shape, which the
schema's decoder judges. A record that holds several items gives consecutive events; they belong to one step, because
steps take whole records. When one of its items is bad, the others are events all the same, and the record is one dead
letter: sent again, its good events are duplicates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from stream.mapping.accessors import compile_accessors
from stream.mapping.config import EventsConfig
from stream.mapping.reader import RecordReader
from stream.mapping.shape import RecordShape, resolve_shape
from stream.mapping.slow import OWN_ERASURE, OneByOne, is_own_erasure
from stream.mapping.typed import TypedPass, merge
from stream.mapping.wire import open_reader
from stream.schema.decoder import Decoded, Decoder
from stream.schema.events import MAX_TS, ActionsConfig


class EventDecoder(Protocol):
    """Turns batches of records into events."""

    def prepare(self, values: Sequence[bytes | None]) -> None:
        """Fetch the schemas that decoding these records needs.

        Raises
        ------
        SchemasUnavailable
            The registry does not answer.
        """

    def decode(
        self,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None],
        arrived_ms: Sequence[int] | None = None,
    ) -> Decoded:
        """See `stream.schema.decoder.Decoder.decode`."""


def make_decoder(events: EventsConfig, actions: ActionsConfig) -> EventDecoder:
    """Return the decoder for what the section `[events]` says; for our own JSON, the one of the schema.

    Raises
    ------
    ConfigError
        The section is not understood, or the libraries of its format are not installed.
    """
    reader = open_reader(events)
    if reader is None and not events.renames and events.key == "user":
        return Decoder(actions)
    return MappedDecoder(
        resolve_shape(events, actions.names()), actions, check_keys=events.key == "user", reader=reader
    )


class MappedDecoder:
    """Turns batches of records of one shape into columns.

    Parameters
    ----------
    shape
        Where the fields are, and how times and actions are read.
    check_keys
        A record's key must be its user.
    reader
        Reads the bytes; None: they are JSON.
    """

    def __init__(
        self, shape: RecordShape, actions: ActionsConfig, *, check_keys: bool = True, reader: RecordReader | None = None
    ) -> None:
        self.shape = shape
        self._check_keys = check_keys
        self._max_ahead_ms = actions.max_ahead_ms
        self._one_by_one = OneByOne(shape, actions, reader)
        self._reader = reader
        accessors = compile_accessors(shape.extractor, None if reader is None else reader.read)
        self._typed = TypedPass(shape, actions, accessors) if accessors is not None else None

    def prepare(self, values: Sequence[bytes | None]) -> None:
        """Fetch the schemas of these records; see `EventDecoder.prepare`."""
        if self._reader is not None:
            self._reader.prepare(values)

    def decode(
        self,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None],
        arrived_ms: Sequence[int] | None = None,
    ) -> Decoded:
        """Decode and validate n records; never raises on what they contain.

        But for `SchemasUnavailable`, where `prepare` has not fetched the schemas. An index of an event may be there
        several times: a record with several items.
        """
        keys = keys if self._check_keys else [None] * len(values)
        if self._typed is None:
            return self._one_by_one.decode(values, keys, arrived_ms, range(len(values)))
        arrived = np.array([0] * len(values) if arrived_ms is None else arrived_ms, dtype=np.int64)
        latest = np.where(arrived > 0, arrived + self._max_ahead_ms, MAX_TS)
        found = self._typed.decode(_without_own_erasures(values), keys, latest)
        if not found.others:
            return found.decoded
        return merge([found.decoded, self._one_by_one.decode(values, keys, arrived_ms, sorted(found.others))])


def _without_own_erasures(values: Sequence[bytes | None]) -> Sequence[bytes | None]:
    """The records; None for requests to erase in our own form, which the slow pass takes."""
    try:
        if OWN_ERASURE not in b"".join(values):  # type: ignore[arg-type]  # None raises TypeError
            return values
    except TypeError:
        pass
    return [None if is_own_erasure(value) else value for value in values]


__all__ = ["EventDecoder", "MappedDecoder", "make_decoder"]
