"""What a reader takes for what: columns, ids, actions, times, containers; and what it does not guess."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard

from stream.errors import SourceError
from stream.mapping.time_forms import find_times, parse_time_format, parse_time_origin
from stream.mapping.times import TextTimes
from stream.schema.decoder import decode_events
from stream.schema.events import ActionsConfig
from stream.sources.files.event_file import EventFile
from stream.sources.files.options import parse_options
from stream.sources.files.sorted_events import SortedEvents
from tests.unit.intentstream.commands import run_command

TS = 1_506_826_800
Write = Callable[[str, bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def made(name: str, data: bytes) -> Path:
        file = tmp_path / name
        file.write_bytes(data)
        return file

    return made


def opened(path: Path, **options: Any) -> EventFile:
    return EventFile(path, options=parse_options(ActionsConfig().names(), **options))


def values(file: EventFile) -> list[dict[str, Any]]:
    return [json.loads(value) for chunk in file for value in chunk.values]


def rows(file: EventFile) -> list[tuple[str, str, int]]:
    return [row for c in file for row in zip(c.users, c.items, c.ts.tolist(), strict=True)]


def packed(name: str, data: bytes) -> bytes:
    if name == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("__MACOSX/._a.csv", "resource fork")
            archive.writestr("folder/a.csv", data)
        return buffer.getvalue()
    if name == "zstd":
        half = len(data) // 2
        frame = zstandard.ZstdCompressor().compress
        return frame(data[:half]) + frame(data[half:])
    if name == "xz":
        return lzma.compress(data)
    return gzip.compress(data) if name == "gzip" else bz2.compress(data)


CSV = b"user,item,ts\n" + b"".join(b"u%d,i%d,%d\n" % (n % 7, n, TS + n) for n in range(3000))


@pytest.mark.parametrize("container", ["gzip", "bz2", "xz", "zip", "zstd"])
def test_compressed_files_are_read_whatever_their_name(write: Write, container: str) -> None:
    file = opened(write("events", packed(container, CSV)))
    assert rows(file) == rows(opened(write("a.csv", CSV)))
    assert {"gzip": "gzipped"}.get(container, container) in str(file.format)
    assert file.fraction == 1.0


@pytest.mark.parametrize("container", ["gzip", "bz2", "xz", "zip", "zstd"])
def test_a_compressed_file_that_breaks_off_says_so(write: Write, container: str) -> None:
    data = packed(container, CSV)
    with pytest.raises(SourceError, match="broken|cannot be read on") as caught:
        list(opened(write("events", data[: len(data) * 3 // 4])))
    assert "\n" not in str(caught.value)


def test_a_zip_of_several_files_names_them(write: Write) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("a.csv", "b.csv"):
            archive.writestr(name, CSV)
    with pytest.raises(
        SourceError,
        match=r"a zip with 2 files \(a.csv, b.csv\): expected one: unpack it and give the file or the folder",
    ):
        opened(write("a.zip", buffer.getvalue()))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_a_byte_order_mark_says_the_encoding(write: Write, encoding: str) -> None:
    text = "user,item,ts\r\nÄnne,Lämpchen,1506826800\r\n"
    assert rows(opened(write("a.csv", text.encode(encoding)))) == [("Änne", "Lämpchen", TS * 1000)]


def test_other_encodings_are_given(write: Write) -> None:
    text = "user,item,ts\nÄnne,Lämpchen,1506826800\n"
    assert rows(opened(write("a.csv", text.encode("cp1252")), encoding="cp1252")) == [("Änne", "Lämpchen", TS * 1000)]
    assert rows(opened(write("a.csv", text.encode("utf-16-le")), encoding="utf-16-le")) == [
        ("Änne", "Lämpchen", TS * 1000)
    ]
    with pytest.raises(SourceError, match="encoding 'klingon': is none that is known"):
        opened(write("a.csv", b""), encoding="klingon")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"7z\xbc\xaf\x27\x1c\x00\x04", "is a 7z archive"),
        (
            b"a.csv" + bytes(252) + b"ustar" + bytes(300),
            "is a tar archive, its first member a.csv: unpack it and give the file or the folder",
        ),
        (b"Obj\x01\x04", "is an Avro file"),
        ("user,item".encode("utf-16-le"), "NUL bytes: a binary file, or UTF-16 without byte order mark"),
        (bytes(range(128, 200)) * 3, "is no UTF-8 text"),
    ],
)
def test_a_binary_file_is_refused_without_its_bytes(write: Write, data: bytes, words: str) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        opened(write("a.bin", data))
    assert str(caught.value).isprintable()


def test_a_record_may_hold_newlines_in_quotes(write: Write) -> None:
    data = b'user,item,ts,text\nu1,a,1506826800,"good\n""very"" good\r\nindeed"\nu2,b,1506826801,"x'
    data += b'\nu3,c,1506826802,y\nu4,d,1506826803,"1, 2"\n'
    file = opened(write("a.csv", data))
    assert [row[:2] for row in rows(file)] == [("u1", "a"), ("u3", "c"), ("u4", "d")]
    assert [place for chunk in file for place, _ in chunk.unparsed] == [1]  # its quote is never closed: it alone


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_one_user_has_one_id_however_it_is_written(tmp_path: Path, kind: str) -> None:
    users: list[Any] = ["7", "7.0", " 7", "7\t", "007", "nan", "None", "", "7"]
    path = tmp_path / f"a.{kind}"
    if kind == "csv":
        path.write_text("user,item,ts\n" + "".join(f"{user},i,{TS}\n" for user in users))
    elif kind == "jsonl":
        users[0], users[1] = 7, 7.0
        path.write_text("".join(json.dumps({"user": user, "item": "i", "ts": TS}) + "\n" for user in users))
    else:
        pl.DataFrame({"user": users, "item": ["i"] * 9, "ts": [TS] * 9}).write_parquet(path)
    (chunk,) = opened(path)
    assert chunk.users == ["7", "7", "7", "7", "007", "7"]
    decoded = decode_events(chunk.values, chunk.keys)
    assert [(bad.index, bad.field) for bad in decoded.rejections] == [(5, "user"), (6, "user"), (7, "user")]


def test_float_ids_and_missing_ones_of_parquet(tmp_path: Path) -> None:
    pl.DataFrame({"user": [7.0, float("nan"), None, 1e15], "item": [1, 2, 3, 4], "ts": [TS] * 4}).write_parquet(
        tmp_path / "a.parquet"
    )
    (chunk,) = opened(tmp_path / "a.parquet")
    assert chunk.users == ["7", "1000000000000000"]
    assert [bad.reason for bad in decode_events(chunk.values, chunk.keys).rejections] == ["missing_field"] * 2


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_an_optional_value_never_costs_the_event(tmp_path: Path, kind: str) -> None:
    ratings = ["4.5", "4,5", "N/A", "nan", "inf", ""]
    path = tmp_path / f"a.{kind}"
    if kind == "csv":
        path.write_text("user;item;ts;rating\n" + "".join(f"u;i;{TS};{rating}\n" for rating in ratings))
    elif kind == "jsonl":
        path.write_text(
            "".join(json.dumps({"user": "u", "item": "i", "ts": TS, "rating": rating}) + "\n" for rating in ratings)
        )
    else:
        pl.DataFrame({"user": ["u"] * 6, "item": ["i"] * 6, "ts": [TS] * 6, "rating": ratings}).write_parquet(path)
    (chunk,) = opened(path)
    assert chunk.event_values == [4.5, None, None, None, None, None] and not chunk.unparsed
    assert [row for row in chunk.dropped_values if ratings[row]] == [1, 2, 3, 4]


@pytest.mark.parametrize("shape", ["lines", "array", "nested"])
def test_a_bare_nan_of_an_optional_field_costs_its_value(write: Write, shape: str) -> None:
    events: list[Any] = [
        {"user": "u", "item": "NaN-1", "ts": TS, "rating": float(text)} for text in ("nan", "inf", "4")
    ]
    events.append({"user": "u", "item": "b", "ts": float("nan"), "rating": 1})
    if shape == "nested":
        events = [{"who": {"id": one.pop("user")}, **one} for one in events]
    data = json.dumps(events) if shape == "array" else "\n".join(map(json.dumps, events))
    (chunk,) = opened(write("a.json", data.encode()), columns="user=who.id" if shape == "nested" else "")
    assert (chunk.items, chunk.event_values, chunk.dropped_values) == (["NaN-1"] * 3, [None, None, 4.0], [0, 1])
    (bad,) = decode_events(chunk.values, chunk.keys).rejections
    assert (bad.index, bad.reason, bad.field, bad.value) == (3, "wrong_type", "ts", "NaN")


def test_the_header_decides_in_every_separator(write: Write) -> None:
    for separator in (b"\t", b",", b";", b"|", b"::"):
        lines = [separator.join([b"item_id", b"user_id", b"rating", b"timestamp"])]
        lines += [separator.join([b"5%d" % n, b"1%d" % n, b"4", b"%d" % (TS + n)]) for n in range(30)]
        file = opened(write("a.tsv", b"\n".join(lines)))
        assert file.format.columns["user"] == "user_id" and rows(file)[0] == ("10", "50", TS * 1000)


@pytest.mark.parametrize(
    ("data", "option"),
    [
        (b"1 5 3\n2 6 4\n1 7 5\n", "--columns user=?,item=?"),
        (b"1 5 3\n2 6 4\n3 7 5\n", "--columns user=?,item=?"),  # each user once, and still a table
        (b"A1,B1,5.0,1341100800\nA2,B2,3.0,1341100801\n", "--columns user=?,item=?,ts=4"),
        (b"1,2019-10-13T20:53:20Z,7\n2,2019-10-13T20:53:27Z,8\n", "--columns user=?,item=?,ts=2"),
        (b"1,7,4004,pv,1511544070\n2,8,4004,buy,1511544071\n", "--columns user=?,item=?,ts=5,action=4"),
    ],
)
def test_without_a_header_the_first_line_and_the_option_are_said(write: Write, data: bytes, option: str) -> None:
    with pytest.raises(SourceError, match="no header, first line") as caught:
        opened(write("a.txt", data))
    assert option in str(caught.value) and data.decode().split("\n")[0] in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [b"this is no data\nat all, but words\n" * 20, b"one two three\nfour five\n" * 9, b"# A page\n\nSome text.\n"],
)
def test_prose_is_no_sequence(write: Write, data: bytes) -> None:
    with pytest.raises(SourceError, match="unknown format|no column"):
        opened(write("README.md", data))


def test_columns_by_number_with_and_without_times(write: Write) -> None:
    path = write("a.txt", b"10 50 3\n11 51 4\n10 52 5\n")
    file = opened(path, columns="user=1,item=2,value=3")
    assert rows(file) == [("10", "50", 946684800000), ("11", "51", 946684801000), ("10", "52", 946684802000)]
    assert "in the order of the lines" in str(file.format)
    file = opened(write("b.csv", b"u1,a,x,1506826800\nu2,b,y,1506826801\n"), columns="user=1,item=2,ts=4")
    assert rows(file)[1] == ("u2", "b", TS * 1000 + 1000) and file.format.unused == ["3"]
    file = opened(write("c.csv", b"who,what,when\nu1,a,1506826800\n"), columns="user=1,item=2,ts=3")
    assert rows(file) == [("u1", "a", TS * 1000)]  # the first line is a header all the same
    with pytest.raises(SourceError, match="--columns ts=9: the first line has 4 cells"):
        opened(write("b.csv", b"u1,a,x,1506826800\n"), columns="user=1,item=2,ts=9")


def test_given_columns_come_before_known_ones(write: Write) -> None:
    path = write("a.csv", b"session_id,user_id,item_id,time\n10,NA,50,1506826800\n")
    assert rows(opened(path, columns="user=session_id")) == [("10", "50", TS * 1000)]
    with pytest.raises(SourceError, match=r"--columns user=sesion_id: no such column: .* did you mean session_id"):
        opened(path, columns="user=sesion_id")
    no_times = write("b.csv", b"user,item\nu1,a\nu2,b\n")
    with pytest.raises(SourceError, match="no column for ts: .* --columns ts=none the order of the lines counts"):
        opened(no_times)
    assert [row[0] for row in rows(opened(no_times, columns="ts=none"))] == ["u1", "u2"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("user=a,user=b", "user is there twice"),
        ("usr=a", "did you mean user"),
        ("user=", "expected user=, item="),
        ("user", "expected user=, item="),
    ],
)
def test_a_wrong_columns_option_is_one_line(columns: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        parse_options([], columns=columns)


def test_paths_into_nested_json(write: Write) -> None:
    lines = [
        {"who": {"id": "u1"}, "what": {"sku": 5}, "at": "2017-10-01T03:00:00Z"},
        {"who": {}, "what": {"sku": 6}, "at": "2017-10-01T03:00:00Z"},
    ]
    path = write("a.jsonl", "\n".join(map(json.dumps, lines)).encode())
    file = opened(path, columns="user=who.id,item=what.sku,ts=at")
    (chunk,) = file
    assert (chunk.users, chunk.items, chunk.ts.tolist()) == (["u1"], ["5"], [TS * 1000])
    bad = decode_events(chunk.values, chunk.keys).rejections
    assert [(one.index, one.reason, one.field) for one in bad] == [(1, "missing_field", "user")]
    assert chunk.originals == path.read_bytes().split(b"\n")
    with pytest.raises(SourceError, match=r"user=who.idd: no such path in the first 2 records: did you mean who.id\?"):
        opened(path, columns="user=who.idd,item=what.sku,ts=at")


def test_a_record_with_a_list_of_events_is_as_many(write: Write) -> None:
    line = {"session": 7, "events": [{"aid": n, "ts": TS * 1000 + n, "type": "carts"} for n in range(5)]}
    file = opened(write("a.jsonl", b"\n".join([json.dumps(line).encode()] * 3)))
    assert len(rows(file)) == 15 and rows(file)[4] == ("7", "4", TS * 1000 + 4)
    assert {value["action"] for value in values(file)} == {"cart"}
    assert [len(chunk) for chunk in EventFile(file.path, limit=7)] == [7]


def test_a_json_array(write: Write) -> None:
    line = {"user": "u1", "item": "a", "ts": TS}
    assert len(rows(opened(write("a.json", json.dumps([line] * 4, indent=1).encode())))) == 4
    assert len(rows(opened(write("b.json", gzip.compress(json.dumps([line] * 4).encode()))))) == 4


def test_nested_columns_of_parquet(tmp_path: Path) -> None:
    frame = pl.DataFrame({"who": [{"id": "u1"}, {"id": None}], "item": ["a", "b"], "ts": [TS, TS], "more": [1, 2]})
    frame.write_parquet(tmp_path / "a.parquet")
    file = opened(tmp_path / "a.parquet", columns="user=who.id")
    assert rows(file) == [("u1", "a", TS * 1000)] and file.format.unused == ["more"]


@pytest.mark.parametrize("name", ["event", "event_type", "behavior", "type"])
def test_a_column_of_known_actions_is_the_action(write: Write, name: str) -> None:
    data = f"user,item,ts,{name}\nu,a,{TS},view\nu,b,{TS},addtocart\nu,c,{TS},Dislike\nu,d,{TS},fly\n"
    file = opened(write("a.csv", data.encode()))
    assert [value.get("action") for value in values(file)] == ["view", "cart", "dislike", "fly"]
    assert f"action = {name} (addtocart = cart, Dislike = dislike)" in str(file.format)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_column_of_something_else_is_named_as_not_used(tmp_path: Path, kind: str) -> None:
    columns: dict[str, list[Any]] = {
        "user": ["u"] * 3,
        "item": ["i"] * 3,
        "ts": [TS] * 3,
        "type": ["shoe", "hat", "hat"],
    }
    frame, path = pl.DataFrame(columns), tmp_path / f"a.{kind}"
    {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[kind](path)
    file = opened(path)
    assert "action" not in file.format.columns and str(file.format).endswith("not used: type")
    assert "no known action in type: hat (2), shoe (1) of the first 3; --actions hat=NAME maps it" in str(file.format)
    assert len(rows(file)) == 3


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_column_of_half_known_actions_is_the_action(tmp_path: Path, kind: str) -> None:
    events = ["thumb_down", "dislike", "thumb_down", "mute"]
    columns: dict[str, list[Any]] = {"user": ["u"] * 4, "item": list("abcd"), "ts": [TS] * 4, "event": events}
    frame, path = pl.DataFrame(columns), tmp_path / f"a.{kind}"
    {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[kind](path)
    file = opened(path)
    assert "unknown actions in event: thumb_down (2), mute (1) of the first 4" in str(file.format)
    decoded = decode_events(next(iter(file)).values)
    assert [one.value for one in decoded.rejections] == ["thumb_down", "thumb_down", "mute"]
    assert {one.reason for one in decoded.rejections} == {"unknown_action"} and decoded.events.items == ["b"]
    (chunk,) = opened(path, actions="thumb_down=dislike,mute=dislike")
    assert chunk.actions == ["dislike"] * 4


def test_actions_are_translated_as_given(write: Write) -> None:
    path = write("a.csv", b"user,item,ts,behavior\nu,a,%d,1\nu,b,%d,2\n" % (TS, TS))
    file = opened(path, columns="action=behavior", actions="1=view,2=purchase")
    assert [value["action"] for value in values(file)] == ["view", "purchase"]
    with pytest.raises(SourceError, match="--actions 1=fly: fly is no action of the configuration: expected one of"):
        opened(path, actions="1=fly")
    with pytest.raises(SourceError, match="--actions 1: expected OLD=NEW"):
        opened(path, actions="1")


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("2017-10-01T05:00:00+02:00", "ISO 8601"),
        ("2017-10-01 03:00:00 UTC", "ISO 8601"),
        ("2017-10-01 03:00:00.000", "ISO 8601"),
        ("01.10.2017 03:00", "%d.%m.%Y %H:%M"),
        ("Sun Oct 01 03:00:00 +0000 2017", "%a %b %d %H:%M:%S %z %Y"),
        ("01/Oct/2017:03:00:00 +0000", "%d/%b/%Y:%H:%M:%S %z"),
        ("1506826800000000", "microseconds"),
    ],
)
def test_times_are_read_in_many_forms(write: Write, text: str, unit: str) -> None:
    file = opened(write("a.csv", f"user;item;ts\nu;a;{text}\n".encode()))
    assert rows(file) == [("u", "a", TS * 1000)] and file.format.unit.endswith(unit)


def test_day_and_month_are_not_guessed() -> None:
    both = ["03/04/2017", "05/06/2017"]
    with pytest.raises(SourceError, match="day or month first"):
        find_times(both, "ts", Path("x.csv"))
    assert find_times([*both, "25/04/2017"], "ts", Path("x.csv")).description == "the form %d/%m/%Y"
    assert find_times([*both, "04/25/2017"], "ts", Path("x.csv")).description == "the form %m/%d/%Y"


def test_times_are_as_given(write: Write) -> None:
    path = write("a.csv", b"user,item,ts\nu,a,03/04/2017 10:00\n")
    assert rows(opened(path, time_format="%d/%m/%Y %H:%M"))[0][2] == 1_491_213_600_000
    path = write("b.csv", b"uid,item_id,timestamp\n1,7,0\n2,8,5\n")
    with pytest.raises(SourceError, match="give --time-origin"):
        opened(path)
    assert rows(opened(path, time_origin="2024-01-01T00:00:00Z"))[1][2] == 1_704_067_205_000
    assert rows(opened(path, time_origin="2024-01-01", time_format="ms"))[1][2] == 1_704_067_200_005
    for bad in ("yesterday", "%q"):
        with pytest.raises(SourceError, match="--time-format"):
            parse_time_format(bad)
    with pytest.raises(SourceError, match="--time-origin"):
        parse_time_origin("soon")


def test_a_time_with_a_zone_in_parquet(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": ["u"], "item": ["a"], "ts": ["2017-10-01T05:00:00"]})
    zoned = frame.with_columns(pl.col("ts").str.to_datetime().dt.replace_time_zone("Europe/Berlin"))
    zoned.write_parquet(tmp_path / "a.parquet")
    assert rows(opened(tmp_path / "a.parquet"))[0][2] == TS * 1000


def test_a_pattern_reads_what_it_says() -> None:
    assert TextTimes("%Y%m%d").read("20171001") == 1_506_816_000_000
    with pytest.raises(ValueError):
        TextTimes("iso").read("monday")


def test_a_pipe_and_standard_input_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(gzip.compress(CSV),))
    writer.start()
    file = opened(pipe)
    writer.join()
    assert len(rows(file)) == len(rows(file)) == 3000
    with (tmp_path / "a.csv").open("w+b") as opened_file:
        opened_file.write(CSV)
        opened_file.seek(0)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(opened_file))
        assert len(rows(opened(Path("-")))) == 3000


def test_lines_may_end_as_on_old_machines(write: Write) -> None:
    assert rows(opened(write("a.csv", CSV.replace(b"\n", b"\r")))) == rows(opened(write("b.csv", CSV)))


def test_a_zero_byte_costs_its_record_at_most(write: Write) -> None:
    data = CSV.replace(b"u1,i1,", b"u1,i\x001,")
    assert len(rows(opened(write("a.csv", data)))) == 3000


def test_ids_in_the_notation_of_r_are_whole_numbers(write: Write) -> None:
    data = f"user,item,ts\n1e+05,i,{TS}\n100000,i,{TS}\n1.5e+00,i,{TS}\n".encode()
    assert [row[0] for row in rows(opened(write("a.csv", data)))] == ["100000", "100000", "1.5e+00"]


def test_sequences_stay_sequences_to_the_end(write: Write) -> None:
    data = b"1 10 11\n2 12\n" + b"".join(b"%d 10 11 12\n" % n for n in range(3, 2000)) + b"and then some words\n"
    (*_, last) = opened(write("a.txt", data))
    assert [line for _, line in last.unparsed] == [b"and then some words"]


def test_an_office_document_is_no_archive_to_unpack(write: Write) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("[Content_Types].xml", "xl/workbook.xml"):
            archive.writestr(name, "<xml/>")
    with pytest.raises(SourceError, match="is an Office document: save it as CSV"):
        opened(write("a.xlsx", buffer.getvalue()))


def test_records_are_put_in_order(write: Write) -> None:
    lines = [f"u,i{n},{TS - n % 100}" for n in range(25_000)]
    lines[7] = "no row"
    path = write("a.csv.gz", gzip.compress("\n".join(["user,item,ts", *lines]).encode()))
    file = opened(path)
    assert "--sort" in str(file.format)
    source = SortedEvents(file)
    values = [value for chunk in source for value in chunk.values]
    originals = [line.decode() for chunk in source for line in chunk.originals]
    assert sorted(originals) == sorted(lines) and originals[originals.index("no row") - 1] == lines[6]
    times = [json.loads(value)["ts"] for value in values if value != b"no row"]
    assert times == sorted(times) and source.fraction == 1.0
    path.write_bytes(path.read_bytes()[:-30_000])
    found = []
    with pytest.raises(SourceError, match="cannot be read on after record"):
        for chunk in SortedEvents(opened(path)):
            found += chunk.values
    assert len(found) > 1000


def test_names_of_columns_are_no_markup(tmp_path: Path, write: Write) -> None:
    from intentstream.cli.app import app

    path = write("a.csv", b"user,item,ts,[/x],price [EUR],\x1b[31m\nu,a,1506826800,1,2,3\n")
    assert "\x1b" not in str(opened(path).format)
    run_command(app, "replay", path, "--no-baselines")


@pytest.mark.parametrize("data", [gzip.compress(b"\xe9" * 99, mtime=0), b"\x89PNG\r\n\x1a\n" + b"\xff" * 99])
def test_bytes_that_are_no_text_are_refused_and_not_shown(write: Write, data: bytes) -> None:
    with pytest.raises(SourceError, match="is no UTF-8 text") as refused:
        opened(write("file.bin", data))
    assert "\N{REPLACEMENT CHARACTER}" not in str(refused.value)


def test_a_column_name_without_end_is_shown_in_part(write: Write) -> None:
    file = opened(write("file.csv", b"user,item,ts," + b"c" * 100_000 + f"\nu1,a,{TS},1\n".encode()))
    assert rows(file) == [("u1", "a", TS * 1000)] and len(str(file.format)) < 300


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_tar_archive_is_refused_with_its_first_member(tmp_path: Path, mode: Any) -> None:
    (tmp_path / "one.csv").write_text("user,item,ts\nu,i,1506826800\n")
    file = tmp_path / "events.csv"
    with tarfile.open(file, mode, format=tarfile.USTAR_FORMAT) as archive:
        archive.add(tmp_path / "one.csv", "day/one.csv")
    with pytest.raises(SourceError, match="is a tar archive, its first member day/one.csv: unpack it"):
        EventFile(file)
