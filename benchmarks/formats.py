"""Events/s of decoding: our own JSON, JSON of other shapes by a mapping, Avro.

    python -m benchmarks.formats [--events 200000] [--passes 9]

The forms take turns in every pass, and each one's fastest pass counts: other work on the machine only slows. A ratio is
the form's pace by that of our own JSON. `direct` is the schema's decoder without the choice between the two, the pace
of our own JSON before there was a mapping; `fastavro alone` decodes the Avro records and makes no events of them. The
last line is JSON.
"""

from __future__ import annotations

import argparse
import http.server
import io
import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import fastavro

from stream.mapping.config import EventsConfig
from stream.mapping.decoder import EventDecoder, make_decoder
from stream.schema.decoder import Decoder
from stream.schema.events import ActionsConfig

BATCH: Final = 2000  # records of a step
START_MS: Final = 1_571_000_000_000
ACTIONS: Final = ("view", "cart", "purchase")
OWN: Final = "own JSON"
AVRO_FRAMED: Final = "Avro, framed"
ALONE: Final = "fastavro alone"


def own(user: str, item: str, ts: int, action: str) -> Any:
    return {"user": user, "item": item, "ts": ts, "action": action}


def flat(user: str, item: str, ts: int, action: str) -> Any:
    return {"user_id": user, "product_id": item, "event_time": ts // 1000, "event_type": action}


def nested(user: str, item: str, ts: int, action: str) -> Any:
    return {"payload": {"after": {"user_id": user, "product_id": item, "at": ts, "kind": action}}}


def segment(user: str, item: str, ts: int, action: str) -> Any:
    name = {"view": "Product Viewed", "cart": "Product Added", "purchase": "Order Completed"}[action]
    iso = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ts // 1000)) + f".{ts % 1000:03}Z"
    call = {
        "userId": user,
        "anonymousId": "a" + user,
        "type": "track",
        "event": name,
        "messageId": "m",
        "timestamp": iso,
    }
    return call | {"properties": {"product_id": item, "price": 10.5}}


FORMS: Final[dict[str, tuple[Callable[..., Any], EventsConfig]]] = {
    OWN: (own, EventsConfig()),
    "mapped JSON, flat": (
        flat,
        EventsConfig(user="user_id", item="product_id", ts="event_time", action="event_type"),
    ),
    "mapped JSON, nested": (
        nested,
        EventsConfig(
            user="payload.after.user_id",
            item="payload.after.product_id",
            ts="payload.after.at",
            action="payload.after.kind",
        ),
    ),
    "preset segment": (segment, EventsConfig(preset="segment")),
}


def make_records(shape: Callable[..., Any], count: int) -> list[bytes | None]:
    """The same events in one shape; users and items come again and again, as they do."""
    generator = random.Random(1)
    return [
        json.dumps(
            shape(
                str(generator.randrange(20_000)),
                f"i{int(generator.paretovariate(1.1)) % 5_000}",
                START_MS + 40 * number,
                generator.choices(ACTIONS, (8, 2, 1))[0],
            )
        ).encode()
        for number in range(count)
    ]


AVRO: Final = {
    "type": "record",
    "name": "Click",
    "fields": [
        {"name": "user_id", "type": "string"},
        {"name": "product_id", "type": "string"},
        {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "event_type", "type": {"type": "enum", "name": "Kind", "symbols": list(ACTIONS)}},
    ],
}


class _Registry(http.server.BaseHTTPRequestHandler):
    """A registry that has one schema."""

    def do_GET(self) -> None:  # noqa: N802  # the base class calls it so
        body = json.dumps({"schema": json.dumps(AVRO)}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing is printed."""


def make_avro(own_records: Sequence[bytes | None]) -> tuple[EventDecoder, list[bytes | None]]:
    """A decoder of framed Avro, and the records as such."""
    parsed, framed = fastavro.parse_schema(AVRO), list[bytes | None]()
    for record in map(json.loads, own_records):  # type: ignore[arg-type]  # none is missing
        written = io.BytesIO()
        fields = {"user_id": record["user"], "product_id": record["item"], "event_time": record["ts"]}
        fastavro.schemaless_writer(written, parsed, fields | {"event_type": record["action"]})
        framed.append(b"\0\0\0\0\1" + written.getvalue())
    with http.server.HTTPServer(("127.0.0.1", 0), _Registry) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        paths = {"user": "user_id", "item": "product_id", "ts": "event_time", "action": "event_type"}
        decoder = make_decoder(EventsConfig(format="avro", registry_url=url, **paths), ActionsConfig())  # type: ignore[arg-type]
        decoder.prepare(framed[:1])
        server.shutdown()
    return decoder, framed


def fastavro_seconds(records: Sequence[bytes | None]) -> float:
    """Processor time of fastavro for the framed records, without events made of them."""
    plain = fastavro.parse_schema(json.loads(json.dumps(AVRO).replace(', "logicalType": "timestamp-millis"', "")))
    began = time.process_time()
    for record in records:
        fastavro.schemaless_reader(io.BytesIO((record or b"")[5:]), plain, None)
    return time.process_time() - began


def seconds(decoder: EventDecoder, records: Sequence[bytes | None]) -> float:
    """Processor time of decoding all records, batch by batch."""
    found = 0
    began = time.process_time()
    for start in range(0, len(records), BATCH):
        part = records[start : start + BATCH]
        found += len(decoder.decode(part, [None] * len(part), [START_MS] * len(part)).events)
    took = time.process_time() - began
    assert found == len(records)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--passes", type=int, default=9)
    arguments = parser.parse_args()
    actions = ActionsConfig()
    decoders: dict[str, EventDecoder] = {name: make_decoder(events, actions) for name, (_, events) in FORMS.items()}
    records = {name: make_records(shape, arguments.events) for name, (shape, _) in FORMS.items()}
    decoders[AVRO_FRAMED], records[AVRO_FRAMED] = make_avro(records[OWN])
    decoders["direct"], records["direct"] = Decoder(actions), records[OWN]
    passes: list[dict[str, float]] = []
    for number in range(arguments.passes):
        names = list(decoders) if number % 2 else list(decoders)[::-1]
        passes.append({name: seconds(decoders[name], records[name]) for name in names})
        passes[-1][ALONE] = fastavro_seconds(records[AVRO_FRAMED])
    records[ALONE] = records[AVRO_FRAMED]
    report: dict[str, Any] = {}
    for name in (*decoders, ALONE):
        fastest = min(one[name] for one in passes)
        pace, ratio = arguments.events / fastest, min(one[OWN] for one in passes) / fastest
        size = sum(len(record or b"") for record in records[name]) / arguments.events
        print(f"{name:20} {pace:12,.0f} events/s  {ratio:5.2f} of own JSON  {size:5.0f} bytes a record")
        report[name] = {"events_per_second": round(pace), "ratio": round(ratio, 3), "bytes": round(size)}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
