from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream.schema import decoder
from stream.schema.bare_numbers import wrap_bare_numbers
from stream.schema.decoder import Decoder, decode_events
from stream.schema.events import (
    MAX_RECORD_BYTES,
    MAX_TS,
    MIN_TS,
    REASONS,
    ActionsConfig,
    BehaviorEvent,
    encode_event,
    is_visible,
)
from stream.schema.topics import DAY_MS
from stream.schema.user_keys import user_keys

TS = 1_506_826_800_000
GOOD: dict[str, Any] = {"user": "anna", "item": "lamp", "ts": TS}

identifiers = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64).filter(is_visible)
numbers = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
objects = st.fixed_dictionaries(
    {},
    optional={
        "user": identifiers | st.integers() | anything,
        "item": identifiers | st.integers() | anything,
        "ts": st.integers(MIN_TS, MAX_TS - 1) | anything,
        "action": st.sampled_from(["view", "dislike", "erase", None]) | anything,
        "value": numbers | anything,
        "more": anything,
    },
)
records = st.one_of(
    st.none(),
    st.binary(max_size=40),
    objects.map(lambda event: json.dumps(event).encode("utf-8", "surrogatepass")),
    st.just(json.dumps(GOOD).encode()),
    st.tuples(st.just(json.dumps(GOOD).encode()), st.integers(0, 50), st.integers(0, 255)).map(
        lambda checkpoint: checkpoint[0][: checkpoint[1]] + bytes([checkpoint[2]]) + checkpoint[0][checkpoint[1] + 1 :]
    ),
)


def one(event: object, key: bytes | None = None) -> tuple[str, str, str]:
    value = event if isinstance(event, bytes) else json.dumps(event).encode()
    decoded = decode_events([value], [key])
    assert len(decoded.rejections) == 1 and not decoded.events.users
    bad = decoded.rejections[0]
    assert bad.rule
    return bad.reason, bad.field, bad.value


@given(st.lists(st.tuples(records, st.none() | st.just(b"anna") | st.binary(max_size=4)), max_size=8))
@example([(b'{"user":' + b"9" * 5000 + b',"item":"a","ts":1506826800000}', None)])
@example([(b'{"user":"a","item":' + b"-" + b"9" * 300 + b',"ts":1506826800000}', None)])
@example([(b'{"more":' + b"[" * 20_000, None)])
@example([(b'{"user":"\\ud800","value":1e999}', None), (b'{"\\ud800":1e999}', None), (b'{"":-1e999}', None)])
@example([(b'{"user":"\\ud800","item":"a","ts":1506826800000}', None)])
def test_any_bytes_become_an_event_an_erasure_or_a_dead_letter(pairs: list[tuple[bytes | None, bytes | None]]) -> None:
    values, keys = [value for value, _ in pairs], [key for _, key in pairs]
    decoded = decode_events(values, keys)
    places = [
        *decoded.index.tolist(),
        *(bad.index for bad in decoded.rejections),
        *(gone.index for gone in decoded.erasures),
    ]
    assert sorted(places) == list(range(len(pairs)))
    assert decoded.index.tolist() == sorted(decoded.index.tolist())
    for bad in decoded.rejections:
        assert bad.reason in REASONS and bad.field and bad.rule
        assert len(bad.value) <= 80
        (bad.value + bad.rule + bad.field).encode()
    # a record is judged by itself: alone it is judged as in company, and by itself as in the good case
    alone = [decode_events([value], [key]) for value, key in pairs]
    assert [user for single in alone for user in single.events.users] == decoded.events.users
    assert [item for single in alone for item in single.events.items] == decoded.events.items
    assert [ts for single in alone for ts in single.events.ts.tolist()] == decoded.events.ts.tolist()
    assert [(bad.reason, bad.field, bad.value) for single in alone for bad in single.rejections] == [
        (bad.reason, bad.field, bad.value) for bad in decoded.rejections
    ]
    assert sum(single.unknown_fields for single in alone) == decoded.unknown_fields


@given(
    st.lists(
        st.builds(
            BehaviorEvent,
            user=identifiers | st.integers(-(10**30), 10**30),
            item=identifiers | st.integers(0, 10**18),
            ts=st.integers(MIN_TS, MAX_TS - 1),
            action=st.sampled_from([None, "view", "cart", "dislike"]),
            value=numbers,
        ),
        max_size=10,
    )
)
@settings(max_examples=60)
def test_what_is_encoded_is_decoded(events: list[BehaviorEvent]) -> None:
    actions = ActionsConfig()
    decoded = decode_events([encode_event(event) for event in events], [str(event.user).encode() for event in events])
    assert not decoded.rejections
    assert decoded.events.users == [str(event.user).encode() for event in events]
    assert decoded.events.items == [str(event.item) for event in events]
    assert decoded.events.ts.tolist() == [event.ts for event in events]
    names = [actions.names()[code] for code in decoded.events.actions.tolist()]
    assert names == [event.action or "view" for event in events]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (b"", ("empty", "record")),
        (b" " * (MAX_RECORD_BYTES + 1), ("too_large", "record")),
        (json.dumps({**GOOD, "more": "x" * MAX_RECORD_BYTES}).encode(), ("too_large", "record")),
        (b'{"user":"\xff","item":"a","ts":1506826800000}', ("not_utf8", "record")),
        (b'{"user":"a"', ("not_json", "record")),
        (b"[1]", ("not_an_object", "record")),
        ({"item": "a", "ts": TS}, ("missing_field", "user")),
        ({"user": "a", "ts": TS}, ("missing_field", "item")),
        ({"user": "a", "item": "b"}, ("missing_field", "ts")),
        ({**GOOD, "user": None}, ("wrong_type", "user")),
        ({**GOOD, "user": True}, ("wrong_type", "user")),
        ({**GOOD, "item": 1.5}, ("wrong_type", "item")),
        ({**GOOD, "user": ""}, ("bad_id", "user")),
        ({**GOOD, "item": "ä" * 129}, ("bad_id", "item")),
        ({**GOOD, "user": " "}, ("bad_id", "user", "' '")),
        ({**GOOD, "item": "\u2003\u200b"}, ("bad_id", "item", r"'\u2003\u200b'")),
        ({**GOOD, "item": "\x1f\n"}, ("bad_id", "item", r"'\x1f\n'")),
        ({**GOOD, "user": "anna\0"}, ("bad_id", "user", r"'anna\x00'")),
        (b"\xef\xbb\xbf", ("empty", "record")),
        ({**GOOD, "ts": str(TS)}, ("wrong_type", "ts")),
        ({**GOOD, "ts": float(TS)}, ("wrong_type", "ts")),
        ({**GOOD, "ts": TS // 1000}, ("bad_ts", "ts")),
        ({**GOOD, "ts": MAX_TS}, ("bad_ts", "ts")),
        ({**GOOD, "ts": -1}, ("bad_ts", "ts")),
        ({**GOOD, "ts": 10**30}, ("bad_ts", "ts")),
        (b'{"user":"a","item":"b","ts":1e999}', ("wrong_type", "ts", "1e999")),
        (b'{"user":"a","item":"b","ts":1506826800000,"value":1e999', ("not_json", "record")),
        (b'{"user":"a","item":"b","ts":1506826800000,"value":NaNa}', ("not_json", "record")),
        (b'{"user":"a","item":"b","ts":NaN}', ("wrong_type", "ts", "NaN")),
        (b'{"user":"a","item":"b","ts":-Infinity}', ("wrong_type", "ts", "-Infinity")),
        (b'{"user":NaN,"item":"b","ts":1506826800000}', ("wrong_type", "user", "NaN")),
        (b'{"user":"a","item":"b","ts":1506826800000,"action":NaN}', ("wrong_type", "action", "NaN")),
        ({**GOOD, "action": 3}, ("wrong_type", "action")),
        ({**GOOD, "action": "teleport"}, ("unknown_action", "action")),
    ],
)
def test_every_reason_names_its_field(event: object, expected: tuple[str, ...]) -> None:
    assert one(event)[: len(expected)] == expected


def test_a_byte_order_mark_in_front_of_a_record_is_passed_over() -> None:
    decoded = decode_events([b"\xef\xbb\xbf" + json.dumps(GOOD).encode()])
    assert (decoded.events.users, decoded.events.items, decoded.rejections) == ([b"anna"], ["lamp"], [])


def test_ids_with_newlines_or_blanks_inside_stay_as_they_are() -> None:
    decoded = decode_events([json.dumps({**GOOD, "user": " a\nb", "item": "c "}).encode()])
    assert (decoded.events.users, decoded.events.items) == ([b" a\nb"], ["c "])


@pytest.mark.parametrize(
    "value", ["N/A", "nan", "4,5", "3", "", True, [], {}, 10**400, b"1e999", b"-1e999", b"NaN", b"-Infinity"]
)
def test_a_value_that_is_no_number_is_dropped_and_counted_and_the_event_stays(value: object) -> None:
    token = value if isinstance(value, bytes) else json.dumps(value).encode()
    record = json.dumps(GOOD).encode()[:-1] + b',"value":' + token + b"}"
    decoded = decode_events([record, json.dumps({**GOOD, "value": 4.5}).encode(), json.dumps(GOOD).encode()])
    assert decoded.rejections == []
    assert decoded.index.tolist() == [0, 1, 2]
    assert (decoded.values_dropped, decoded.unknown_fields) == (1, 0)


def test_a_bare_number_is_looked_for_outside_of_text_only() -> None:
    names = ["NaN", 'a"NaN', "\\", '\\"NaN', "Infinity", "日NaN"]
    records = [
        json.dumps({**GOOD, "item": name}, ensure_ascii=False).encode()[:-1] + b',"value":NaN,"more":[NaN, Infinity]}'
        for name in names
    ]
    decoded = decode_events(records)
    assert decoded.events.items == names
    assert (decoded.values_dropped, decoded.unknown_fields) == (len(names), len(names))
    hostile = b'{"user":"' + b'\\"' * 30_000 + b" NaN"
    assert wrap_bare_numbers(hostile) == hostile  # a text without end, and each byte is looked at once


def test_a_number_beyond_the_floats_in_an_unknown_field_costs_nothing() -> None:
    decoded = decode_events([b'{"user":"a","item":"b","ts":1506826800000,"more":1e999}'])
    assert (len(decoded.events), decoded.unknown_fields) == (1, 1)


@pytest.mark.parametrize(("ahead_ms", "accepted"), [(0, True), (DAY_MS, True), (DAY_MS + 1, False)])
def test_an_event_further_ahead_of_its_arrival_than_a_day_is_refused(ahead_ms: int, accepted: bool) -> None:
    record = json.dumps({**GOOD, "ts": TS + ahead_ms}).encode()
    decoded = Decoder(ActionsConfig()).decode([record], [None], [TS])
    assert len(decoded.events) == accepted
    assert [(bad.reason, bad.field, bad.value) for bad in decoded.rejections] == (
        [] if accepted else [("bad_ts", "ts", str(TS + ahead_ms))]
    )
    for unknown in ([0], [-1], None):
        assert len(Decoder(ActionsConfig()).decode([record], [None], unknown).events) == 1
    wide = ActionsConfig(max_ahead_ms=2 * DAY_MS)
    assert len(Decoder(wide).decode([record], [None], [TS]).events) == 1


HOSTILE = {
    "digits of an id": b'{"user":' + b"9" * 4299 + b',"item":"a","ts":1506826800000}',
    "digits of a time": b'{"user":"a","item":"b","ts":' + b"9" * 4299 + b"}",
    "digits nobody needs": b'{"user":"a","item":"b","ts":1506826800000,"more":['
    + b"9" * 4299
    + b","
    + b"9" * 4299
    + b"]}",
    "broken and nested": b'{"user":"a","item":"b","ts":1,"more":' + b"[1e5," * 800,
    "deep": b'{"user":"a","item":"b","ts":1,"more":' + b'{"a":' * 800,
    "out of range": b'{"user":"a","item":"b","ts":1,"more":[' + b"1e999," * 700,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_record_is_judged_in_time_linear_in_its_bytes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: the bytes given to the parsers, and the digits that they convert."""
    parsed = converted = 0

    def counting(parse: Callable[[bytes], Any], converts: bool) -> Callable[[bytes], Any]:
        def counted(data: bytes) -> Any:
            nonlocal parsed, converted
            parsed += len(data)
            if converts:
                converted = max(converted, *map(len, re.findall(rb"[0-9]+", data) or [b""]), 0)
            return parse(data)

        return counted

    for name in ("_parse", "_parse_fields", "_parse_text"):
        monkeypatch.setattr(decoder, name, counting(getattr(decoder, name), converts=False))
    judge = Decoder(ActionsConfig())
    monkeypatch.setattr(judge, "_strict", counting(judge._strict, converts=True))
    good = json.dumps(GOOD).encode()
    values = [good, HOSTILE[kind]] * 100
    decoded = judge.decode(values, [None] * len(values))
    assert parsed <= 3 * sum(map(len, values))
    assert converted <= 700
    assert len(decoded.events) + len(decoded.rejections) == len(values)


def test_the_key_must_be_the_user() -> None:
    assert one(GOOD, b"bert")[:2] == ("key_mismatch", "key")
    assert decode_events([json.dumps({**GOOD, "user": 7}).encode()], [b"7"]).events.users == [b"7"]
    assert decode_events([json.dumps(GOOD).encode()], [None]).events.users == [b"anna"]


@pytest.mark.parametrize("size", [256, 257])
def test_an_id_may_have_256_bytes(size: int) -> None:
    decoded = decode_events([json.dumps({**GOOD, "item": "x" * size}).encode()])
    assert len(decoded.events.items) == (size == 256)


def test_limits_of_time_are_those_of_1990_and_2100() -> None:
    values = [json.dumps({**GOOD, "ts": ts}).encode() for ts in (MIN_TS - 1, MIN_TS, MAX_TS - 1, MAX_TS)]
    assert decode_events(values).index.tolist() == [1, 2]


def test_unknown_fields_are_counted_not_refused() -> None:
    value = json.dumps({**GOOD, "session": "x", "page": {"user": 1}}).encode()
    decoded = decode_events([value, json.dumps(GOOD).encode(), value])
    assert decoded.unknown_fields == 4
    assert len(decoded.events.users) == 3


def test_an_erasure_needs_a_user_only() -> None:
    decoded = decode_events([b'{"user":"anna","action":"erase"}', b'{"action":"erase"}', json.dumps(GOOD).encode()])
    assert [(gone.index, gone.user) for gone in decoded.erasures] == [(0, b"anna")]
    assert decoded.rejections[0].reason == "missing_field"
    assert decoded.index.tolist() == [2]


def test_an_unknown_action_may_count_as_the_default() -> None:
    value = json.dumps({**GOOD, "action": "teleport"}).encode()
    assert Decoder(ActionsConfig(other="default")).decode([value], [None]).events.actions.tolist() == [0]


def test_columns_have_their_types_even_when_empty() -> None:
    decoded = decode_events([])
    assert [str(a.dtype) for a in (decoded.events.ts, decoded.events.actions, decoded.index)] == [
        "int64",
        "uint8",
        "int64",
    ]


@pytest.mark.parametrize("weights", [{}, {"erase": 1.0}, {"view": 0.0}, {"dislike": -1.0}, {"": 1.0}, {"view": 1e9}])
def test_weights_that_make_no_sense_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(msgspec.ValidationError, match="weights|object"):
        msgspec.convert({"weights": weights}, ActionsConfig)


def test_user_keys_are_stable_across_versions() -> None:
    keys = user_keys([b"anna", b"bert"])
    assert keys.dtype == np.uint64
    assert [f"{key:016x}" for key in keys.tolist()] == KEYS
    assert len(user_keys([])) == 0


KEYS = ["8c4a844bcc7444d0", "12cdb58729be9ede"]
