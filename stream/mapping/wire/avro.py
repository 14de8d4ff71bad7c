"""Avro, decoded by fastavro."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from fastavro import parse_schema, schemaless_reader

from stream.mapping.config import EventsConfig
from stream.mapping.reader import UnreadableRecord
from stream.mapping.wire.registry import Schema, SchemaRefused, SchemaRegistry
from stream.mapping.wire.schemas import CompiledSchemas

# read as the numbers and the text that they are, which is several times faster than by way of datetime and UUID
_PLAIN: Final = frozenset(
    ["timestamp-millis", "timestamp-micros", "local-timestamp-millis", "local-timestamp-micros", "uuid"]
)
_PRIMITIVES: Final = frozenset(["null", "boolean", "int", "long", "float", "double", "bytes", "string"])


class Avro:
    """Reads Avro by the writer's schema."""

    needs_schemas = True

    def __init__(self, events: EventsConfig) -> None:
        self._schemas = CompiledSchemas(SchemaRegistry(events), "AVRO", compile_schema)
        self.fetch = self._schemas.fetch

    def read(self, schema_id: int, value: bytes, start: int) -> Any:
        """The record whose bytes begin at `start`."""
        schema = self._schemas.get(schema_id, value)
        source = io.BytesIO(value)
        source.seek(start)
        try:
            record = schemaless_reader(source, schema, None)
        except Exception as exc:  # fastavro raises whatever the bytes lead to
            raise UnreadableRecord("not_avro", value, f"as schema {schema_id} says ({exc!r:.200})") from None
        if source.tell() != len(value):
            raise UnreadableRecord("not_avro", value, f"as schema {schema_id} says, with nothing behind it")
        return record


def compile_schema(schema: Schema) -> Any:
    """Parse an Avro schema and what it refers to.

    A type that contains itself is refused, and so is a list whose members have no bytes: a record of a few bytes could
    end the process by its depth or keep it busy without end.

    Raises
    ------
    SchemaRefused
        It is no Avro schema, or one that is not read.
    """
    named: dict[str, Any] = {}
    try:
        for text in schema.references.values():  # those first that refer to nothing
            parse_schema(_plain(msgspec.json.decode(text)), named)
        parsed = parse_schema(_plain(msgspec.json.decode(schema.text)), named)
    except Exception as exc:  # fastavro raises whatever the text leads to
        raise SchemaRefused(f"is no Avro schema that fastavro reads ({exc!r:.300})") from None
    _least_bytes(parsed, named, ())
    return parsed


def _plain(schema: Any) -> Any:
    """The schema with times and UUIDs as the numbers and the text that they are written as."""
    if isinstance(schema, list):
        return [_plain(one) for one in schema]
    if isinstance(schema, dict):
        return {
            key: _plain(value)
            for key, value in schema.items()
            if not (key == "logicalType" and isinstance(value, str) and value in _PLAIN)
        }
    return schema


def _least_bytes(schema: Any, named: Mapping[str, Any], around: tuple[str, ...]) -> int:
    """The fewest bytes that a value of this schema has; raises `SchemaRefused` for what could have no end."""
    if isinstance(schema, list):
        return 1 + min((_least_bytes(one, named, around) for one in schema), default=0)
    if isinstance(schema, str):
        if schema in _PRIMITIVES:
            return 0 if schema == "null" else 1
        if schema in around:
            raise SchemaRefused(f"contains the type {schema!r:.200} inside of itself")
        return _least_bytes(named[schema], named, around)
    kind = schema["type"]
    if kind in ("array", "map"):
        members = schema["items"] if kind == "array" else schema["values"]
        if not _least_bytes(members, named, around) and kind == "array":
            raise SchemaRefused("has a list whose members have no bytes")
        return 1
    if kind in ("record", "error"):
        inside = (*around, schema["name"])
        return sum(_least_bytes(field["type"], named, inside) for field in schema["fields"])
    if kind == "fixed":
        return int(schema["size"])
    return 1 if kind == "enum" else _least_bytes(kind, named, around)


__all__ = ["Avro", "compile_schema"]
