from __future__ import annotations

from monitor.http.sse import Listener, encode_events
from stream.log.base import RecordBatch
from stream.schema import topics
from tests.unit.monitor.loops import run_alone


def batch(*values: bytes | None) -> RecordBatch:
    count = len(values)
    return RecordBatch(
        topics.METRICS, 1, [7 + i for i in range(count)], [b"w"] * count, list(values), [0] * count, [()] * count, 9
    )


def test_records_become_events_with_their_offset_as_id() -> None:
    sent = list(encode_events(batch(b'{"a":1}', None, b"two\r\nlines \xff"), None))
    assert sent == [
        b'event: message\ndata: {"a":1}\nid: 1-7\n\n',
        b'event: tombstone\ndata: {"key":"w"}\nid: 1-8\n\n',
        b"event: message\ndata: two\ndata: lines \xef\xbf\xbd\nid: 1-9\n\n",
    ]
    assert list(encode_events(batch(b"{}"), b"someone else")) == []


def test_a_slow_client_loses_the_oldest_events_and_reads_how_many() -> None:
    async def read() -> list[bytes]:
        listener = Listener(topics.METRICS, None)
        listener.put([b"%d;" % i for i in range(300)])
        listener.put([b"%d;" % i for i in range(300, 1000)])
        events = listener.events()
        return [await anext(events) for _ in range(3)]

    connected, dropped, waiting = run_alone(read())
    assert connected == b": connected\n\n"
    assert dropped == b'event: dropped\ndata: {"events":500}\n\n'
    assert waiting == b"".join(b"%d;" % i for i in range(500, 1000))
