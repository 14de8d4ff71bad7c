"""Dead letters listed, shown and sent again once each, whatever fails between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from intentstream.cli.app import app
from stream.errors import DeadLetterError
from stream.log import EventLog, LogInUse, open_log
from stream.log.base import LogUnavailable, Message, OffsetRange, WriterFenced
from stream.schema import topics
from stream.worker import dead_letters
from stream.worker.dead_letters import (
    WORKER,
    find_dead_letter,
    newest_dead_letters,
    read_dead_letters,
    replay_dead_letters,
)
from stream.worker.verify import verify
from stream.worker.worker import Worker
from tests.unit.stream.streams import small_config
from tests.unit.stream.worker.faulty import Flaky
from tests.unit.stream.worker.test_worker import drain

BAD = [b'{"user": "u1", "item": "", "ts": 1}', b"\xff\x1b[2J", b'{"user": "u1", "item": "i", "ts": 1, "action": "x"}']


def letter(value: bytes | None, reason: str, at: int = 7, key: bytes | None = b"u1") -> Message:
    said = {"reason": reason, "field": "item", "value": "''", "rule": "1 to 256 bytes", "topic": topics.EVENTS}
    headers = [(name, text.encode()) for name, text in said.items()]
    where = [("partition", b"1"), ("offset", b"%d" % at)]
    return Message(topics.DEAD_LETTERS, key, value, 1_700_000_000_000, (*headers, *where))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with open_log(f"file://{tmp_path / 'log'}") as opened:
        opened.create_topics(topics.topic_specs(2))
        yield opened


def sent(log: EventLog) -> list[bytes | None]:
    """The event topic's values, in no particular order."""
    ends = log.end_offsets(topics.EVENTS)
    return [v for p, end in enumerate(ends) for v in log.read(OffsetRange(topics.EVENTS, p, 0, end)).values]


def fill(log: EventLog, count: int = 10) -> list[bytes]:
    values = [b"letter-%d" % i for i in range(count)]
    log.append([letter(v, "bad_id" if i % 2 else "not_json", i) for i, v in enumerate(values)])
    return values


def test_list_filters_by_reason_and_keeps_the_newest(log: EventLog) -> None:
    fill(log)
    assert [x.offset for x in read_dead_letters(log)] == list(range(10))
    assert [x.offset for x in newest_dead_letters(log, 2, "bad_id")] == [7, 9]
    assert list(read_dead_letters(log, "no_such_reason")) == []


def test_show_one(log: EventLog) -> None:
    fill(log, 3)
    found = find_dead_letter(log, 2)
    assert (found.key, found.value, found.reason, found.field) == (b"u1", b"letter-2", "not_json", "item")
    assert (found.found, found.rule, found.origin) == ("''", "1 to 256 bytes", "behavior-events[1] offset 2")
    replay_dead_letters(log, now_ms=0)
    assert find_dead_letter(log, 2).replayed
    for nowhere in (3, 4, 99):  # 3 is the mark
        with pytest.raises(DeadLetterError, match=f"no letter at 0:{nowhere}"):
            find_dead_letter(log, nowhere)


def test_the_bytes_are_sent_again_once_each(log: EventLog) -> None:
    log.append([letter(v, "bad_id") for v in BAD] + [letter(None, "empty", key=None)])
    assert replay_dead_letters(log, now_ms=0) == dead_letters.Replayed(4, 0)
    assert sorted(sent(log), key=repr) == sorted([*BAD, None], key=repr)
    assert replay_dead_letters(log, now_ms=0) == dead_letters.Replayed(0, 0)
    assert len(sent(log)) == 4
    assert all(x.replayed for x in read_dead_letters(log))
    assert list(read_dead_letters(log, waiting=True)) == []
    log.append([letter(b"refused again", "bad_id")])  # is a new letter
    assert replay_dead_letters(log, now_ms=0).sent == 1


def test_replay_by_reason_then_the_rest(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "_CHUNK", 2)
    values = fill(log)
    seen: list[int] = []
    assert replay_dead_letters(log, now_ms=0, reason="bad_id", limit=3, on_sent=seen.append).sent == 3
    assert seen == [2, 3]
    assert sorted(sent(log), key=repr) == [values[1], values[3], values[5]]
    assert [x.offset for x in read_dead_letters(log, waiting=True)] == [0, 2, 4, 6, 7, 8, 9]
    assert replay_dead_letters(log, now_ms=0).sent == 7
    assert sorted(sent(log), key=repr) == values


def test_what_the_event_topic_does_not_take_is_left(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "_CHUNK_BYTES", 20)
    fill(log, 4)
    log.append([letter(b"x" * (128 * 1024), "too_large")])
    whole = letter(b"the beginning of", "too_large")
    log.append([replace(whole, headers=(*whole.headers, ("size", b"900000")))])
    assert replay_dead_letters(log, now_ms=0) == dead_letters.Replayed(4, 2)
    assert replay_dead_letters(log, now_ms=0) == dead_letters.Replayed(0, 2)


@pytest.mark.parametrize("plan", [["before"], ["after"], ["well", "after", "before", "before", "after"]])
def test_a_lost_answer_sends_nothing_twice(log: EventLog, monkeypatch: pytest.MonkeyPatch, plan: list[str]) -> None:
    monkeypatch.setattr(dead_letters, "_CHUNK", 2)
    values = fill(log)
    failing: Any = Flaky(log, plan)
    assert replay_dead_letters(failing, now_ms=0).sent == 10
    assert sorted(sent(log), key=repr) == values


def test_a_replay_that_failed_goes_on_where_it_was(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "_CHUNK", 3)
    values = fill(log)
    failing: Any = Flaky(log, ["well", "away"])
    with pytest.raises(LogUnavailable):
        replay_dead_letters(failing, now_ms=0)
    assert replay_dead_letters(log, now_ms=0).sent == 7
    assert sorted(sent(log), key=repr) == values


def test_a_second_replay_fences_the_first(log: EventLog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(dead_letters, "_CHUNK", 5)
    values = fill(log)
    with open_log(f"file://{tmp_path / 'log'}") as other:

        def meanwhile(_: int) -> None:
            replay_dead_letters(other, now_ms=0)

        with pytest.raises(WriterFenced, match=WORKER):
            replay_dead_letters(log, now_ms=0, on_sent=meanwhile)
    assert sorted(sent(log), key=repr) == values


def test_a_worker_takes_what_was_sent_again_and_verify_passes_over_the_marks(tmp_path: Path) -> None:
    config = small_config(url=f"file://{tmp_path / 'log'}")
    with open_log(config.log.url) as log:
        log.create_topics(topics.topic_specs(2))
        log.append([Message(topics.EVENTS, b"u1", value, 0) for value in BAD])
        worker = Worker(config, log, tmp_path / "state")
        worker.recover()
        drain(worker, log)
        assert [x.value for x in read_dead_letters(log)] == BAD
        assert replay_dead_letters(log, now_ms=0).sent == 3
        drain(worker, log)
        worker.checkpoint()
        worker.close()
        assert [x.replayed for x in read_dead_letters(log)] == [True] * 3 + [False] * 3
        assert verify(config, log, tmp_path / "state", tmp_path / "scratch").difference == ""


def run(*words: str) -> tuple[int, str, BaseException | None]:
    result = CliRunner().invoke(app, ["dead-letters", *words])
    return result.exit_code, result.stdout, result.exception


def test_the_commands(tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'log'}"
    with open_log(url) as log:
        log.create_topics(topics.topic_specs(2))
        log.append([letter(v, "bad_id", i) for i, v in enumerate(BAD)])
    code, said, _ = run("list", "--log", url, "--limit", "2", "--reason", "bad_id")
    assert code == 0
    assert [line.split()[0] for line in said.splitlines()] == ["0:1", "0:2"]
    code, said, _ = run("show", "0:1", "--log", url)
    assert code == 0
    assert "behavior-events[1] offset 1" in said
    assert r"\xff\x1b[2J" in said  # a terminal is not to obey a stranger's record
    assert "\x1b" not in said
    raw = CliRunner().invoke(app, ["dead-letters", "show", "0:1", "--raw", "--log", url])
    assert raw.stdout_bytes == BAD[1]
    assert run("replay", "--log", url)[1] == "3 letters sent again to behavior-events\n"
    assert run("replay", "--log", url)[1] == "0 letters sent again to behavior-events\n"
    assert "(sent again)" in run("list", "--log", url)[1]
    assert run("list", "--waiting", "--log", url)[1] == ""


@pytest.mark.parametrize("place", ["1:0", "x", "0:", "-1", "0:٣"])
def test_a_place_that_is_none_is_refused(tmp_path: Path, place: str) -> None:
    assert isinstance(run("show", "--log", f"file://{tmp_path}", "--", place)[2], DeadLetterError)


def test_a_file_log_in_use_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*_: Any, **__: Any) -> EventLog:
        raise LogInUse("log: another process is its writer: stop it")

    monkeypatch.setattr("intentstream.cli.dead_letters.open_log", taken)
    assert isinstance(run("replay", "--log", f"file://{tmp_path}")[2], LogInUse)
