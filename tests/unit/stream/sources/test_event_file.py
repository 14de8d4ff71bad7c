from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import time, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.errors import SourceError
from stream.mapping.time_forms import find_times
from stream.mapping.times import NumberTimes
from stream.schema.decoder import decode_events
from stream.sources.files.event_file import EventChunk, EventFile, read_events
from stream.sources.files.quotes import split_quoted

TS = 1_506_826_800
ROWS = [(f"u{i % 7}", f"lamp-{i % 11}", (TS + i) * 1000) for i in range(25)]

Write = Callable[[str, bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def made(name: str, data: bytes) -> Path:
        file = tmp_path / name
        file.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return file

    return made


def csv_bytes(rows: list[tuple[str, str, int]] = ROWS, header: str = "user,item,ts", separator: str = ",") -> bytes:
    lines = [header.replace(",", separator), *(separator.join(map(str, row)) for row in rows)]
    return ("\n".join(lines) + "\n").encode()


def events(file: EventFile) -> list[tuple[str, str, int]]:
    chunks = list(file)
    return [row for c in chunks for row in zip(c.users, c.items, c.ts.tolist(), strict=True)]


def decoded(file: EventFile) -> list[tuple[str, str, int]]:
    """The events as the engine sees them, and a check that keys and positions fit."""
    found = []
    position = 0
    for chunk in file:
        assert chunk.start == position
        assert len(chunk) == len(chunk.values) == len(chunk.keys)
        position += len(chunk)
        columns = decode_events(chunk.values, chunk.keys)
        found += list(
            zip(
                [u.decode() for u in columns.events.users],
                columns.events.items,
                columns.events.ts.tolist(),
                strict=True,
            )
        )
    return found


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "no_suffix"])
@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
def test_csv(write: Write, name: str, separator: str) -> None:
    file = read_events(write(name, csv_bytes(separator=separator)), chunk_records=10)
    assert file.format.name == "csv" and file.format.unit == "milliseconds" and not file.format.notes
    assert events(file) == decoded(file) == ROWS
    assert file.fraction == 1.0
    assert [len(chunk) for chunk in file] == [10, 10, 5]


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("user_id,item_id,timestamp", ["user_id", "item_id", "timestamp"]),
        ("UserID,MovieID,Timestamp", ["UserID", "MovieID", "Timestamp"]),
        ("\ufeffuser,item,time", ["user", "item", "time"]),
    ],
)
def test_columns_are_found_by_name(write: Write, header: str, names: list[str]) -> None:
    file = read_events(write("a.csv", csv_bytes(header=header)))
    assert list(file.format.columns.values()) == names
    assert events(file) == ROWS


def test_windows_line_ends_quotes_blank_lines_and_no_last_line_end(write: Write) -> None:
    data = b'item,user,ts,title\r\n"a, b",u1,1506826800000,"x ""y"""\r\n\r\nc,u2,1506826801000,z'
    assert decoded(read_events(write("a.csv", data))) == [("u1", "a, b", TS * 1000), ("u2", "c", TS * 1000 + 1000)]


@pytest.mark.parametrize(
    ("factor", "unit"), [(1, "seconds"), (1000, "milliseconds"), (10**6, "microseconds"), (10**9, "nanoseconds")]
)
def test_the_unit_of_time_is_found_and_said(write: Write, factor: int, unit: str) -> None:
    rows = [(user, item, ts // 1000 * factor) for user, item, ts in ROWS]
    file = read_events(write("a.csv", csv_bytes(rows)))
    assert file.format.unit == unit and unit in str(file.format)
    assert events(file) == ROWS


def test_broken_lines_go_their_way_and_nothing_is_lost(write: Write) -> None:
    lines = csv_bytes().splitlines()
    lines[5] = b"only,two"
    lines[9] = b"u1,lamp,yesterday"
    lines[12] = b"u\xff,lamp,1506826800000"
    lines[14] = b'u1,"lamp,1506826800000'
    lines[20] = b"u1,lamp,99999999999999999999999"
    file = read_events(write("a.csv", b"\n".join(lines)), chunk_records=8)
    broken = {chunk.start + place: value for chunk in file for place, value in chunk.unparsed}
    assert [found for chunk in file for found in chunk.originals] == lines[1:]
    bad = decode_events(list(broken.values())).rejections
    assert [(one.reason, one.field, one.value) for one in bad] == [
        ("not_json", "record", "only,two"),
        ("wrong_type", "ts", "yesterday"),
        ("not_utf8", "record", "byte 1"),
        ("not_json", "record", 'u1,"lamp,1506826800000'),
        ("wrong_type", "ts", "99999999999999999999999"),
    ]
    kept = [row for place, row in enumerate(ROWS) if place not in broken]
    assert events(file) == decoded(file) == kept
    values = [value for chunk in file for value in chunk.values]
    assert [values[place] for place in broken] == list(broken.values())
    assert len(values) == len(ROWS)


def test_rows_with_bad_ids_are_left_to_the_engine(write: Write) -> None:
    chunk = next(iter(read_events(write("a.csv", b"user,item,ts\n,lamp,1506826800000\nu1,lamp,1506826800000\n"))))
    bad = decode_events(chunk.values, chunk.keys).rejections
    assert [(one.index, one.reason, one.field) for one in bad] == [(0, "bad_id", "user")]


@pytest.mark.parametrize("bad", [" ", "\x1f", "\u200b", "\x01", "a\0"])
def test_ids_that_a_topic_refuses_are_refused_in_files_too(write: Write, bad: str) -> None:
    rows = [{"user": bad, "item": "lamp", "ts": TS * 1000}, {"user": "u1", "item": "lamp", "ts": TS * 1000}]
    lines = "user,item,ts\n" + "".join([f"{row['user']},{row['item']},{row['ts']}\n" for row in rows])
    objects = "\n".join(json.dumps(row) for row in rows)
    for file in (write("a.csv", lines.encode()), write("a.jsonl", objects.encode())):
        chunk = next(iter(read_events(file)))
        found = decode_events(chunk.values, chunk.keys)
        assert [(one.index, one.reason, one.field) for one in found.rejections] == [(0, "bad_id", "user")]
        assert found.events.users == [b"u1"]


def test_actions_and_values_go_along(write: Write) -> None:
    data = b"user,item,ts,action,rating\nu1,a,1506826800,cart,\nu1,b,1506826801,,4.5\n"
    chunk = next(iter(read_events(write("a.csv", data))))
    assert [json.loads(value) for value in chunk.values] == [
        {"user": "u1", "item": "a", "ts": TS * 1000, "action": "cart"},
        {"user": "u1", "item": "b", "ts": TS * 1000 + 1000, "value": 4.5},
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_json_lines(write: Write, name: str) -> None:
    lines = [json.dumps({"user_id": user, "item_id": item, "timestamp": ts / 1000}) for user, item, ts in ROWS]
    lines[3] = '{"user_id": "u1", "item_id"'
    lines[4] = '{"user_id": null, "item_id": "a", "timestamp": 1}'
    lines[5] = '{"user_id": 7, "item_id": 8, "timestamp": "1506826800", "more": [1]}'
    lines[6] = '{"user_id": 7, "item_id": 8, "timestamp": 1e300}'
    file = read_events(write(name, "\n".join(lines).encode()), chunk_records=4)
    assert file.format.name == "jsonl" and file.format.unit == "seconds"
    expected = ROWS[:3] + [("7", "8", TS * 1000)] + ROWS[7:]
    assert events(file) == decoded(file) == expected
    assert [chunk.start + place for chunk in file for place, _ in chunk.unparsed] == [3, 4, 6]


@pytest.mark.parametrize("names", [("user", "item", "ts", "value"), ("user_id", "asin", "time", "rating")])
@pytest.mark.parametrize("unit", [1, 1000])
def test_a_json_line_is_judged_as_on_the_log_whatever_its_names(
    write: Write, names: tuple[str, str, str, str], unit: int
) -> None:
    user, item, ts, value = names
    event = {user: "u1", item: "a", ts: TS * unit}
    deep = json.dumps(event)[:-1] + ', "colour": ' + "[" * 5000 + "]" * 5000 + "}"
    # what the line holds, and what is said of it: reason, field and value, or its number of unknown fields
    cases: list[tuple[str, tuple[str, str, str] | int]] = [
        (json.dumps(event), 0),
        (json.dumps(event | {"colour": "red", "page": {"user": [1]}}), 2),
        (json.dumps(event | {value: 4.5, "action": "cart", "colour": 1}), 1),
        (json.dumps(event)[:-1] + f', "{value}" : 1e999}}', 0),
        (json.dumps(event)[:-1] + ', "colour": 1e999}', 1),
        (deep, ("not_json", "record", deep[:79] + "…")),
        (json.dumps(event)[:-1] + ', "colo\\u0075r": 1, "' + user[:-1] + f'\\u{ord(user[-1]):04x}": 1}}', 1),
        (json.dumps(event | {value: "good"}), 0),
        (json.dumps(event | {"action": "fly", "colour": 1}), ("unknown_action", "action", "fly")),
        (json.dumps(event | {user: ""}), ("bad_id", "user", "")),
        (json.dumps(event | {user: None}), ("wrong_type", "user", "null")),
        (json.dumps(event | {ts: "monday"}), ("wrong_type", "ts", "monday")),
        (json.dumps(event | {ts: True}), ("wrong_type", "ts", "true")),
        (json.dumps(event | {ts: 5 * unit}), ("bad_ts", "ts", "5000")),
        (json.dumps({user: "u1", ts: TS * unit}), ("missing_field", "item", "")),
        (
            json.dumps(event | {"colour": "x" * 65536}),
            ("too_large", "record", f"{len(json.dumps(event)) + 65550} bytes"),
        ),
        (json.dumps(event)[:-1], ("not_json", "record", json.dumps(event)[:-1])),
    ]
    lines = [line.encode() for line, _ in cases]
    file = read_events(write("a.jsonl", b"\n".join([lines[0]] * 30 + lines)), chunk_records=9)
    chunks = list(file)
    assert [found for chunk in chunks for found in chunk.originals] == [lines[0]] * 30 + lines
    values, keys = ([one for chunk in chunks for one in getattr(chunk, of)][30:] for of in ("values", "keys"))
    for place, (_, said) in enumerate(cases):
        judged = decode_events([values[place]], [keys[place]])
        if isinstance(said, int):
            assert (judged.unknown_fields, judged.events.ts.tolist()) == (said, [TS * 1000])
        else:
            (bad,) = judged.rejections
            assert (bad.reason, bad.field, bad.value) == said
    assert json.loads(values[2])["value"] == 4.5 and json.loads(values[2])["action"] == "cart"
    short = read_events(write("b.jsonl", b"\n".join(lines[:3])), limit=2)
    assert [len(chunk.originals) for chunk in short] == [2] and len(decoded(short)) == 2


def test_a_field_that_is_none_of_ours_does_not_stand_for_one_of_ours(write: Write) -> None:
    line = {"user_id": "u1", "item_id": "a", "timestamp": TS}
    file = read_events(
        write(
            "a.jsonl",
            b"\n".join(
                [json.dumps(line).encode()] * 1001
                + [
                    json.dumps(line | {"user": "u2", "_user": 1}).encode(),
                    json.dumps({"user": "u2"} | line | {"user_id": None}).encode(),
                ]
            ),
        )
    )
    (chunk,) = file
    judged = decode_events(chunk.values[-2:], chunk.keys[-2:])
    assert judged.events.users == [b"u1"] and [bad.field for bad in judged.rejections] == ["user"]


@pytest.mark.parametrize("kind", ["number", "datetime", "float"])
@pytest.mark.parametrize("gzipped", [False, True])
def test_parquet(tmp_path: Path, kind: str, gzipped: bool) -> None:
    frame = pl.DataFrame(ROWS, schema=["user", "item", "ts"], orient="row")
    if kind == "datetime":
        frame = frame.with_columns(pl.from_epoch("ts", time_unit="ms"))
    elif kind == "float":
        frame = frame.with_columns(pl.col("ts") / 1000)
    file = tmp_path / "a.parquet"
    frame.write_parquet(file)
    if gzipped:
        file.write_bytes(gzip.compress(file.read_bytes()))
    source = read_events(file, chunk_records=10)
    assert source.format.name == "parquet" and source.total == 25
    assert events(source) == decoded(source) == ROWS
    assert source.fraction == 1.0


def test_parquet_with_gaps_and_numbers_for_ids(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": [1, None, 3], "item": [4, 5, 6], "ts": [TS, TS, None], "rating": [1.0, 2.0, None]})
    frame.write_parquet(tmp_path / "a.parquet")
    file = read_events(tmp_path / "a.parquet")
    assert decoded(file) == [("1", "4", TS * 1000)]
    chunk = next(iter(file))
    assert len(chunk) == 3 and [place for place, _ in chunk.unparsed] == [1, 2]
    assert len(decode_events(chunk.values, chunk.keys).rejections) == 2


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("a.csv", b"user,item,ts\nu1,lamp,%d"),
        ("a.jsonl", b'{"user": "u1", "item": "lamp", "ts": %d}'),
        ("u.data", b"7\t8\t3\t%d"),
        ("Beauty.txt.gz", b"1 10 11 %d"),
    ],
)
def test_a_byte_order_mark_is_no_part_of_any_format(write: Write, name: str, line: bytes) -> None:
    plain = events(read_events(write("plain" + name, line % TS)))
    file = read_events(write(name, b"\xef\xbb\xbf" + line % TS))
    assert events(file) == decoded(file) == plain
    assert not any(chunk.unparsed for chunk in file)


TIMES = [TS, TS + 1, TS + 2]
BAD_COLUMNS = {
    "not UTF-8": ({"user": [b"a", b"\xff", b"c"], "item": [1, 2, 3], "ts": TIMES}, "user"),
    "missing": ({"user": [1, 2, 3], "item": ["a", "nan", "c"], "ts": TIMES}, "item"),
    "no id": ({"user": [1.0, 2.5, 3.0], "item": [1, 2, 3], "ts": TIMES}, "user"),
    "no time": ({"user": [1, 2, 3], "item": [1, 2, 3], "ts": [str(TS), "monday", str(TS + 2)]}, "ts"),
    "endless": ({"user": [1, 2, 3], "item": [1, 2, 3], "ts": [TS, float("inf"), TS + 2]}, "ts"),
}


@pytest.mark.parametrize("bad", BAD_COLUMNS)
def test_a_parquet_cell_that_makes_no_sense_is_one_dead_letter(tmp_path: Path, bad: str) -> None:
    columns, field = BAD_COLUMNS[bad]
    pl.DataFrame(columns, strict=False).write_parquet(tmp_path / "a.parquet")
    file = read_events(tmp_path / "a.parquet")
    assert [ts for _, _, ts in decoded(file)] == [TS * 1000, TS * 1000 + 2000]
    chunk = next(iter(file))
    (found,) = decode_events(chunk.values, chunk.keys).rejections
    assert (found.index, found.field) == (1, field)


@pytest.mark.parametrize(
    ("column", "values"),
    [("user", [["a"], ["b"]]), ("ts", [time(1), time(2)]), ("ts", [timedelta(1)] * 2), ("rating", [time(1), time(2)])],
)
def test_a_parquet_column_of_another_kind_is_refused(tmp_path: Path, column: str, values: list[object]) -> None:
    columns: dict[str, list[object]] = {"user": [1, 2], "item": [3, 4], "ts": [TS, TS]}
    pl.DataFrame(columns | {column: values}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=rf"a.parquet: column {column}: holds .*: expected (text or )?numbers"):
        read_events(tmp_path / "a.parquet")


def test_a_parquet_file_damaged_in_the_middle_names_the_column(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    rows = 5000
    names = [f"lamp {i * 7919 % 10007}" for i in range(rows)]
    pl.DataFrame({"user": list(range(rows)), "item": names, "ts": [TS] * rows}).write_parquet(file)
    data = bytearray(file.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2000] = b"\xff" * 2000
    file.write_bytes(data)
    with pytest.raises(SourceError, match=r"a.parquet: column (user|item): cannot be read on after record 0") as caught:
        list(read_events(file))
    assert "\n" not in str(caught.value)
    file.write_bytes(gzip.compress(bytes(data))[:-2000])
    with pytest.raises(SourceError, match="a.parquet: broken gzip"):
        read_events(file)


@pytest.mark.parametrize(("name", "separator"), [("u.data", "\t"), ("ratings.dat", "::")])
def test_movielens(write: Write, name: str, separator: str) -> None:
    rows = [(str(i % 5 + 1), str(i + 1), "3", str(TS - i)) for i in range(30)]
    file = read_events(write(name, "\n".join(separator.join(row) for row in rows).encode()))
    assert file.format.name == "movielens" and file.format.unit == "seconds"
    assert "not in time order" in str(file.format)
    assert decoded(file) == [(user, item, int(ts) * 1000) for user, item, _, ts in rows]
    assert json.loads(next(iter(file)).values[0])["value"] == 3.0


def test_elcrec_text_has_no_times_so_events_are_a_second_apart(write: Write) -> None:
    data = b"1 10 11 12\n2 10\n3\n4 13 14 15 16 17\n"
    file = read_events(write("Beauty.txt", data), chunk_records=3)
    assert file.format.name == "elcrec" and "one second" in str(file.format)
    rows = decoded(file)
    assert [(user, item) for user, item, _ in rows] == [
        *(("1", item) for item in ("10", "11", "12")),
        ("2", "10"),
        *(("4", item) for item in ("13", "14", "15", "16", "17")),
    ]
    assert np.diff([ts for _, _, ts in rows]).tolist() == [1000, 1000, 1000, 2000, 1000, 1000, 1000, 1000]
    assert [(chunk.start + place, line) for chunk in file for place, line in chunk.unparsed] == [(4, b"3")]
    assert [len(chunk) for chunk in file] == [3, 3, 3, 1]


@pytest.mark.parametrize("limit", [1, 9, 10, 11, 25, 1000])
def test_limit(write: Write, limit: int) -> None:
    file = read_events(write("a.csv", csv_bytes()), limit=limit, chunk_records=10)
    assert events(file) == ROWS[:limit]
    assert file.fraction == 1.0


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"\n\n", "is empty"),
        ("a.csv.gz", b"", "is empty"),
        ("a.csv", b"user,item,ts\n", "has a header but no rows"),
        (
            "a.csv",
            b"user,thing,ts\nu,i,1506826800\n",
            "no column for item: found user, thing, ts; expected one of",
        ),
        ("a.csv", b"user,item,ts\nu,i,12\n", "12 is a time between 1990 and 2100 neither in seconds nor"),
        ("a.csv", b"user,item,ts\nu,i,monday\n", "'monday' is no time that is known: expected epoch seconds"),
        ("a.jsonl", b'{"user":1}\n', "no column for item: found user"),
        ("a.jsonl", b'{"user":1\n{]\n', "no line of the first 2 is a JSON object"),
        ("a.json", b'[{"user":1}]', "no column for item: found user"),
        ("a.json", b'[{"user":1}', "begins like a JSON array and is none"),
        ("a.json", b" []", "is an empty JSON array"),
        ("a.parquet", b"PAR1 and nonsense", "not a readable Parquet file"),
        ("a.bin", bytes(range(14, 32)), "unknown format"),
        ("a.txt", b"hello\nworld\n", "unknown format"),
    ],
)
def test_files_that_make_no_sense_are_refused_in_one_line(write: Write, name: str, data: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        read_events(write(name, data))
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_no_file_no_limit_and_a_folder(tmp_path: Path, write: Write) -> None:
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        read_events(tmp_path / "none.csv")
    with pytest.raises(SourceError, match="cannot be read"):
        read_events(tmp_path)
    with pytest.raises(SourceError, match="limit 0: must be at least 1"):
        read_events(write("a.csv", csv_bytes()), limit=0)


def test_a_gzip_that_ends_too_early_gives_what_is_there_and_says_so(tmp_path: Path) -> None:
    rows = [(f"u{i}", f"lamp-{i * 7919 % 1000}", (TS + i) * 1000) for i in range(200_000)]
    file = tmp_path / "a.csv.gz"
    data = gzip.compress(csv_bytes(rows), 1)
    file.write_bytes(data[: len(data) - len(data) // 4])
    found: list[EventChunk] = []
    with pytest.raises(SourceError, match=r"cannot be read on after record \d+"):
        for chunk in read_events(file):
            found.append(chunk)
    assert sum(len(chunk) for chunk in found) > 100_000


def test_a_file_without_line_ends_does_not_fill_the_memory(write: Write) -> None:
    with pytest.raises(SourceError, match="a line of more than 16 MiB"):
        list(read_events(write("a.csv", b"user,item,ts\nu,i,1506826800\n" + b"x" * (18 << 20))))


@given(st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line), max_size=12), st.integers(1, 5))
@settings(max_examples=150)
def test_whatever_the_lines_are_each_is_one_record(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], n: int
) -> None:
    file = tmp_path_factory.mktemp("lines") / "a.csv"
    good = b"u1,lamp,1506826800"
    file.write_bytes(b"\n".join([b"user,item,ts", good, good, good, *lines, good]))
    chunks = list(read_events(file, chunk_records=n))
    present = [line for line in lines if line.removesuffix(b"\r")]
    assert sum(len(chunk) for chunk in chunks) == 4 + len(present)
    for chunk in chunks:
        found = decode_events(chunk.values, chunk.keys)
        assert len(found.events) + len(found.rejections) + len(found.erasures) == len(chunk)


def test_small_parts() -> None:
    assert split_quoted(b'"a', b",") == [b'"a']
    assert split_quoted(b"a::b", b"::") == [b"a", b"b"]
    assert NumberTimes("seconds").read_cells([b"1.5", b"2"]).tolist() == [1500, 2000]
    for bad in ([b"nan"], [b"inf"], [b""], [b"1e300"]):
        with pytest.raises(ValueError):
            NumberTimes("milliseconds").read_cells(bad)
    assert find_times([None, "x", 1_506_826_800], "ts", Path("x")).description == "seconds"
