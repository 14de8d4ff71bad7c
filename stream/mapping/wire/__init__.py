"""Records in Confluent's framing: Avro, Protobuf, JSON Schema, by the schemas of a registry."""

from stream.mapping.wire.framed import FramedReader, open_reader

__all__ = ["FramedReader", "open_reader"]
