"""Protobuf, decoded by Google's library; the schemas, which registries keep as text, are compiled by protoc."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any, Final

import grpc_tools  # type: ignore[import-untyped]
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError, Message

from stream.errors import SchemasUnavailable
from stream.mapping.config import EventsConfig
from stream.mapping.reader import UnreadableRecord
from stream.mapping.wire.registry import Schema, SchemaRefused, SchemaRegistry
from stream.mapping.wire.schemas import CompiledSchemas

_MAIN: Final = "schema_of_the_record.proto"
_LONGEST_NAME, _LONGEST_PATH = 255, 2_000  # bytes
_PROTOC_S: Final = 60.0
_MAX_INDEXES: Final = 32  # messages inside messages
_INCLUDED: Final = Path(grpc_tools.__file__).parent / "_proto"  # google/protobuf/*.proto


class Protobuf:
    """Reads Protobuf by the writer's schema; the frame names the message in it."""

    needs_schemas = True

    def __init__(self, events: EventsConfig) -> None:
        self._schemas = CompiledSchemas(SchemaRegistry(events), "PROTOBUF", CompiledFile)
        self.fetch = self._schemas.fetch

    def read(self, schema_id: int, value: bytes, start: int) -> Any:
        """The record whose message indexes begin at `start`."""
        compiled = self._schemas.get(schema_id, value)
        indexes, start = _message_indexes(value, start)
        kind = compiled.message(indexes)
        if kind is None:
            raise UnreadableRecord("not_protobuf", value, f"a message that schema {schema_id} has, not {indexes}")
        try:
            message = kind.FromString(memoryview(value)[start:].tobytes())
            return json_format.MessageToDict(message, preserving_proto_field_name=True)
        except (DecodeError, json_format.Error, TypeError, ValueError, RecursionError) as exc:
            raise UnreadableRecord("not_protobuf", value, f"as schema {schema_id} says ({exc!r:.200})") from None


class CompiledFile:
    """The messages of one schema.

    Raises
    ------
    SchemaRefused
        It is no Protobuf schema, or names one that is none of its references.
    """

    def __init__(self, schema: Schema) -> None:
        files = _compile(schema)
        pool = descriptor_pool.DescriptorPool()
        try:
            for file in files:  # those first that import nothing
                pool.Add(file)
        except TypeError as exc:
            raise SchemaRefused(f"is no Protobuf schema ({exc!r:.300})") from None
        self._main, self._pool = files[-1], pool
        self._kinds: dict[tuple[int, ...], type[Message] | None] = {}

    def message(self, indexes: tuple[int, ...]) -> type[Message] | None:
        """The class of a message: its place in the file, then its place in that message, and so on."""
        if indexes not in self._kinds:
            if len(self._kinds) > 10_000:
                self._kinds.clear()
            self._kinds[indexes] = self._find(indexes)
        return self._kinds[indexes]

    def _find(self, indexes: tuple[int, ...]) -> type[Message] | None:
        inside: Any = self._main.message_type
        names = [self._main.package] if self._main.package else []
        for index in indexes:
            if not 0 <= index < len(inside):
                return None
            found: DescriptorProto = inside[index]
            names.append(found.name)
            inside = found.nested_type
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(".".join(names)))


def _compile(schema: Schema) -> list[FileDescriptorProto]:
    """The schema and what it imports, itself last."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name, text in {**schema.references, _MAIN: schema.text}.items():
                _write(Path(folder), name, text)
        except (FileExistsError, NotADirectoryError, IsADirectoryError, UnicodeError) as exc:
            raise SchemaRefused(f"has references whose names or texts are no files ({exc!r:.200})") from None
        except OSError as exc:  # a full disk says nothing about the schema
            raise SchemasUnavailable(f"compiling a schema in {folder}: {exc.strerror}") from exc
        target = Path(folder) / "compiled"
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", f"-I{_INCLUDED}"]
        try:
            made = subprocess.run(
                [*command, f"--descriptor_set_out={target}", "--include_imports", _MAIN],
                capture_output=True,
                text=True,
                timeout=_PROTOC_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise SchemaRefused(f"keeps protoc busy for more than {_PROTOC_S:.0f} s") from None
        if made.returncode:
            raise SchemaRefused(f"is no Protobuf schema that protoc compiles ({made.stderr.strip()!r:.300})")
        return list(FileDescriptorSet.FromString(target.read_bytes()).file)


def _write(folder: Path, name: str, text: str) -> None:
    """Write one file; a name from the registry stays inside of the folder."""
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts or not place.parts or "\\" in name or "\0" in name:
        raise SchemaRefused(f"has a reference by the name {name!r:.200}, which is no relative path")
    if any(len(part.encode()) > _LONGEST_NAME for part in place.parts) or len(name.encode()) > _LONGEST_PATH:
        raise SchemaRefused(f"has a reference by a name of {len(name)} characters: {name!r:.50}")
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).write_text(text)


def _message_indexes(value: bytes, start: int) -> tuple[tuple[int, ...], int]:
    """The message's place in its file, and where its bytes begin: zigzag varints, their number first; 0 for [0]."""
    count, start = _zigzag(value, start)
    if count == 0:
        return (0,), start
    if not 0 < count <= _MAX_INDEXES:
        raise UnreadableRecord("not_protobuf", value, f"from 0 to {_MAX_INDEXES} message indexes behind the frame")
    indexes = []
    for _ in range(count):
        index, start = _zigzag(value, start)
        indexes.append(index)
    return tuple(indexes), start


def _zigzag(value: bytes, start: int) -> tuple[int, int]:
    number = 0
    for length, byte in enumerate(value[start : start + 5]):
        number |= (byte & 0x7F) << (7 * length)
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), start + length + 1
    raise UnreadableRecord("not_protobuf", value, "message indexes behind the frame")


__all__ = ["CompiledFile", "Protobuf"]
