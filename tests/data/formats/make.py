"""Write the files of this folder: `python -m tests.data.formats.make`. What they hold is invented.

Sixty events of 17 users with 25 items, in the forms in which people have them; `cases.json` says with which arguments
each is read, and the right counts.
"""

from __future__ import annotations

import bz2
import io
import json
import random
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

FOLDER: Final = Path(__file__).parent
START_S: Final = 1_571_000_000
EVENTS, USERS, ITEMS = 60, 17, 25
_DAY: Final = datetime(2019, 8, 14, tzinfo=UTC)


class Row(NamedTuple):
    """One event: place, user, item, epoch seconds."""

    number: int
    user: int
    item: int
    ts: int

    @property
    def iso(self) -> str:
        return f"{datetime.fromtimestamp(self.ts, UTC):%Y-%m-%dT%H:%M:%S}"


def rows(seed: int = 3) -> list[Row]:
    """The events; each user and item is there at least once."""
    generator = random.Random(seed)
    users = [*range(1000, 1000 + USERS), *(generator.randrange(1000, 1000 + USERS) for _ in range(EVENTS - USERS))]
    items = [*range(500, 500 + ITEMS), *(generator.randrange(500, 500 + ITEMS) for _ in range(EVENTS - ITEMS))]
    generator.shuffle(users)
    generator.shuffle(items)
    return [Row(n, user, item, START_S + 7 * n) for n, (user, item) in enumerate(zip(users, items, strict=True))]


ROWS: Final = rows()


def table(header: str, line: Callable[[Row], str], end: str = "\n") -> bytes:
    return (end.join([*([header] if header else []), *map(line, ROWS)]) + end).encode()


def objects(made: Callable[[Row], dict[str, Any]]) -> bytes:
    return "".join(json.dumps(made(row)) + "\n" for row in ROWS).encode()


def pick(row: Row, *choices: str) -> str:
    return choices[row.number % len(choices)]


def day(row: Row) -> str:
    return f"{_DAY + timedelta(days=row.number // 4):%Y-%m-%d}"


def sessions() -> bytes:
    kinds, found = ("clicks", "carts", "orders"), dict[int, list[dict[str, Any]]]()
    for row in ROWS:
        event = {"aid": row.item, "ts": row.ts * 1000 + 5, "type": kinds[row.number % 3]}
        found.setdefault(row.user, []).append(event)
    return "".join(json.dumps({"session": user, "events": events}) + "\n" for user, events in found.items()).encode()


def segment(row: Row, event: str, properties: dict[str, Any]) -> dict[str, Any]:
    call = {"userId": str(row.user), "anonymousId": f"an{row.user}", "type": "track", "event": event}
    return call | {"messageId": f"m{row.number}", "timestamp": row.iso + ".000Z", "properties": properties}


def text_files() -> dict[str, bytes]:
    """Contents by name, without containers and Parquet."""
    plain = "user_id,item_id,timestamp"
    return {
        "retailrocket_events.csv": table(
            "timestamp,visitorid,event,itemid,transactionid",
            lambda r: f"{r.ts}123,{r.user},{pick(r, 'view', 'view', 'addtocart', 'transaction')},{r.item},",
        ),
        "rees46.csv": table(
            "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session",
            lambda r: (
                f"{r.iso.replace('T', ' ')} UTC,{pick(r, 'view', 'cart', 'purchase')},{r.item},205301,"
                f"electronics.smartphone,b,489.07,{r.user},s{r.user}"
            ),
        ),
        "yoochoose-clicks.dat": table("", lambda r: f"{r.user},{r.iso}.277Z,{r.item},0"),
        "UserBehavior.csv": table(
            "", lambda r: f"{r.user},{r.item},{4000 + r.item % 5},{pick(r, 'pv', 'fav', 'cart', 'buy')},{r.ts}"
        ),
        "otto.jsonl": sessions(),
        "amazon2023_5core.csv": table(
            "user_id,parent_asin,rating,timestamp", lambda r: f"AE{r.user},B{r.item:09},5.0,{r.ts}000"
        ),
        "lastfm1k.tsv": table(  # newest first
            "",
            lambda r: (
                f"user_{r.user:06}\t{datetime.fromtimestamp(START_S + 7 * (EVENTS - r.number), UTC):%Y-%m-%dT%H:%M:%S}Z"
                f"\tmb-{r.item}\tArtist {r.item}\ttr-{r.item}\tSong"
            ),
        ),
        "hm_transactions.csv": table(
            '"t_dat","customer_id","article_id","price","sales_channel_id"',
            lambda r: f'"{day(r)}","c{r.user}","{r.item:010}",0.0508,2',
        ),
        "recbole.inter": table(
            "user_id:token\titem_id:token\trating:float\ttimestamp:float", lambda r: f"{r.user}\t{r.item}\t4\t{r.ts}"
        ),
        "diginetica-views.csv": table(
            "session_id;user_id;item_id;timeframe;eventdate", lambda r: f"{r.user};NA;{r.item};{7 * r.number};{day(r)}"
        ),
        "yambda.csv": table(
            "uid,timestamp,item_id,is_organic,played_ratio_pct", lambda r: f"{r.user},{5 * r.number},{r.item},1,100"
        ),
        "ml-25m.csv": table("userId,movieId,rating,timestamp", lambda r: f"{r.user},{r.item},4.5,{r.ts}"),
        "decimal_comma.csv": table("user_id;item_id;rating;timestamp", lambda r: f"{r.user};{r.item};4,5;{r.ts}"),
        "bad_value.csv": table(
            "user_id,item_id,timestamp,rating", lambda r: f"{r.user},{r.item},{r.ts},{pick(r, '5', 'N/A')}"
        ),
        "iso_offset.csv": table(
            plain,
            lambda r: f"{r.user},{r.item},{datetime.fromtimestamp(r.ts + 7200, UTC):%Y-%m-%dT%H:%M:%S}+02:00",
        ),
        "iso.jsonl": objects(lambda r: {"user": str(r.user), "item": str(r.item), "ts": r.iso + "Z"}),
        "float_ids.csv": table(plain, lambda r: f"{r.user}{pick(r, '', '.0')},{r.item},{r.ts}"),
        "nan_ids.csv": table(plain, lambda r: f"{r.user if r.number % 4 else 'nan'},{r.item},{r.ts}"),
        "space_ids.csv": table(plain, lambda r: f"{r.user}{pick(r, '', ' ')},{r.item},{r.ts}"),
        "zeros.csv": table(plain, lambda r: f"{pick(r, '7', '007')},{r.item},{r.ts}"),
        "quoted_newlines.csv": table(
            "user_id,item_id,timestamp,comment",
            lambda r: f"{r.user},{r.item},{r.ts}," + pick(r, '"good\nvery good"', "good", '"a, b"'),
        ),
        "utf16.csv": table(plain, lambda r: f"{r.user},{r.item},{r.ts}").decode().encode("utf-16"),
        "swapped.tsv": table("item_id\tuser_id\trating\ttimestamp", lambda r: f"{r.item}\t{r.user}\t5\t{r.ts}"),
        "user_item_rating.txt": table("", lambda r: f"{r.user} {r.item} {1 + r.number % 5}"),
        "prose.md": b"# A page\n\n" + b"This is no data at all, only words about it.\n" * 14,
        "dislikes_in_event.csv": table("user,item,ts,event", lambda r: f"{r.user},{r.item},{r.ts},dislike"),
        "unused_columns.csv": table("user,item,ts,colour", lambda r: f"{r.user},{r.item},{r.ts},red"),
        "nested.jsonl": objects(lambda r: {"user": {"id": str(r.user)}, "item": {"id": str(r.item)}, "ts": r.ts}),
        "all_refused.jsonl": objects(lambda r: {"user": str(r.user), "item": str(r.item), "ts": "soon"}),
        "ttl.csv": b"user,item,ts\nb,y,1599999999\na,x,1600000000\na,y,1620000000\n",
        "segment.jsonl": objects(
            lambda r: segment(r, pick(r, "Product Viewed", "Product Added"), {"product_id": str(r.item), "price": 10.5})
        ),
        "segment_orders.jsonl": objects(
            lambda r: segment(
                r,
                "Order Completed",
                {"order_id": f"o{r.number}", "products": [{"product_id": f"{x}{r.item}"} for x in ("", "x")]},
            )
        ),
        "debezium.jsonl": objects(
            lambda r: {
                "before": None,
                "after": {"user": str(r.user), "item": str(r.item), "ts": r.ts * 1000},
                "source": {"ts_ms": r.ts * 1000},
                "op": "c",
                "ts_ms": r.ts * 1000 + 5,
            }
        ),
        "cloudevents.jsonl": objects(
            lambda r: {
                "specversion": "1.0",
                "type": "com.shop.viewed",
                "source": "/web",
                "id": str(r.number),
                "time": r.iso + "Z",
                "data": {"user": str(r.user), "item": str(r.item)},
            }
        ),
    }


def packed_files() -> dict[str, bytes]:
    """Contents of the compressed files by name."""
    plain = table("user_id,item_id,timestamp", lambda r: f"{r.user},{r.item},{r.ts}")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("e.csv", (2020, 1, 1, 0, 0, 0)), plain)
    return {"plain.csv.bz2": bz2.compress(plain), "plain.zip": buffer.getvalue()}


def parquet_frames() -> dict[str, Any]:
    """Tables by name of their file."""
    import polars

    users, items = [row.user for row in ROWS], [row.item for row in ROWS]
    return {
        "float_ids.parquet": polars.DataFrame(
            {
                "user_id": [float(user) for user in users],
                "item_id": [float(item) for item in items],
                "timestamp": [row.ts for row in ROWS],
            }
        ),
        "text_times.parquet": polars.DataFrame(
            {"user_id": users, "item_id": items, "timestamp": [row.iso.replace("T", " ") for row in ROWS]}
        ),
    }


def main() -> None:
    for name, data in (text_files() | packed_files()).items():
        (FOLDER / name).write_bytes(data)
    for name, frame in parquet_frames().items():
        frame.write_parquet(FOLDER / name)


if __name__ == "__main__":
    main()
