"""Records of other shapes become events; the fast pass and the slow one agree on everything."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from stream.errors import ConfigError
from stream.mapping.config import EventsConfig
from stream.mapping.decoder import MappedDecoder, make_decoder
from stream.mapping.slow import MAX_EVENTS
from stream.schema.decoder import Decoded, Decoder
from stream.schema.events import ActionsConfig

TS = 1_571_000_000_000
DEBEZIUM = {"before": None, "after": {"user": "u1", "item": "i1", "ts": TS}, "op": "c"}
SEGMENT = {"userId": "u1", "type": "track", "event": "Product Viewed", "timestamp": "2019-10-13T20:53:20.000Z"}


def decode(records: list[Any], keys: list[bytes | None] | None = None, **events: Any) -> Decoded:
    values = [one if isinstance(one, bytes | None) else json.dumps(one).encode() for one in records]
    decoder = make_decoder(EventsConfig(**events), ActionsConfig())
    return decoder.decode(values, keys or [None] * len(values))


def rows(found: Decoded) -> list[tuple[Any, ...]]:
    events = found.events
    return list(zip(found.index.tolist(), events.users, events.items, events.ts.tolist(), events.actions, strict=True))


def test_our_own_json_keeps_its_own_decoder() -> None:
    assert type(make_decoder(EventsConfig(topic="clicks"), ActionsConfig())) is Decoder


def test_paths_times_and_actions() -> None:
    record = {"who": {"id": 7}, "what": [{"sku": "lamp"}], "at": "2019-10-13 20:53:20", "did": "fav"}
    found = decode(
        [record],
        user="who.id",
        item="what[].sku",
        ts="at",
        action="did",
        actions={"fav": "cart"},
        time_zone="Europe/Berlin",
    )
    assert rows(found) == [(0, b"7", "lamp", TS - 2 * 3_600_000, 2)]


@pytest.mark.parametrize("ts", [TS, TS // 1000, TS * 1000, TS * 10**6, TS / 1000, str(TS), "2019-10-13T20:53:20Z"])
def test_a_time_says_itself_what_it_is(ts: Any) -> None:
    assert decode([{"u": 1, "i": 2, "t": ts}] * 2, user="u", item="i", ts="t").events.ts.tolist() == [TS, TS]


def test_items_of_one_record_are_consecutive_events_of_it() -> None:
    order = SEGMENT | {"event": "Order Completed", "properties": {"products": [{"product_id": 1}, {"sku": "b"}]}}
    view = SEGMENT | {"properties": {"product_id": "c", "price": 2.5}}
    found = decode([order, view, order], preset="segment")
    assert [row[:3] for row in rows(found)] == [
        (0, b"u1", "1"),
        (0, b"u1", "b"),
        (1, b"u1", "c"),
        (2, b"u1", "1"),
        (2, b"u1", "b"),
    ]
    assert found.events.actions.tolist() == [3, 3, 0, 3, 3] and not found.rejections


def test_a_list_of_items_by_the_key_items() -> None:
    record = {"user": 1, "at": TS, "lines": [{"sku": "a", "n": 1}, {"sku": "b", "at": TS + 5}]}
    found = decode([record], item="sku", ts="at", items="lines")
    assert [row[1:4] for row in rows(found)] == [(b"1", "a", TS), (b"1", "b", TS + 5)]


def test_lists_in_lists() -> None:
    record = {"u": 1, "orders": [{"at": TS, "l": [{"i": "a"}, {"i": "b"}]}, {"at": TS + 1, "l": [{"i": "c"}]}]}
    found = decode([record], user="u", item="orders[].l[].i", ts="orders[].at")
    assert [row[2:4] for row in rows(found)] == [("a", TS), ("b", TS), ("c", TS + 1)]


def test_a_bad_item_is_a_dead_letter_beside_the_good_ones() -> None:
    record = {"u": 1, "t": TS, "l": [{"i": "a"}, {"i": [1]}, {"i": "c"}, {}]}
    found = decode([record, record], user="u", item="l[].i", ts="t")
    assert [row[2] for row in rows(found)] == ["a", "c", "a", "c"]
    assert [(one.index, one.reason, one.field) for one in found.rejections] == [
        (0, "wrong_type", "item"),
        (1, "wrong_type", "item"),
    ]
    assert found.rejections[0].rule == "text or an integer (read from l[].i)"


@pytest.mark.parametrize(
    ("record", "reason", "field", "rule"),
    [
        ({"i": 1, "t": TS}, "missing_field", "user", "user is required (read from u)"),
        ({"u": 1.5, "i": 1, "t": TS}, "wrong_type", "user", "text or an integer (read from u)"),
        ({"u": "nan", "i": 1, "t": TS}, "missing_field", "user", "user is required (read from u)"),
        ({"u": 1, "i": 1, "t": "soon"}, "bad_ts", "ts", "a time: epoch s, ms, us or ns by the size, or ISO 8601"),
        ({"u": 1, "i": 1, "t": TS, "a": "fly"}, "unknown_action", "action", "one of view"),
        ([], "missing_field", "user", "user is required (read from u)"),
        (b"\xff", "not_utf8", "record", "UTF-8"),
        (b"7", "not_an_object", "record", "a JSON object"),
        (None, "empty", "record", "a JSON object"),
        (b" " * 2_000_000, "too_large", "record", "at most 1048576 bytes"),
    ],
)
def test_a_bad_record_names_field_value_and_rule(record: Any, reason: str, field: str, rule: str) -> None:
    found = decode([record], user="u", item="i", ts="t", action="a")
    assert [(one.reason, one.field) for one in found.rejections] == [(reason, field)]
    assert found.rejections[0].rule.startswith(rule)


def test_too_many_items_in_a_record_are_refused() -> None:
    found = decode([{"u": 1, "t": TS, "l": list(range(MAX_EVENTS + 1))}], user="u", item="l[]", ts="t")
    assert [one.reason for one in found.rejections] == ["too_large"] and not len(found.events)


def test_records_that_are_no_events_are_skipped_and_counted() -> None:
    records: list[Any] = [
        DEBEZIUM,
        DEBEZIUM | {"op": "d", "before": DEBEZIUM["after"], "after": None},
        None,  # the tombstone behind it
        {"payload": DEBEZIUM, "schema": {}},
    ]
    found = decode(records, preset="debezium")
    assert [row[0] for row in rows(found)] == [0, 3] and found.skipped == 2 and not found.rejections
    records = [SEGMENT, SEGMENT | {"type": "page"}, SEGMENT | {"event": "Signed Up"}]
    found = decode(records, preset="segment")
    assert found.skipped == 2 and [one.reason for one in found.rejections] == ["missing_field"]


def test_an_action_mapped_to_nothing_is_skipped() -> None:
    record = SEGMENT | {"properties": {"sku": 1}}
    found = decode([record, record | {"event": "Looked"}], preset="segment", actions={"Looked": ""})
    assert found.skipped == 1 and len(found.events) == 1


def test_the_key_is_checked_or_ignored() -> None:
    keys: list[bytes | None] = [b"u", b"other"]
    records = [{"user": "u", "item": 1, "ts": TS}] * 2
    assert [one.reason for one in decode(records, keys, user="user").rejections] == ["key_mismatch"]
    assert len(decode(records, keys, key="ignore").events) == 2


def test_a_request_to_erase() -> None:
    records = [{"u": 1, "i": 2, "t": TS}, {"u": 1, "a": "forget me"}, {"u": 1, "i": 3, "t": TS}]
    found = decode(records, user="u", item="i", ts="t", action="a", actions={"forget me": "erase"})
    assert [(one.user, one.index, one.events_before) for one in found.erasures] == [(b"1", 1, 1)]
    assert len(found.events) == 2


def test_our_own_request_to_erase_is_understood_in_every_shape() -> None:
    own = b'{"user":"u1","action":"erase","ts":%d}' % TS
    found = decode([SEGMENT | {"properties": {"sku": 1}}, own, None], preset="segment")
    assert [(one.user, one.index, one.events_before) for one in found.erasures] == [(b"u1", 1, 1)]
    assert len(found.events) == 1 and found.skipped == 1


def test_values_that_are_no_numbers_are_dropped() -> None:
    records = [{"u": 1, "i": 2, "t": TS, "v": value} for value in (4.5, "4.5", "4,5", None, [1])]
    found = decode(records, user="u", item="i", ts="t", value="v")
    assert len(found.events) == 5 and found.values_dropped == 2


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_bare_nan_costs_its_value_and_not_the_event(number: str) -> None:
    shape: dict[str, Any] = {"user": "u", "item": "i", "ts": "t", "action": "a", "value": "v"}
    values = [f'{{"u": 1, "i": "x", "t": {TS}, "more": [{number}], "v": {number}}}'.encode()]
    found = decode(values, **shape)
    assert rows(found) == [(0, b"1", "x", TS, 0)] and found.values_dropped == 1 and not found.rejections
    for field in ("u", "i", "a"):
        record = {"u": 1, "i": "x", "t": TS} | {field: float(number.replace("inity", ""))}
        bad = decode([record], **shape).rejections[0]
        assert (bad.reason, bad.field[0], bad.value) == ("wrong_type", field, number)


def test_a_byte_order_mark_in_front_of_a_record_is_passed_over() -> None:
    found = decode([b"\xef\xbb\xbf" + json.dumps({"u": 1, "i": "x", "t": TS}).encode()], user="u", item="i", ts="t")
    assert rows(found) == [(0, b"1", "x", TS, 0)]


@pytest.mark.parametrize("bad", ["a\0", "\u200b", "\x01"])
def test_an_id_without_a_visible_character_or_with_a_nul_is_refused(bad: str) -> None:
    found = decode([{"u": bad, "i": 1, "t": TS}, {"u": 1, "i": bad, "t": TS}], user="u", item="i", ts="t")
    assert [(one.reason, one.field) for one in found.rejections] == [("bad_id", "user"), ("bad_id", "item")]


SHAPES: list[dict[str, Any]] = [
    {"user": "a.u|u", "item": "l[].i|a.i|i", "ts": "l[].t|a.t|t", "action": "a.x|x", "value": "a.v|v"},
    {"user": "u", "item": "i", "ts": "t", "action": "x", "value": "v", "where": {"k": "yes|1|true"}},
    {"user": "a.u", "item": "a.i", "ts": "a.t", "action": "=cart", "time_format": "s"},
    {"user": "u", "item": "p[k=i].v", "ts": "t", "key": "ignore"},
]


def odd(generator: random.Random) -> Any:
    """A record that fits the shapes somewhat."""
    ids = [
        "u1",
        "7",
        7,
        7.0,
        7.5,
        "nan",
        "",
        " x ",
        "\0",
        "\u200b",
        None,
        [1],
        {"a": 1},
        True,
        "1e+05",
        "a-b",
        "x" * 300,
        10**30,
    ]
    times = [TS, TS // 1000, TS / 1000, str(TS), "2019-10-13T20:53:20Z", "2019-10-13", "x", None, -1, 10**40, 20191013]
    actions = ["view", "Cart", "erase", "fly", None, 3, ["view"], "add to cart", "com.shop.viewed"]
    choices: dict[str, list[Any]] = {"u": ids, "i": ids, "t": times, "x": actions, "v": [1, 1.5, "1", "x", None, []]}

    def fields() -> dict[str, Any]:
        usual = generator.random() < 0.5
        names = [name for name in choices if usual or generator.random() < 0.8]
        return {
            name: choices[name][0] if generator.random() < 0.7 else generator.choice(choices[name]) for name in names
        }

    record = fields()
    if generator.random() < 0.6:
        record["a"] = generator.choice([fields(), fields(), fields(), None, "x", json.dumps(fields()), []])
    if generator.random() < 0.4:
        record["l"] = generator.choice([[fields() for _ in range(generator.randrange(4))], None, {}, "x", [None], [1]])
    if generator.random() < 0.5:
        record["p"] = [{"k": generator.choice(["i", "j"]), "v": generator.choice(ids)} for _ in range(2)]
    record["k"] = generator.choice(["yes", 1, True, "no", None, [1]])
    return generator.choice([record] * 20 + [None, b"", b"{", b"[]", b'"x"', [record]])


@pytest.mark.parametrize("shape", SHAPES)
def test_the_fast_pass_and_the_slow_one_agree(shape: dict[str, Any]) -> None:
    generator = random.Random(1)
    records = [odd(generator) for _ in range(3000)]
    values = [one if isinstance(one, bytes | None) else json.dumps(one).encode() for one in records]
    keys = [generator.choice([None, b"7", b"u1"]) for _ in values]
    arrived = [generator.choice([0, TS - 10 * 86_400_000, TS]) for _ in values]
    for other in ("dead_letter", "default"):
        fast, slow = (make_decoder(EventsConfig(**shape), ActionsConfig(other=other)) for _ in range(2))
        assert isinstance(fast, MappedDecoder) and isinstance(slow, MappedDecoder) and fast._typed is not None
        slow._typed = None
        for size in (1, 7, 3000):
            for start in range(0, 300 if size == 1 else 3000, size):
                part = slice(start, start + size)
                one, two = (d.decode(values[part], keys[part], arrived[part]) for d in (fast, slow))
                assert rows(one) == rows(two)
                assert sorted(one.rejections, key=lambda r: r.index) == two.rejections
                assert (one.erasures, one.skipped, one.values_dropped) == (
                    two.erasures,
                    two.skipped,
                    two.values_dropped,
                )


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ({"preset": "segmnt"}, "preset 'segmnt': there is no such preset; the nearest is segment"),
        ({"user": "a", "item": "a"}, "events.item = 'a': events.user has this path too"),
        ({"user": "a..b"}, "'a..b' is no path"),
        (
            {"actions": {"pv": "viw"}},
            'events.actions: "pv" = "viw": no action of `actions.weights`; the nearest is view',
        ),
        ({"time_zone": "Berlin"}, "events.time_zone 'Berlin': there is no such zone"),
    ],
)
def test_a_bad_mapping_is_refused_in_one_line(events: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_decoder(EventsConfig(**events), ActionsConfig())
    assert words in str(caught.value) and "\n" not in str(caught.value)
