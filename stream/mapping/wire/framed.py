"""The frame around a record's bytes, and the reader that takes it off.

A frame is one byte 0, the schema's id in four bytes, big-endian, and then the bytes of the format. A record that begins
with `{` is no frame: it is JSON of the same shape, as `POST /events` and erasures write it into topics of every format.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol

import msgspec

from stream.errors import ConfigError
from stream.mapping.config import EventsConfig
from stream.mapping.reader import UnreadableRecord
from stream.mapping.wire.json_schema import FramedJson

_HEAD: Final = 5  # bytes before the format's own
_MODULES: Final = {"avro": ("fastavro", "httpx"), "protobuf": ("google.protobuf", "grpc_tools", "httpx")}
_from_json = msgspec.json.Decoder().decode


class Format(Protocol):
    """Reads the bytes behind the frame."""

    @property
    def needs_schemas(self) -> bool:
        """Whether the bytes cannot be read without their schema."""
        ...

    def fetch(self, schema_ids: Iterable[int]) -> None:
        """Fetch and compile what is not known of these; raises `SchemasUnavailable` when the registry is silent."""
        ...

    def read(self, schema_id: int, value: bytes, start: int) -> Any:
        """The record whose bytes begin at `start`; raises `UnreadableRecord`."""
        ...


class FramedReader:
    """Reads framed records; `prepare` fetches the schemas that some of them need."""

    def __init__(self, form: Format) -> None:
        self._form = form

    def prepare(self, values: Iterable[bytes | None]) -> None:
        """Fetch the schemas of these records that are not known yet.

        Raises
        ------
        SchemasUnavailable
            The registry does not answer; the records are not lost by asking again later.
        """
        if self._form.needs_schemas:
            self._form.fetch(sorted(set(_schema_ids(values))))

    def read(self, value: bytes) -> Any:
        """Return the record as Python objects; see `RecordReader.read`."""
        if value[:1] == b"{":
            return _from_json(value)
        if len(value) < _HEAD or value[0]:
            raise UnreadableRecord("not_framed", value, "a byte 0 and a schema's id in four bytes come first")
        return self._form.read(int.from_bytes(value[1:_HEAD], "big"), value, _HEAD)


def _schema_ids(values: Iterable[bytes | None]) -> Iterator[int]:
    for value in values:
        if value is not None and len(value) >= _HEAD and not value[0]:
            yield int.from_bytes(value[1:_HEAD], "big")


def open_reader(events: EventsConfig) -> FramedReader | None:
    """The reader of the format that `[events]` names; None for JSON without a frame.

    Raises
    ------
    ConfigError
        The libraries of the format are not installed, or the registry's credentials cannot be read.
    """
    if events.format == "json":
        return None
    return FramedReader(_FORMATS[events.format](events))


def _avro(events: EventsConfig) -> Format:
    _refuse_missing("avro")
    from stream.mapping.wire.avro import Avro

    return Avro(events)


def _protobuf(events: EventsConfig) -> Format:
    _refuse_missing("protobuf")
    from stream.mapping.wire.protobuf import Protobuf

    return Protobuf(events)


def _json_schema(events: EventsConfig) -> Format:
    return FramedJson()


_FORMATS: Final[dict[str, Callable[[EventsConfig], Format]]] = {
    "avro": _avro,
    "protobuf": _protobuf,
    "json_schema": _json_schema,
}


def _refuse_missing(name: str) -> None:
    missing = [module for module in _MODULES[name] if not _is_installed(module)]
    if missing:
        raise ConfigError(f'events.format = "{name}": needs {", ".join(missing)}: pip install "intentstream[{name}]"')


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is not there
        return False


__all__ = ["Format", "FramedReader", "open_reader"]
