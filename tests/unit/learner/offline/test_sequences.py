from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from learner.errors import DataError
from learner.offline.sequences import read_sequences


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "data.txt"
    path.write_text(text)
    return path


def test_leave_one_out(tmp_path: Path) -> None:
    data = read_sequences(write(tmp_path, "a 1 2 3 4 5\nb 7 8 9\n"))
    both = np.arange(2)
    assert data.item_count == 9
    assert data.histories("train", both, 3).tolist() == [[1, 2, 3], [0, 0, 7]]
    assert data.histories("validation", both, 3).tolist() == [[1, 2, 3], [0, 0, 7]]
    assert data.histories("test", both, 2).tolist() == [[3, 4], [7, 8]]
    assert data.answers("validation", both).tolist() == [4, 8]
    assert data.answers("test", both).tolist() == [5, 9]
    row, item = data.seen("test", both)
    assert (row.tolist(), item.tolist()) == ([0, 0, 0, 0, 1, 1], [1, 2, 3, 4, 7, 8])


def test_groups_by_length_hold_everyone_once(tmp_path: Path) -> None:
    data = read_sequences(
        write(tmp_path, "".join(f"u{n} {' '.join(map(str, range(1, n + 1)))}\n" for n in (3, 9, 5, 10, 4)))
    )
    groups = [(length, users.tolist()) for length, users in data.by_length("test", 6)]
    assert groups == [(6, [1, 3]), (4, [2]), (3, [4]), (2, [0])]


def test_short_users_are_counted_and_left_out(tmp_path: Path) -> None:
    data = read_sequences(write(tmp_path, "a 1 2\nb 1 2 3\nc\n"))
    assert (data.users, data.left_out) == (("b",), 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a 1 2 3\n\nb 1 2 3\n", "line 2: empty"),
        ("a 1 2 3\nb 1 0 3\n", "line 2: user 'b' has item 0; items are numbered from 1"),
        ("a 1 x 3\n", "line 1: user 'a' has item 'x', which is no whole number"),
        ("a 1 2.5 3\n", "line 1: user 'a' has item '2.5', which is no whole number"),
        ("a 1 1_0 3\n", "line 1: user 'a' has item '1_0', which is no whole number"),
        ("a 1 2\0 3\n", "line 1: user 'a' has item '2\\x00', which is no whole number"),
        ("a 1 -2 3\n", "line 1: user 'a' has item -2; items are numbered from 1"),
        ("a 1 2 99999999999\n", "line 1: user 'a' has item 99999999999, above 10000000"),
        ("a 1 2 9" + "9" * 25 + "\n", "line 1: user 'a' has item 9999"),
        (f"a 1 2 {'x' * 5000}\n", "item 'xxx"),
        ("a 1 2 3\na 4 5 6\n", "line 2: user 'a' was on an earlier line"),
        ("a 1\n", "no user with 3 items or more (1 with fewer)"),
        ("", "no user with 3 items or more"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError) as error:
        read_sequences(write(tmp_path, text))
    assert said in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent.txt: cannot be read"):
        read_sequences(tmp_path / "absent.txt")


def test_a_byte_order_mark_and_windows_lines_are_no_part_of_the_words(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_bytes(b"\xef\xbb\xbfa 1 2 3\r\nb 3 2 1\r\n")
    data = read_sequences(path)
    assert data.users == ("a", "b") and data.items.tolist() == [1, 2, 3, 3, 2, 1]


def test_two_users_that_are_no_utf8_are_two(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_bytes(b"z\xe8 1 2 3\nz\xe9 3 2 1\n")
    assert read_sequences(path).users == ("z\\xe8", "z\\xe9")
