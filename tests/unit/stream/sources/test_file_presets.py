"""Files by a preset, or by what the section `[events]` says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stream.errors import ConfigError, SourceError
from stream.mapping.config import EventsConfig
from stream.schema.decoder import decode_events
from stream.schema.events import ActionsConfig
from stream.sources.files.event_file import EventFile
from stream.sources.files.event_folder import open_events
from stream.sources.files.options import parse_options
from stream.sources.files.sorted_events import SortedEvents

DATA = Path(__file__).parents[3] / "data" / "formats"
TS = 1_571_000_000_000


def opened(path: Path, **options: Any) -> EventFile:
    return EventFile(path, options=parse_options(ActionsConfig().names(), **options))


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("retailrocket_events.csv", "retailrocket"),
        ("rees46.csv", "rees46"),
        ("yoochoose-clicks.dat", "yoochoose"),
        ("UserBehavior.csv", "taobao"),
        ("otto.jsonl", "otto"),
        ("amazon2023_5core.csv", "amazon2023"),
        ("lastfm1k.tsv", "lastfm1k"),
        ("hm_transactions.csv", "H&M"),
        ("recbole.inter", "recbole"),
        ("diginetica-views.csv", "diginetica"),
        ("yambda.csv", "yambda"),
        ("ml-25m.csv", "movielens"),
    ],
)
def test_the_public_sets_by_their_presets(name: str, preset: str) -> None:
    decoded = [decode_events(chunk.values, chunk.keys) for chunk in opened(DATA / name, preset=preset)]
    assert sum(len(part.events) for part in decoded) == 60 and not any(part.rejections for part in decoded)


def test_actions_that_a_preset_skips_are_no_events(tmp_path: Path) -> None:
    rows = ["event_time,event_type,product_id,user_id"]
    rows += [f"2019-10-01 00:00:0{n} UTC,{kind},{n},7" for n, kind in enumerate(["view", "remove_from_cart", "cart"])]
    path = tmp_path / "2019-Oct.csv"
    path.write_text("\n".join([*rows, "broken", ""]))
    file = opened(path, preset="rees46")
    chunks = list(file)
    assert [chunk.items for chunk in chunks] == [["0", "2"]] and chunks[0].actions == ["view", "cart"]
    assert chunks[0].originals[2] == b"broken" and chunks[0].keys == [b"7", b"7", None]
    assert file.skipped == SortedEvents(file).skipped == 1


def test_a_constant_action_is_that_of_every_row(tmp_path: Path) -> None:
    pl.DataFrame({"customer": [1, 2], "sku": [3, 4], "ts": [TS, TS]}).write_parquet(tmp_path / "orders.parquet")
    (tmp_path / "orders.csv").write_text(f"customer,sku,ts\n1,3,{TS}\n2,4,{TS}\n")
    for name in ("orders.parquet", "orders.csv"):
        assert [c.actions for c in opened(tmp_path / name, columns="action==purchase")] == [["purchase"] * 2]


def test_the_section_events_serves_files_too(tmp_path: Path) -> None:
    path = tmp_path / "orders.jsonl"
    order = {"buyer": {"id": 7}, "placed": "2019-10-13T20:53:20Z", "lines": [{"sku": "a"}, {"sku": "b"}], "more": 1}
    path.write_text(json.dumps(order) + "\n" + json.dumps({"buyer": {}, "kind": "note"}) + "\n")
    events = EventsConfig(user="buyer.id", item="sku", ts="placed", items="lines", action="=purchase")
    file = opened(path, events=events)
    chunk = next(iter(file))
    assert (chunk.users, chunk.items, chunk.ts.tolist()) == (["7", "7"], ["a", "b"], [TS, TS])
    assert len(chunk.unparsed) == 1 and "not used: more" in str(file.format)


def test_messages_that_are_no_events_are_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    lines = (DATA / "segment.jsonl").read_text().splitlines()
    path.write_text("\n".join([*lines, '{"type": "identify", "userId": "1"}', '{"type": "page", "userId": "1"}']))
    file = opened(path, preset="segment")
    assert sum(len(chunk) for chunk in file) == 60 and file.skipped == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"preset": "segmnt"}, "the nearest is segment"),
        ({"columns": "user=properties.product_id|x,item=properties.produkt_id"}, "did you mean properties.product_id?"),
        ({"columns": "user=userId,item=userId"}, "has this path too"),
        ({"preset": "debezium"}, "none of the first 60 records has op|payload.op = c|r|u"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused_in_one_line(options: dict[str, str], words: str) -> None:
    with pytest.raises((SourceError, ConfigError)) as caught:
        opened(DATA / "segment.jsonl", **options)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    folder = tmp_path / "sets"
    (folder / "day=2").mkdir(parents=True)
    (folder / "_tmp").mkdir()
    (folder / "_tmp" / "x.csv").write_text("broken")
    (folder / "b.csv.bz2").write_bytes((DATA / "plain.csv.bz2").read_bytes())
    (folder / "a.jsonl").write_bytes((DATA / "iso.jsonl").read_bytes())
    (folder / "day=2" / "part-0.parquet").write_bytes((DATA / "float_ids.parquet").read_bytes())
    (folder / "README.md").write_text("words")
    (folder / "_SUCCESS").write_text("")
    source = open_events(folder)
    chunks = list(source)
    assert [len(chunk) for chunk in chunks] == [60, 60, 60] and source.fraction == 1.0
    assert "3 files in the order of their names" in str(source.format) and "left out: README.md" in str(source.format)
    assert "part-0.parquet is parquet" in str(source.format)
    assert sum(len(chunk) for chunk in open_events(folder, 70)) == 70
    assert sum(len(chunk.values) for chunk in SortedEvents(open_events(folder))) == 180
    (folder / "c.csv").write_bytes(b"\x00\x01" * 100)
    with pytest.raises(SourceError, match="c.csv"):
        open_events(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no event file in this folder"):
        open_events(tmp_path / "empty")


@pytest.mark.parametrize("indent", [None, 2])
def test_one_object_that_holds_the_events(indent: int | None, tmp_path: Path) -> None:
    rows = [{"user": f"u{n}", "item": n, "ts": TS + n} for n in range(5)]
    path = tmp_path / "export.json"
    path.write_text(json.dumps({"meta": {"pages": 1}, "data": rows}, indent=indent))
    assert [chunk.users for chunk in opened(path)] == [[f"u{n}" for n in range(5)]]


@pytest.mark.parametrize(
    "header",
    ["Customer ID;Product-Id;Event Time", "customerId|productId|eventTime", '"CUSTOMER_ID","PRODUCT_ID","event_time"'],
)
def test_headers_are_known_however_their_words_are_joined(header: str, tmp_path: Path) -> None:
    separator = next(one for one in ";|," if one in header)
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xef\xbb\xbf" + f"{header}\r\n7{separator}9{separator}01.10.2019 08:00\r\n".encode())
    assert [(c.users, c.items, c.ts.tolist()) for c in opened(path)] == [(["7"], ["9"], [1_569_916_800_000])]
