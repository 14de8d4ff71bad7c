"""A sample of every preset gives the event that it holds."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from stream.mapping.config import EventsConfig
from stream.mapping.decoder import make_decoder
from stream.mapping.presets import PRESETS, find_preset
from stream.schema.events import ActionsConfig
from stream.sources.files.event_file import EventFile
from stream.sources.files.options import parse_options

TS = 1_571_000_000_000
ISO = "2019-10-13T20:53:20Z"
ROW = {"user_id": "u", "product_id": "i", "event_time": ISO, "event_type": "cart"}
ECOMMERCE = "contexts_com_snowplowanalytics_snowplow_ecommerce_product_1"
ACTION = "unstruct_event_com_snowplowanalytics_snowplow_ecommerce_snowplow_ecommerce_action_1"
MESSAGES: list[tuple[str, Any, str]] = [
    (
        "segment",
        {"type": "track", "anonymousId": "u", "event": "Product Viewed", "timestamp": ISO, "properties": {"sku": "i"}},
        "view",
    ),
    (
        "rudderstack",
        {
            "type": "track",
            "userId": "u",
            "event": "Order Completed",
            "originalTimestamp": ISO,
            "properties": {"products": [{"product_id": "i", "price": "9.5"}]},
        },
        "purchase",
    ),
    (
        "snowplow",
        {
            "user_id": "u",
            "collector_tstamp": "2019-10-13 20:53:20.000",
            "event_name": "snowplow_ecommerce_action",
            ACTION: {"type": "add_to_cart"},
            ECOMMERCE: [{"id": "i", "price": 2.5}],
        },
        "cart",
    ),
    (
        "ga4",
        {
            "event_timestamp": str(TS * 1000),
            "event_name": "purchase",
            "user_pseudo_id": "u",
            "items": [{"item_id": "i", "price": 3.5}],
            "event_params": [],
        },
        "purchase",
    ),
    (
        "ga4",
        {
            "event_timestamp": TS * 1000,
            "event_name": "view_item",
            "user_id": "u",
            "items": [],
            "event_params": [
                {"key": "page", "value": {"string_value": "/"}},
                {"key": "item_id", "value": {"string_value": "i"}},
            ],
        },
        "view",
    ),
    (
        "ga4-measurement",
        {
            "client_id": "u",
            "timestamp_micros": TS * 1000,
            "events": [{"name": "add_to_cart", "params": {"items": [{"item_id": "i"}]}}],
        },
        "cart",
    ),
    (
        "cloudevents",
        {"specversion": "1.0", "type": "com.shop.viewed", "time": ISO, "data": {"user": "u", "item": "i"}},
        "view",
    ),
    (
        "cloudevents",
        {
            "specversion": "1.0",
            "type": "x",
            "time": ISO,
            "data_base64": base64.b64encode(json.dumps(ROW).encode()).decode(),
        },
        "cart",
    ),
    ("debezium", {"op": "u", "before": ROW, "after": ROW, "ts_ms": TS + 9}, "cart"),
    ("debezium", {"schema": {}, "payload": {"op": "r", "before": None, "after": ROW}}, "cart"),
    (
        "mixpanel",
        {"event": "Product Added", "properties": {"distinct_id": "u", "time": TS // 1000, "product_id": "i"}},
        "cart",
    ),
    (
        "posthog",
        {"event": "Product Viewed", "distinct_id": "u", "timestamp": ISO, "properties": {"product_id": "i"}},
        "view",
    ),
    (
        "amplitude",
        {
            "user_id": "u",
            "event_type": "Product Clicked",
            "event_time": "2019-10-13 20:53:20.000000",
            "event_properties": {"product_id": "i"},
        },
        "click",
    ),
    (
        "matomo",
        {"visitorId": "u", "actionDetails": [{"type": "action", "timestamp": TS // 1000, "productViewSku": "i"}]},
        "view",
    ),
    (
        "google-retail",
        {
            "eventType": "detail-page-view",
            "visitorId": "u",
            "eventTime": ISO,
            "productDetails": [{"product": {"id": "i"}, "quantity": 1}],
        },
        "view",
    ),
    (
        "personalize",
        {"userId": "u", "eventList": [{"itemId": "i", "eventType": "click", "sentAt": TS // 1000}]},
        "click",
    ),
    (
        "activitystreams",
        {"type": "Like", "actor": {"id": "u"}, "object": {"id": "i"}, "published": ISO},
        "like",
    ),
    (
        "xapi",
        {"actor": {"mbox": "u"}, "verb": {"id": "http://adlnet.gov/view"}, "object": {"id": "i"}, "timestamp": ISO},
        "view",
    ),
]
TABLES: dict[str, str] = {
    "amazon2014": "u,i,5.0,1571000000\nv,j,4.0,1571000001\n",
    "yoochoose-buys": "u,2019-10-13T20:53:20.000Z,i,100,1\nv,2019-10-13T20:53:21.000Z,j,100,1\n",
    "yelp": '{"user_id": "u", "business_id": "i", "stars": 4.0, "date": "2019-10-13 20:53:20"}\n',
    "goodreads": '{"user_id": "u", "book_id": "i", "rating": 4, "date_updated": "Sun Oct 13 13:53:20 -0700 2019"}\n',
    "gowalla": "u\t2019-10-13T20:53:20Z\t30.2\t-97.7\ti\nv\t2019-10-13T20:53:21Z\t30.2\t-97.7\tj\n",
    "foursquare": "u\ti\tc\tBar\t40.7\t-74.0\t-240\tSun Oct 13 20:53:20 +0000 2019\n" * 2,
    "kuairec": "user_id,video_id,play_duration,watch_ratio,timestamp\nu,i,100,1.2,1571000000.0\n",
}


@pytest.mark.parametrize(("preset", "record", "action"), MESSAGES)
def test_a_message_of_each_tool(preset: str, record: Any, action: str) -> None:
    actions = ActionsConfig(weights_by_name={**ActionsConfig().weights_by_name, "like": 1.0})
    found = make_decoder(EventsConfig(preset=preset), actions).decode([json.dumps(record).encode()], [None])
    assert found.rejections == [] and found.skipped == 0
    events = found.events
    assert (events.users, events.items, events.ts.tolist()) == ([b"u"], ["i"], [TS])
    assert actions.names()[events.actions[0]] == action


@pytest.mark.parametrize("preset", TABLES)
def test_a_file_of_each_data_set(preset: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text(TABLES[preset])
    chunk = next(iter(EventFile(path, options=parse_options(ActionsConfig().names(), preset=preset))))
    assert (chunk.users[0], chunk.items[0], chunk.ts[0]) == ("u", "i", TS)


def test_every_preset_has_a_sample() -> None:
    by_file = (
        "retailrocket rees46 otto hm amazon2023 recbole movielens yoochoose diginetica lastfm1k yambda userbehavior"
    )
    sampled = {*by_file.split(), *TABLES, *(preset for preset, _, _ in MESSAGES)}
    assert {name for name, preset in PRESETS.items() if preset not in map(find_preset, sampled)} == set()
