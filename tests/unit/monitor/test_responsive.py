"""The thread that answers requests is never held for long, whatever a request holds."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from monitor.api import events
from monitor.api.events import judge, split_events
from monitor.config import MonitorConfig
from monitor.http.problems import Problem
from monitor.service import Service
from stream.log import EventLog
from tests.unit.monitor.conftest import NOW_MS
from tests.unit.monitor.loops import run_alone

JSON, LINES = "application/json", "application/x-ndjson"
BODY = 8 << 20
DIGITS = b'{"user":%s,"item":"i","ts":%d}' % (b"7" * 4299, NOW_MS)
NESTED = b'{"user":"u","item":' + b"[" * 4000
SLOW = {
    "digits": DIGITS,
    "nested": NESTED,
    "unknown action": b'{"user":"u","item":"i","ts":%d,"action":"stare"}' % NOW_MS,
    "not finite": b'{"user":"u","item":"i","ts":1e999}',
    "long text": b'{"user":"%s","item":"i","ts":%d}' % ("é".encode() * 2000, NOW_MS),
}


@pytest.mark.parametrize("kind", SLOW)
def test_events_are_decoded_in_short_parts(
    tmp_path: Path, log: EventLog, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(log, MonitorConfig(), tmp_path / "view", None)
    values = [SLOW[kind]] * min(10_000, BODY // len(SLOW[kind]))

    decode = service.decoder.decode
    between: list[list[bytes | None]] = [[]]  # what was decoded from one turn of another task to its next

    def counting(values: Sequence[bytes | None], *others: Any) -> Any:
        between[-1] += values
        return decode(values, *others)

    monkeypatch.setattr(service.decoder, "decode", counting)

    async def judge_beside_another_task() -> None:
        async def other() -> None:
            while True:
                between.append([])
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        judged = await judge(service, values)
        task.cancel()
        assert len(judged.refused) == len(values) and not judged.messages
        assert [one.index for one in judged.refused] == list(range(len(values)))

    try:
        run_alone(judge_beside_another_task())
    finally:
        service.view.close()
    assert sum(map(len, between)) == len(values)
    for decoded in between:  # a record is judged in time linear in its bytes: tests/unit/stream/schema/test_events.py
        assert len(decoded) <= 256
        assert len(decoded) == 1 or sum(len(value or b"") for value in decoded) <= 16 * 1024


BODIES = {
    "an array of numbers": (JSON, b"[" + b"1," * (BODY // 2 - 2) + b"1]", 413),
    "an object of many values": (JSON, b'{"a":[' + b"[]," * 150_000 + b"1]}", None),
    "empty lines": (LINES, b"\n" * BODY, 413),
    "blank lines": (LINES, b" \n" * (BODY // 2), 413),
    "blanks": (JSON, b" " * BODY, 400),
    "open brackets": (JSON, b"[" * BODY, 400),
    "one long text": (JSON, b'"' + b"\\u00e9" * (BODY // 6 - 1) + b'"', None),
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_is_split_at_once_or_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: the bytes given to the parsers, and the memory of what they make."""
    content_type, body, status = BODIES[kind]
    parsed = 0

    def counting(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        def counted(data: bytes) -> Any:
            nonlocal parsed
            parsed += len(data)
            return parse(data)

        return counted

    for name in ("_split_array", "_check_json", "wrap_bare_numbers"):
        monkeypatch.setattr(events, name, counting(getattr(events, name)))
    tracemalloc.start()
    try:
        if status is None:
            assert len(split_events(content_type, body, 10_000)) == 1
        else:
            with pytest.raises(Problem) as caught:
                split_events(content_type, body, 10_000)
            assert caught.value.status == status
        made = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert parsed <= 2 * len(body)
    assert made <= 2 * len(body)


def test_some_empty_lines_are_no_fault() -> None:
    assert len(split_events(LINES, b"\n{}\n\n" * 2, 3)) == 2
    assert msgspec.json.decode(split_events(JSON, b'[{"a":[1,2,3]},2]', 2)[0]) == {"a": [1, 2, 3]}
