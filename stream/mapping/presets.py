"""Shapes that many people have, by name: event formats of tools, and the public data sets of the field."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from stream.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Preset:
    """Paths of a shape, as in the section `[events]`.

    Attributes
    ----------
    about
        What has this shape, in a few words.
    roots
        Objects that paths start in before they start in the record.
    actions
        Translations; to "" for records that are skipped.
    stream
        Whether it is a format of messages, in which records without an item are no events but nothing bad.
    """

    about: str
    user: str
    item: str
    ts: str
    action: str = ""
    value: str = ""
    roots: tuple[str, ...] = ()
    where: Mapping[str, str] = field(default_factory=dict)
    actions: Mapping[str, str] = field(default_factory=dict)
    time_format: str = ""
    time_origin: str = ""
    stream: bool = False


_USER: Final = "user|user_id|userId|customer_id|customerId|visitor_id|visitorId|account_id|session_id|sessionId"
_ITEM: Final = "item|item_id|itemId|product_id|productId|article_id|sku|track_id|movie_id|content_id"
_TS: Final = "ts|timestamp|event_time|eventTime|created_at|createdAt"
_ACTION: Final = "action|event_type|eventType|event"
_VALUE: Final = "value|rating|price"

_ECOMMERCE: Final = {  # names of Segment's e-commerce specification
    "Product Viewed": "view",
    "Product Clicked": "click",
    "Product Added": "cart",
    "Product Added to Wishlist": "click",
    "Wishlist Product Added to Cart": "cart",
    "Order Completed": "purchase",
    "Product Reviewed": "rate",
    **dict.fromkeys(["Product List Viewed", "Product List Filtered", "Products Searched", "Product Removed"], ""),
    **dict.fromkeys(["Product Removed from Wishlist", "Cart Viewed", "Checkout Started", "Order Updated"], ""),
    **dict.fromkeys(["Order Refunded", "Order Cancelled", "Product Shared", "Promotion Viewed"], ""),
}
_SEGMENT_ITEM: Final = "properties.products[].product_id|properties.products[].sku|properties.product_id|properties.sku"
_GA4_ACTIONS: Final = {
    "view_item": "view",
    "select_item": "click",
    "add_to_cart": "cart",
    "add_to_wishlist": "click",
    "purchase": "purchase",
    **dict.fromkeys(["view_item_list", "remove_from_cart", "view_cart", "begin_checkout", "add_payment_info"], ""),
    **dict.fromkeys(["add_shipping_info", "refund", "view_promotion", "select_promotion", "in_app_purchase"], ""),
}
_SNOWPLOW: Final = "contexts_com_snowplowanalytics_snowplow_ecommerce_product_1[]"
_SNOWPLOW_ACTION: Final = "unstruct_event_com_snowplowanalytics_snowplow_ecommerce_snowplow_ecommerce_action_1"

_TOOLS: Final[dict[str, Preset]] = {
    "segment": Preset(
        "Segment and RudderStack: track calls of the e-commerce specification",
        user="userId|anonymousId",
        item=_SEGMENT_ITEM,
        ts="timestamp|originalTimestamp|sentAt|receivedAt",
        action="event",
        value="properties.products[].price|properties.price",
        where={"type": "track"},
        actions=_ECOMMERCE,
        stream=True,
    ),
    "snowplow": Preset(
        "Snowplow: enriched events as JSON, with the e-commerce contexts",
        user="user_id|domain_userid|network_userid",
        item=f"{_SNOWPLOW}.id|{_SNOWPLOW_ACTION}.product_id|se_property|se_label",
        ts="derived_tstamp|collector_tstamp|dvce_created_tstamp",
        action=f"{_SNOWPLOW_ACTION}.type|se_action|event_name",
        value=f"{_SNOWPLOW}.price|se_value",
        actions={
            "product_view": "view",
            "list_click": "click",
            "add_to_cart": "cart",
            "transaction": "purchase",
            **dict.fromkeys(["list_view", "remove_from_cart", "checkout_step", "promo_view", "promo_click"], ""),
            **dict.fromkeys(["refund", "trans_error"], ""),
        },
        stream=True,
    ),
    "ga4": Preset(
        "Google Analytics 4: rows of the BigQuery export as JSON",
        user="user_id|user_pseudo_id",
        item="items[].item_id|event_params[key=item_id].value.string_value",
        ts="event_timestamp",
        action="event_name",
        value="items[].price|event_params[key=value].value.double_value",
        actions=_GA4_ACTIONS,
        stream=True,
    ),
    "ga4-measurement": Preset(
        "Google Analytics 4: requests of the Measurement Protocol",
        user="user_id|client_id|app_instance_id",
        item="events[].params.items[].item_id",
        ts="events[].timestamp_micros|timestamp_micros",
        action="events[].name",
        value="events[].params.items[].price",
        actions=_GA4_ACTIONS,
        stream=True,
    ),
    "cloudevents": Preset(
        "CloudEvents in structured mode; the fields are in data or data_base64",
        user=_USER,
        item=_ITEM + "|subject",
        ts=f"{_TS}|time",
        action=f"{_ACTION}|type",
        value=_VALUE,
        roots=("data", "data_base64"),
        where={"specversion": "1.0|0.3|0.2|0.1"},
        stream=True,
    ),
    "debezium": Preset(
        "Debezium: inserted and updated rows of a table; deleted ones are skipped",
        user=_USER,
        item=_ITEM,
        ts=f"{_TS}|source.ts_ms|payload.source.ts_ms|ts_ms|payload.ts_ms",
        action=_ACTION,
        value=_VALUE,
        roots=("after", "payload.after"),
        where={"op|payload.op": "c|r|u"},
        stream=True,
    ),
    "mixpanel": Preset(
        "Mixpanel: events of the export or of a pipeline",
        user="properties.$user_id|properties.distinct_id|distinct_id",
        item=f"{_SEGMENT_ITEM}|properties.item_id|properties.Product ID",
        ts="properties.time|properties.$time|time",
        action="event",
        value="properties.price",
        actions=_ECOMMERCE,
        stream=True,
    ),
    "posthog": Preset(
        "PostHog: events of a batch export or a destination",
        user="distinct_id|person_id",
        item=f"{_SEGMENT_ITEM}|properties.item_id",
        ts="timestamp",
        action="event",
        value="properties.price",
        actions=_ECOMMERCE,
        stream=True,
    ),
    "amplitude": Preset(
        "Amplitude: events of the export or of the HTTP API",
        user="user_id|device_id",
        item="event_properties.product_id|event_properties.item_id|event_properties.sku|event_properties.Product ID",
        ts="time|event_time|client_event_time",
        action="event_type",
        value="event_properties.price",
        actions=_ECOMMERCE,
        stream=True,
    ),
    "matomo": Preset(
        "Matomo: visits of Live.getLastVisitsDetails, with product views and orders",
        user="userId|visitorId",
        item="actionDetails[].productViewSku|actionDetails[].itemDetails[].itemSKU",
        ts="actionDetails[].timestamp|serverTimestamp",
        action="actionDetails[].type",
        actions={
            "ecommerceOrder": "purchase",
            "ecommerceAbandonedCart": "cart",
            **dict.fromkeys(["action", "goal", "download", "outlink", "event", "search"], "view"),
        },
        stream=True,
    ),
    "google-retail": Preset(
        "Google Retail and Recommendations AI: user events",
        user="userInfo.userId|visitorId",
        item="productDetails[].product.id|productEventDetail.productDetails[].id",
        ts="eventTime",
        action="eventType",
        actions={
            "detail-page-view": "view",
            "add-to-cart": "cart",
            "purchase-complete": "purchase",
            **dict.fromkeys(["home-page-view", "category-page-view", "search", "shopping-cart-page-view"], ""),
            **dict.fromkeys(["remove-from-cart", "promotion-offered", "promotion-not-offered"], ""),
        },
        stream=True,
    ),
    "personalize": Preset(
        "Amazon Personalize: interactions data sets and PutEvents requests",
        user="userId|USER_ID|sessionId",
        item="eventList[].itemId|ITEM_ID",
        ts="eventList[].sentAt|TIMESTAMP",
        action="eventList[].eventType|EVENT_TYPE",
        value="eventList[].eventValue|EVENT_VALUE",
    ),
    "activitystreams": Preset(
        "Activity Streams 2.0 and xAPI statements",
        user="actor.id|actor.account.name|actor.mbox|actor",
        item="object.id|object",
        ts="published|timestamp",
        action="type|verb.display.en-US|verb.id|verb",
        stream=True,
    ),
}
_DATA_SETS: Final[dict[str, Preset]] = {
    "retailrocket": Preset(
        "RetailRocket: events.csv",
        user="visitorid",
        item="itemid",
        ts="timestamp",
        action="event",
        actions={"addtocart": "cart", "transaction": "purchase"},
    ),
    "rees46": Preset(
        "REES46: 2019-Oct.csv and the other months",
        user="user_id",
        item="product_id",
        ts="event_time",
        action="event_type",
        value="price",
        actions={"remove_from_cart": ""},
    ),
    "otto": Preset(
        "OTTO: sessions as JSON lines, or as a table",
        user="session",
        item="events[].aid|aid",
        ts="events[].ts|ts",
        action="events[].type|type",
        actions={"clicks": "click", "carts": "cart", "orders": "purchase"},
    ),
    "hm": Preset(
        "H&M: transactions_train.csv", "customer_id", "article_id", "t_dat", action="=purchase", value="price"
    ),
    "amazon2014": Preset(
        "Amazon reviews 2014 and 2018: JSON, or ratings only",
        user="reviewerID|1",
        item="asin|2",
        ts="unixReviewTime|4",
        value="overall|3",
    ),
    "amazon2023": Preset(
        "Amazon reviews 2023: JSON or CSV", user="user_id", item="parent_asin|asin", ts="timestamp", value="rating"
    ),
    "recbole": Preset("RecBole: .inter files", "user_id", "item_id", "timestamp", value="rating"),
    "movielens": Preset(
        "MovieLens: ratings.csv, ratings.dat, u.data", "userId|1", "movieId|2", "timestamp|4", value="rating|3"
    ),
    "yoochoose": Preset("YOOCHOOSE: yoochoose-clicks.dat", user="1", item="3", ts="2", action="=click"),
    "yoochoose-buys": Preset(
        "YOOCHOOSE: yoochoose-buys.dat", user="1", item="3", ts="2", action="=purchase", value="4"
    ),
    "diginetica": Preset(
        "DIGINETICA: train-item-views.csv", "session_id|sessionId", "item_id|itemId", "eventdate", action="=view"
    ),
    "lastfm1k": Preset("Last.fm 1K: the plays of 992 users", user="1", item="5", ts="2"),
    "yambda": Preset(
        "Yambda: listens and likes; its times count from an unknown day, here from 2024-01-01",
        user="uid",
        item="item_id",
        ts="timestamp",
        action="event_type",
        actions={"listen": "view", "like": "rate", "unlike": "", "undislike": ""},
        time_format="s",
        time_origin="2024-01-01T00:00:00Z",
    ),
    "userbehavior": Preset(
        "Taobao: UserBehavior.csv",
        user="1",
        item="2",
        ts="5",
        action="4",
        actions={"pv": "view", "fav": "click", "buy": "purchase"},
    ),
    "yelp": Preset("Yelp: the reviews as JSON lines", "user_id", "business_id", "date", value="stars"),
    "goodreads": Preset(
        "Goodreads: the interactions as JSON lines", "user_id", "book_id", "date_updated|date_added", value="rating"
    ),
    "gowalla": Preset("Gowalla and Brightkite: check-ins", user="1", item="5", ts="2"),
    "foursquare": Preset("Foursquare: check-ins in New York and Tokyo", user="1", item="2", ts="8"),
    "kuairec": Preset(
        "KuaiRec and KuaiRand: interactions",
        user="user_id",
        item="video_id",
        ts="timestamp|time_ms",
        value="watch_ratio",
    ),
}
PRESETS: Final[dict[str, Preset]] = _TOOLS | _DATA_SETS
_ALIASES: Final = {"rudderstack": "segment", "h&m": "hm", "taobao": "userbehavior", "amazon2018": "amazon2014"} | {
    "xapi": "activitystreams",
    "ml": "movielens",
    "lastfm": "lastfm1k",
    "amazon-personalize": "personalize",
}


def find_preset(name: str) -> Preset:
    """The preset of a name, whatever its case.

    Raises
    ------
    ConfigError
        There is none; the message has the nearest name.
    """
    wanted = name.strip().lower()
    wanted = _ALIASES.get(wanted, wanted)
    if wanted in PRESETS:
        return PRESETS[wanted]
    near = difflib.get_close_matches(wanted, [*PRESETS, *_ALIASES], 1, 0.5)
    hint = f"the nearest is {near[0]}" if near else f"expected one of {', '.join(sorted(PRESETS))}"
    raise ConfigError(f"preset {name!r}: there is no such preset; {hint}")


__all__ = ["PRESETS", "Preset", "find_preset"]
