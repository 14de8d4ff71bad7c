"""Framed records, written by Confluent's serializers and Apache's avro: what becomes of them."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import avro.io
import avro.schema
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import timestamp_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream.errors import ConfigError, SchemasUnavailable
from stream.mapping.config import EventsConfig
from stream.mapping.decoder import EventDecoder, make_decoder
from stream.mapping.wire import framed, protobuf, registry
from stream.mapping.wire.avro import compile_schema
from stream.mapping.wire.registry import Schema, SchemaRefused, SchemaRegistry
from stream.schema.decoder import Decoded
from stream.schema.events import ActionsConfig
from tests.unit.stream.mapping.registry_server import RegistryServer, running_registry

TS = 1_700_000_000_123
CLICK = {
    "type": "record",
    "name": "Click",
    "namespace": "shop",
    "fields": [
        {
            "name": "visitor",
            "type": {"type": "record", "name": "Visitor", "fields": [{"name": "id", "type": "string"}]},
        },
        {"name": "product", "type": ["null", "long", "string"], "default": None},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["view", "cart", "purchase"]}},
        {"name": "price", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}]},
    ],
}
WRITTEN: Any = json.loads(json.dumps(CLICK).replace(', "logicalType": "timestamp-millis"', ""))  # at as a number
MAPPED: dict[str, Any] = {"user": "visitor.id", "item": "product", "ts": "at", "action": "kind", "value": "price"}


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with running_registry() as running:
        yield running


def frame(schema_id: int, payload: bytes) -> bytes:
    return struct.pack(">bI", 0, schema_id) + payload


def by_apache(schema: Any, record: Any) -> bytes:
    written = io.BytesIO()
    avro.io.DatumWriter(avro.schema.parse(json.dumps(schema))).write(record, avro.io.BinaryEncoder(written))
    return written.getvalue()


def click(user: str = "anna", product: Any = 7) -> dict[str, Any]:
    return {"visitor": {"id": user}, "product": product, "at": TS, "kind": "cart", "price": None}


def config(server: RegistryServer, **changes: Any) -> EventsConfig:
    return EventsConfig(**{"format": "avro", "registry_url": server.url, **MAPPED, **changes})


def decode(decoder: EventDecoder, *values: bytes | None) -> Decoded:
    decoder.prepare(values)
    return decoder.decode(values, [None] * len(values), [TS] * len(values))


def rejections(found: Decoded) -> list[tuple[int, str]]:
    return [(one.index, one.reason) for one in found.rejections]


# -- Avro ------------------------------------------------------------------------------------------------------------


def test_avro_of_confluents_serializer_becomes_events(server: RegistryServer) -> None:
    client = SchemaRegistryClient({"url": server.url})
    serialize = AvroSerializer(client, json.dumps(WRITTEN))
    context = SerializationContext("clicks", MessageField.VALUE)
    values = [serialize(click(), context), serialize(click("bert", "tent"), context)]
    found = decode(make_decoder(config(server), ActionsConfig()), *values)
    assert found.events.users == [b"anna", b"bert"] and found.events.items == ["7", "tent"]
    assert found.events.ts.tolist() == [TS, TS]
    assert [ActionsConfig().names()[code] for code in found.events.actions.tolist()] == ["cart", "cart"]


def test_avro_of_apaches_library_becomes_events_and_each_schema_is_fetched_once(server: RegistryServer) -> None:
    first, second = server.register("clicks-value", {"schema": json.dumps(CLICK)}), 0
    longer = {**CLICK, "fields": [*CLICK["fields"], {"name": "shop", "type": "string", "default": ""}]}
    second = server.register("clicks-value", {"schema": json.dumps(longer)})
    values = [
        frame(first, by_apache(WRITTEN, click())),
        frame(
            second,
            by_apache({**WRITTEN, "fields": [*WRITTEN["fields"], longer["fields"][-1]]}, click() | {"shop": "x"}),
        ),
    ]
    decoder = make_decoder(config(server), ActionsConfig())
    for _ in range(3):
        found = decode(decoder, *values)
        assert len(found.events) == 2 and not found.rejections
    assert sorted(server.requests) == [f"/schemas/ids/{first}", f"/schemas/ids/{second}"]


def test_types_that_a_schema_names_are_fetched_from_their_subjects(server: RegistryServer) -> None:
    kind = {"type": "enum", "name": "Kind", "namespace": "shop", "symbols": ["view", "cart"]}
    visitor = {"type": "record", "name": "Visitor", "namespace": "shop", "fields": [{"name": "id", "type": "string"}]}
    server.register("kind", {"schema": json.dumps(kind)})
    server.register("visitor", {"schema": json.dumps(visitor)})
    fields = [
        {"name": "visitor", "type": "shop.Visitor"},
        {"name": "product", "type": "string"},
        {"name": "at", "type": "long"},
        {"name": "kind", "type": "shop.Kind"},
    ]
    named = {"type": "record", "name": "Click", "namespace": "shop", "fields": fields}
    references = [
        {"name": "shop.Visitor", "subject": "visitor", "version": 1},
        {"name": "shop.Kind", "subject": "kind", "version": 1},
    ]
    number = server.register("clicks-value", {"schema": json.dumps(named), "references": references})
    whole = {**named, "fields": [{**fields[0], "type": visitor}, *fields[1:3], {**fields[3], "type": kind}]}
    record = {"visitor": {"id": "anna"}, "product": "tent", "at": TS, "kind": "view"}
    found = decode(make_decoder(config(server, value=""), ActionsConfig()), frame(number, by_apache(whole, record)))
    assert found.events.users == [b"anna"] and not found.rejections


def test_what_is_no_record_of_the_schema_is_a_dead_letter_with_its_reason(server: RegistryServer) -> None:
    number = server.register("clicks-value", {"schema": json.dumps(CLICK)})
    other = server.register("other", {"schema": 'syntax = "proto3";', "schemaType": "PROTOBUF"})
    good = by_apache(WRITTEN, click())
    found = decode(
        make_decoder(config(server), ActionsConfig()),
        frame(number, good),
        frame(number, good[:-3]),
        frame(number, good + b"x"),
        b"\x01" + frame(number, good)[1:],
        b"\x00\x00",
        frame(4_000_000_000, good),
        frame(other, good),
        b"",
        b'{"visitor":{"id":"json"},"product":1,"at":%d}' % TS,  # as POST /events writes it
        b'{"user":"anna","action":"erase","ts":%d}' % TS,
    )
    assert found.events.users == [b"anna", b"json"]
    assert rejections(found) == [
        (1, "not_avro"),
        (2, "not_avro"),
        (3, "not_framed"),
        (4, "not_framed"),
        (5, "unknown_schema"),
        (6, "unknown_schema"),
        (7, "empty"),
    ]
    rules = {one.index: one.rule for one in found.rejections}
    assert "has no schema 4000000000" in rules[5] and "is of kind PROTOBUF, not AVRO" in rules[6]
    assert [one.user for one in found.erasures] == [b"anna"]


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("{", "is no Avro schema"),
        ('"nothing.of.the.kind"', "is no Avro schema"),
        ('{"type":"array","items":"null"}', "no bytes"),
        ('{"type":"record","name":"R","fields":[{"name":"next","type":["null","R"]}]}', "inside of itself"),
        ('{"type":"array","items":{"type":"record","name":"E","fields":[]}}', "no bytes"),
    ],
)
def test_a_schema_that_could_keep_the_worker_busy_for_ever_is_refused(schema: str, words: str) -> None:
    with pytest.raises(SchemaRefused, match=words):
        compile_schema(Schema(schema, "AVRO", {}))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=st.binary(max_size=80), start=st.integers(0, 30), change=st.binary(max_size=6))
def test_bytes_of_any_kind_are_an_event_or_a_dead_letter(
    decoders: dict[str, EventDecoder], payload: bytes, start: int, change: bytes
) -> None:
    good = by_apache(WRITTEN, click())
    for decoder in decoders.values():
        for value in (frame(1, payload), frame(1, good[:start] + change + good[start + 1 :]), b"\0" + payload, payload):
            found = decode(decoder, value)
            assert len(found.events) + len(found.rejections) + len(found.erasures) + found.skipped == 1


@pytest.fixture(scope="module")
def decoders() -> Iterator[dict[str, EventDecoder]]:
    with running_registry() as avro_server, running_registry() as protobuf_server:
        avro_server.register("clicks-value", {"schema": json.dumps(CLICK)})
        protobuf_server.register("clicks-value", {"schema": PROTO, "schemaType": "PROTOBUF"})
        yield {
            "avro": make_decoder(config(avro_server), ActionsConfig()),
            "protobuf": make_decoder(proto_config(protobuf_server), ActionsConfig()),
            "json_schema": make_decoder(EventsConfig(format="json_schema", **MAPPED), ActionsConfig()),
        }


# -- Protobuf --------------------------------------------------------------------------------------------------------

PROTO = """syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
message Nothing { message Inner { string user_id = 1; string product_id = 2; int64 at = 3; } }
enum Kind { VIEW = 0; CART = 1; }
message Click { string user_id = 1; uint64 product_id = 2; google.protobuf.Timestamp at = 3; Kind kind = 4; }
"""


def proto_config(server: RegistryServer, **changes: Any) -> EventsConfig:
    paths = {"user": "user_id", "item": "product_id", "ts": "at", "action": "kind"}
    actions = {"VIEW": "view", "CART": "cart"}
    return EventsConfig(**{"format": "protobuf", "registry_url": server.url, "actions": actions, **paths, **changes})


def test_protobuf_of_confluents_serializer_becomes_events(server: RegistryServer) -> None:
    client = SchemaRegistryClient({"url": server.url})
    serialize = ProtobufSerializer(timestamp_pb2.Timestamp, client, {"use.deprecated.format": False})
    framed_by_confluent = serialize(
        timestamp_pb2.Timestamp(seconds=5), SerializationContext("times", MessageField.VALUE)
    )
    assert framed_by_confluent[:1] == b"\0" and framed_by_confluent[5:6] == b"\0"  # the frame that `click_bytes` has
    number = server.register("clicks-value", {"schema": PROTO, "schemaType": "PROTOBUF"})
    found = decode(make_decoder(proto_config(server), ActionsConfig()), frame(number, b"\x02\x02" + click_bytes()))
    assert found.events.users == [b"anna"] and found.events.items == ["77"] and found.events.ts.tolist() == [TS]
    assert not found.rejections


def click_bytes() -> bytes:
    """A Click on the wire: anna, product 77, TS, CART."""
    moment = timestamp_pb2.Timestamp()
    moment.FromMilliseconds(TS)
    sent = moment.SerializeToString()
    return b"\x0a\x04anna\x10\x4d\x1a" + bytes([len(sent)]) + sent + b"\x20\x01"


def test_a_message_inside_of_a_message_and_the_first_one_are_found(server: RegistryServer) -> None:
    number = server.register("clicks-value", {"schema": PROTO, "schemaType": "PROTOBUF"})
    inner = b"\x0a\x04bert\x12\x04tent\x18" + _varint(TS)
    nested = frame(number, b"\x04\x00\x00" + inner)  # two indexes, 0 and 0
    decoder = make_decoder(proto_config(server), ActionsConfig())
    assert decode(decoder, nested).events.users == [b"bert"]
    first = decode(decoder, frame(number, b"\x00"))  # Nothing, which has no fields
    assert rejections(first) == [(0, "missing_field")]


def _varint(number: int) -> bytes:
    parts = []
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def test_protobuf_that_is_none_is_a_dead_letter(server: RegistryServer) -> None:
    number = server.register("clicks-value", {"schema": PROTO, "schemaType": "PROTOBUF"})
    broken = server.register("broken", {"schema": "message {", "schemaType": "PROTOBUF"})
    leaving = {"name": "../../x.proto", "subject": "clicks-value", "version": 1}
    outside = server.register("outside", {"schema": PROTO + " ", "schemaType": "PROTOBUF", "references": [leaving]})
    found = decode(
        make_decoder(proto_config(server), ActionsConfig()),
        frame(number, b"\x02\x63" + click_bytes()),  # no such message
        frame(number, b"\x02\x02" + click_bytes()[:-3]),
        frame(number, b"\xff" * 9),
        frame(broken, b"\x00"),
        frame(outside, b"\x00"),
    )
    reasons = ["not_protobuf", "not_protobuf", "not_protobuf", "unknown_schema", "unknown_schema"]
    assert rejections(found) == list(enumerate(reasons))
    rules = [one.rule for one in found.rejections]
    assert "protoc compiles" in rules[3] and "no relative path" in rules[4]


# -- JSON Schema -----------------------------------------------------------------------------------------------------


def test_json_behind_a_frame_needs_no_registry() -> None:
    decoder = make_decoder(EventsConfig(format="json_schema", user="who", item="what", ts="at"), ActionsConfig())
    found = decode(decoder, frame(9, b'{"who":"anna","what":7,"at":%d}' % TS), frame(9, b"{"))
    assert found.events.users == [b"anna"] and rejections(found) == [(1, "not_json")]


# -- the registry ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [401, 403, 429, 500, 503, "page", "slow", "down"])
def test_a_registry_that_does_not_answer_loses_nothing(
    server: RegistryServer, monkeypatch: pytest.MonkeyPatch, trouble: int | str
) -> None:
    monkeypatch.setattr(registry, "_TIMEOUT_S", 0.2)
    number = server.register("clicks-value", {"schema": json.dumps(CLICK)})
    value = frame(number, by_apache(WRITTEN, click()))
    decoder = make_decoder(config(server), ActionsConfig())
    if trouble == "down":
        server.close()
    server.trouble = None if trouble == "down" else trouble
    with pytest.raises(SchemasUnavailable, match=server.url) as failed:
        decoder.prepare([value])
    assert failed.value.retriable and "\n" not in str(failed.value)
    if trouble != "down":
        server.trouble = None
        assert len(decode(decoder, value).events) == 1


def test_user_and_password_are_sent_and_a_wrong_one_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_registry("anna:secret") as server:
        number = server.register("clicks-value", {"schema": json.dumps(CLICK)})
        monkeypatch.setenv("REGISTRY_PASSWORD", "secret")
        good = config(server, registry_username="anna", registry_password_env="REGISTRY_PASSWORD")
        assert SchemaRegistry(good).schema(number) is not None
        kept = tmp_path / "password"
        kept.write_text("wrong\n")
        wrong = config(server, registry_username="anna", registry_password_file=str(kept))
        with pytest.raises(SchemasUnavailable, match="401"):
            SchemaRegistry(wrong).schema(number)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"registry_url": "registry:8081"}, "must begin with http:// or https://"),
        ({"registry_url": "http://registry:port"}, "registry_url = 'http://registry:port'"),
        ({"registry_cafile": "/nowhere.pem"}, "cannot be read as PEM"),
        ({"registry_username": "anna", "registry_password_env": "NOT_SET"}, "no such environment variable"),
        ({"registry_username": "anna", "registry_password_file": "/nowhere"}, "registry_password_file = '/nowhere'"),
    ],
)
def test_settings_of_the_registry_that_are_wrong_are_refused(changes: dict[str, str], words: str) -> None:
    wanted: dict[str, Any] = {"format": "avro", "registry_url": "http://localhost:1", **changes}
    with pytest.raises(ConfigError, match=words):
        make_decoder(EventsConfig(**wanted), ActionsConfig())


@pytest.mark.parametrize("name", ["avro", "protobuf"])
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, name: Any
) -> None:
    monkeypatch.setattr(framed, "_is_installed", lambda module: False)
    with pytest.raises(ConfigError, match=rf'needs .*: pip install "intentstream\[{name}\]"'):
        make_decoder(EventsConfig(format=name, registry_url="http://localhost:1"), ActionsConfig())


def test_a_schema_that_is_registered_later_is_found(server: RegistryServer) -> None:
    decoder, value = make_decoder(config(server), ActionsConfig()), frame(1, by_apache(WRITTEN, click()))
    assert rejections(decode(decoder, value)) == [(0, "unknown_schema")]
    assert server.register("clicks-value", {"schema": json.dumps(CLICK)}) == 1
    assert decode(decoder, value).events.users == [b"anna"]


def test_a_schema_that_can_never_be_read_does_not_hold_the_stream_up(server: RegistryServer) -> None:
    gone = [{"name": "shop.Gone", "subject": "gone", "version": 1}]
    many = [{"name": f"n{n}", "subject": "clicks-value", "version": 1} for n in range(201)]
    good = server.register("clicks-value", {"schema": json.dumps(CLICK)})
    broken = server.register("broken", {"schema": "{}", "references": gone})
    crowded = server.register("crowded", {"schema": "{}", "references": many})
    large = server.register("large", {"schema": " " * (5 << 20)})
    written = by_apache(WRITTEN, click())
    found = decode(
        make_decoder(config(server), ActionsConfig()), *[frame(one, written) for one in (broken, crowded, large, good)]
    )
    assert len(found.events) == 1 and rejections(found) == [(n, "unknown_schema") for n in range(3)]
    rules = [one.rule for one in found.rejections]
    assert "does not have" in rules[0] and "200 references" in rules[1] and "4194304 bytes" in rules[2]


def test_a_schema_that_keeps_protoc_busy_or_whose_files_collide_is_refused(
    server: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.register("a", {"schema": PROTO, "schemaType": "PROTOBUF"})
    collide = [{"name": name, "subject": "a", "version": 1} for name in ("a.proto", "a.proto/b.proto")]
    number = server.register("collide", {"schema": PROTO + " ", "schemaType": "PROTOBUF", "references": collide})
    long = [{"name": "x" * 300, "subject": "a", "version": 1}]
    named = server.register("named", {"schema": PROTO + "   ", "schemaType": "PROTOBUF", "references": long})
    slow = server.register("slow", {"schema": PROTO + "  ", "schemaType": "PROTOBUF"})
    monkeypatch.setattr(protobuf, "_PROTOC_S", 0.0)
    decoder = make_decoder(proto_config(server), ActionsConfig())
    found = decode(decoder, frame(number, b"\x00"), frame(slow, b"\x00"), frame(named, b"\x00"))
    rules = [one.rule for one in found.rejections]
    assert len(rules) == 3 and "are no files" in rules[0] and "keeps protoc busy" in rules[1]
    assert "a name of 300 characters" in rules[2]


def test_a_circle_of_references_ends(server: RegistryServer) -> None:
    to_b, to_a = ({"name": name, "subject": name, "version": 1} for name in ("b", "a"))
    number = server.register("a", {"schema": "{}", "references": [to_b]})
    server.register("b", {"schema": "[]", "references": [to_a]})
    found = SchemaRegistry(config(server)).schema(number)
    assert found is not None and set(found.references) == {"a", "b"}
