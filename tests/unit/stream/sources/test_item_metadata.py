from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import pytest

from stream.errors import SourceError
from stream.sources.item_metadata import read_items


def write(folder: Path, text: str) -> Path:
    path = folder / "items"
    path.write_bytes(text.encode())
    return path


def test_csv_and_json_lines_say_the_same(tmp_path: Path) -> None:
    expected = {"a,1": ("Lamp, small", "light"), "b": ("", "music"), "c": ("Drum", "")}
    csv = 'title,item,category,price\n"Lamp, small","a,1",light,3\n,b,music,\nDrum,c,,1\n'
    lines = (
        '{"item":"a,1","title":"Lamp, small","category":"light"}\n\n{"item":"b","category":"music"}\n'
        '{"item":"c","title":"Drum","category":null,"price":1}\n'
    )
    assert read_items(write(tmp_path, csv)) == read_items(write(tmp_path, lines)) == expected
    assert read_items(write(tmp_path, "\ufeff" + csv.replace("\n", "\r\n"))) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item,title\na,Lamp\nb,Drum\na,Lamp\n", r"line 4: item 'a' was in line 2 already: keep one"),
        ("item,title\na,\n", r"line 2: item 'a' has neither title nor category: give one"),
        ("item,title\n,Lamp\n", r"line 2: item = '': must be 1 to 256 bytes"),
        ('{"item":"a","title":"x"}\n{"title":"y"}\n', r"line 2: item = '': must be"),
        ('{"item":7.5,"title":"y"}\n', r"line 1: item = 7.5: must be text"),
        ("item,title\na," + "x" * (2 << 20) + "\n", r"line 2: more than 1 MiB: is this a file of lines"),
        ('{"item":"a","title":"x"}\n{"item"\n', r"line 2: not JSON"),
        ('{"item":"a","title":"x"}\n[1]\n', r"line 2: a list, expected an object"),
        ("id,title\na,Lamp\n", r"columns id, title: expected item and title or category"),
        ("item,price\na,3\n", r"columns item, price: expected item and title or category"),
        ("item,title\n", "holds no items"),
        ("", "columns none"),
        ("item,title\na,Lamp, small\n", r"line 2: 3 fields, the header has 2: put quotes around"),
        ("item,title,title\na,Lamp,Amp\n", r"2 columns title: keep one"),
        ('item,title\n"a,' + "b" * 200_000 + "\n", r"after line 1: not CSV \(field larger than field limit"),
        ('{"item":"\\ud800","title":"x"}\n', r"line 1: item = '\\ud800': must be 1 to 256 bytes of UTF-8"),
    ],
)
def test_bad_files_are_refused_with_line_and_rule(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read_items(write(tmp_path, text))


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read"):
        read_items(tmp_path / "missing")
    path = tmp_path / "items"
    path.write_bytes(b"item,title\na,\xff\n")
    with pytest.raises(SourceError, match="not UTF-8"):
        read_items(path)


def test_titles_are_bounded_and_can_be_printed(tmp_path: Path) -> None:
    lines = (
        '{"item":7,"title":"\\u001b[31mRed\\n lamp"}\n{"item":"8.0","title":"' + "x" * 5000 + '","category":"nan"}\n'
    )
    titles = read_items(write(tmp_path, lines))
    assert titles["7"] == ("[31mRed lamp", "")
    assert titles["8"] == ("x" * 199 + "…", "")


def test_compressed_files_and_utf_16_are_read(tmp_path: Path) -> None:
    text = 'item,title\r\na,"Lämpchen\r\nklein"\r\n'
    path = tmp_path / "items"
    for data in (gzip.compress(text.encode()), text.encode("utf-16"), bz2.compress(text.encode("utf-16"))):
        path.write_bytes(data)
        assert read_items(path) == {"a": ("Lämpchen klein", "")}
    path.write_bytes(gzip.compress(b"item,title\n" + b"".join(b"i%d,t\n" % n for n in range(5000)))[:-20])
    with pytest.raises(SourceError, match="cannot be read: Compressed file ended"):
        read_items(path)
