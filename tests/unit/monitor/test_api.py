from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.api.events import split_events
from monitor.config import MonitorConfig
from monitor.errors import MonitorConfigError
from monitor.http.middleware import COOKIE, RateLimit, local_path, session_value
from monitor.http.problems import Problem
from monitor.server import serve
from stream.log import EventLog, Message, OffsetRange, open_log
from stream.mapping.config import EventsConfig
from stream.schema import topics
from stream.schema.decoder import decode_events
from tests.unit.monitor.conftest import NOW_MS, MakeClient, until
from tests.unit.monitor.feed import Feed, encode, history

TOKEN = "a-token-of-some-length"
HOSTILE = [
    "<script>alert(1)</script>",
    "x" * 256,
    "🛒🧺",
    "مستخدم",
    "a/b?c=d#e",
    "..%2f..",
    " x ",
    "' or 1=1 --",
    "\u202eevil",
    "\nx",
    "two\nlines\n",
]


def there(client: httpx.Client, path: str) -> Callable[[], bool]:
    return lambda: client.get(path).status_code == 200


def records(log: EventLog, topic: str) -> list[bytes | None]:
    values: list[bytes | None] = []
    for partition, end in enumerate(log.end_offsets(topic)):
        values += log.read(OffsetRange(topic, partition, log.begin_offsets(topic)[partition], end)).values
    return values


def test_every_answer_says_what_the_topics_say(log: EventLog, make_client: MakeClient) -> None:
    feed = Feed(start_ms=NOW_MS)
    messages = history(feed, 40)
    log.append(messages)
    client = make_client()
    until(
        lambda: (
            not any(client.get("/status").json()["monitor_lag"].values())
            and client.get("/intents").json()["intents"] != []
        )
    )
    newest = {m.key: m.value for m in messages if m.topic == topics.RECOMMENDATIONS}
    key, value = newest.popitem()
    assert key is not None and value is not None
    whole = json.loads(value)
    got = client.get(f"/recommendations/{key.decode()}", params={"k": 3}).json()
    assert got["items"] == whole["items"][:3] and got["as_of"] == whole["as_of"]
    user = client.get(f"/users/{key.decode()}").json()
    assert user["recommendations"] == whole and user["history"][0]["item"]
    assert len(client.get("/intents").json()["intents"]) == 10
    one = client.get("/intents/3").json()
    assert one["intent"]["name"] == "board games" and len(one["trail"]) == 40
    episodes = client.get("/drift").json()["episodes"]
    assert [(e["opened"]["episode"], e["closed"] is None) for e in episodes] == [(2, True), (1, False)]
    letters = client.get("/dead-letters", params={"reason": "bad_ts", "limit": 2}).json()
    assert letters["by_reason"] == {"bad_ts": feed.dead} and len(letters["letters"]) == 2
    assert client.get("/status").json()["workers"][0]["counters"]["events"] == feed.events


@pytest.mark.parametrize("user", HOSTILE)
def test_ids_of_every_kind_come_back_as_they_were(log: EventLog, make_client: MakeClient, user: str) -> None:
    feed = Feed(start_ms=NOW_MS)
    log.append(feed.event(user))
    client = make_client()
    path = f"/recommendations/{quote(user, safe='')}"
    until(there(client, path))
    assert client.get(path).json()["user"] == user
    assert client.get(f"/users/{quote(user, safe='')}").json()["history"]
    receipt = client.delete(f"/users/{quote(user, safe='')}").json()["receipt"]
    assert "no receipt of an erasure" in client.get(receipt).json()["detail"]
    log.append(feed.receipt(user))  # what the worker does
    until(there(client, receipt))
    assert client.get(receipt).json()["user"] == user


def test_events_are_in_the_log_when_the_answer_comes(log: EventLog, make_client: MakeClient) -> None:
    client = make_client()
    good = {"user": "anna", "item": "tent", "ts": NOW_MS}
    one = client.post("/events", json=good)
    assert one.status_code == 200 and one.json() == {"appended": 1, "refused": []}
    assert [json.loads(v) for v in records(log, topics.EVENTS) if v] == [good]
    batch = [
        good,
        {"user": "", "item": "x", "ts": NOW_MS},
        {"user": "b", "item": "x", "ts": 5},
        [],
        {"user": 7, "item": 8, "ts": NOW_MS},
    ]
    some = client.post("/events", json=batch).json()
    assert some["appended"] == 2
    assert [(r["index"], r["reason"]) for r in some["refused"]] == [(1, "bad_id"), (2, "bad_ts"), (3, "not_an_object")]
    lines = b'{"user":"c","item":"i","ts":%d}\n\nnot json\n' % NOW_MS
    more = client.post("/events", content=lines, headers={"content-type": "application/x-ndjson"}).json()
    assert more["appended"] == 1 and more["refused"][0]["reason"] == "not_json"
    assert len(records(log, topics.EVENTS)) == 4


@pytest.mark.parametrize("form", ["application/json", "application/x-ndjson"])
def test_a_compressed_body_is_refused_by_its_encoding(log: EventLog, make_client: MakeClient, form: str) -> None:
    body = gzip.compress(b'{"user":"anna","item":"tent","ts":%d}' % NOW_MS)
    client = make_client()
    for path in ("/events", "/recommendations"):
        headers = {"content-type": form, "content-encoding": "GZIP"}
        answer = client.post(path, content=body, headers=headers)
        assert answer.status_code == 415 and answer.headers["accept-encoding"] == "identity"
        assert answer.json()["detail"] == "content encoding 'gzip' is not supported: send the body uncompressed"
    assert not records(log, topics.EVENTS)


@pytest.mark.parametrize("form", ["application/json", "application/x-ndjson"])
def test_a_byte_order_mark_is_passed_over_and_invisible_ids_are_refused(
    log: EventLog, make_client: MakeClient, form: str
) -> None:
    client = make_client()
    good = b'{"user":"anna","item":"tent","ts":%d}' % NOW_MS
    sent = client.post("/events", content=b"\xef\xbb\xbf" + good, headers={"content-type": form})
    assert sent.json() == {"appended": 1, "refused": []}
    assert records(log, topics.EVENTS) == [good]
    for bad in (" ", "\u200b", "a\0"):
        answer = client.post("/events", json={"user": bad, "item": "tent", "ts": NOW_MS})
        assert answer.status_code == 422 and answer.json()["refused"][0]["reason"] == "bad_id"
        assert client.delete(f"/users/{quote(bad, safe='')}").status_code == 422
    assert len(records(log, topics.EVENTS)) == 1


@pytest.mark.parametrize("form", ["application/json", "application/x-ndjson"])
def test_a_bare_nan_costs_its_value_and_not_the_request(log: EventLog, make_client: MakeClient, form: str) -> None:
    events = [b'{"user":"a","item":"NaN","ts":%d,"value":NaN}' % NOW_MS, b'{"user":NaN,"item":"i","ts":%d}' % NOW_MS]
    body = b"\n".join(events) if form == "application/x-ndjson" else b"[" + b",".join(events) + b"]"
    answer = make_client().post("/events", content=body, headers={"content-type": form}).json()
    assert answer["appended"] == 1
    assert [(one["index"], one["field"], one["value"]) for one in answer["refused"]] == [(1, "user", "NaN")]
    decoded = decode_events(records(log, topics.EVENTS))
    assert (decoded.events.items, decoded.values_dropped) == (["NaN"], 1)


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"", "application/json", 400),
        (b"[]", "application/json", 422),
        (b"{", "application/json", 400),
        (b"[1,", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"{}", "", 415),
        (b"\n\n", "application/x-ndjson", 422),
        (b'{"user":"u"}', "application/json", 422),
        (b"[" + b",".join([b"{}"] * 11) + b"]", "application/json", 413),
        (b" " * 5000, "application/json", 413),
    ],
)
def test_bodies_that_cannot_be_taken(make_client: MakeClient, content: bytes, kind: str, status: int) -> None:
    client = make_client(max_batch_events=10, max_body_bytes=200_000 if content[:2] == b"[[" else 4096)
    answer = client.post("/events", content=content, headers={"content-type": kind})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status and problem["detail"]


def test_a_body_without_a_length_is_limited_too(make_client: MakeClient) -> None:
    client = make_client(max_body_bytes=1024)
    answer = client.post(
        "/events", content=iter([b"[" + b" " * 600, b" " * 600]), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 413


@given(st.lists(st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4)), min_size=1, max_size=6))
def test_bodies_are_split_into_the_records_that_came(rows: list[dict[str, object]]) -> None:
    body = json.dumps(rows).encode()
    assert [json.loads(raw) for raw in split_events("application/json; charset=utf-8", body, 10)] == rows
    lines = "\n".join(json.dumps(row) for row in rows).encode()
    assert [json.loads(raw) for raw in split_events("application/x-ndjson", lines, 10)] == rows
    with pytest.raises(Problem):
        split_events("application/json", body, 0)


def test_an_idempotency_key_appends_once_also_after_a_restart(
    log: EventLog, tmp_path: Path, make_client: MakeClient
) -> None:
    client = make_client()
    headers = {"Idempotency-Key": "order-17"}
    event = {"user": "anna", "item": "tent", "ts": NOW_MS}
    first = client.post("/events", json=event, headers=headers)
    second = client.post("/events", json=event, headers=headers)
    assert first.json() == second.json() and second.headers["idempotent-replayed"] == "true"
    assert client.post("/events", json={**event, "item": "stove"}, headers=headers).status_code == 422
    assert len(records(log, topics.EVENTS)) == 1
    assert client.post("/events", json={"user": ""}, headers={"Idempotency-Key": "k2"}).status_code == 422
    assert (
        client.post("/events", json=event, headers={"Idempotency-Key": "k2"}).status_code == 200
    )  # a failure is not kept
    for bad in ("", "x" * 129, "with space"):
        assert client.post("/events", json=event, headers={"Idempotency-Key": bad}).status_code == 422


def test_erasing_a_user_ends_with_a_receipt(log: EventLog, make_client: MakeClient) -> None:
    feed = Feed(start_ms=NOW_MS)
    log.append(feed.event("a/b"))
    client = make_client()
    until(there(client, "/recommendations/a%2Fb"))
    answer = client.delete("/users/a%2Fb")
    assert answer.status_code == 202
    receipt = answer.json()["receipt"]
    assert client.get(receipt).status_code == 404
    erase = [v for v in records(log, topics.EVENTS) if v and b"erase" in v]
    assert json.loads(erase[0])["user"] == "a/b"
    feed.offset += 1
    log.append(feed.receipt("a/b"))  # what the worker does
    until(there(client, receipt))
    assert client.get("/recommendations/a%2Fb").status_code == 404
    user = client.get("/users/a%2Fb").json()
    assert user["history"] == [] and user["recommendations"] is None and user["erased"]["remains"]


def test_readiness_follows_the_worker_and_the_lag(log: EventLog, make_client: MakeClient) -> None:
    client = make_client(ready_max_lag=100, stale_after_s=30)
    until(there(client, "/healthz"))
    assert "no worker has reported" in client.get("/readyz").json()["detail"]
    feed = Feed(start_ms=int(time.time() * 1000), every_ms=1)
    log.append([feed.metrics()])
    until(there(client, "/readyz"))
    log.append([feed.metrics(lag=5000.0)])
    until(lambda: "5,000 records wait" in client.get("/readyz").text)
    old = Feed(start_ms=int(time.time() * 1000) + 10)
    old.now_ms += 1
    log.append([Message(topics.METRICS, b"worker-0", old.metrics(lag=0.0).value, NOW_MS)])
    until(there(client, "/readyz"))


def test_two_monitors_on_one_log_do_not_disturb_each_other(log: EventLog, make_client: MakeClient) -> None:
    feed = Feed(start_ms=int(time.time() * 1000))
    log.append([*history(feed, 10), feed.metrics(lag=0.0)])
    one, other = make_client("one"), make_client("other")
    for number, asked in enumerate((one, other)):
        event = {"user": "both", "item": f"i{number}", "ts": feed.now_ms + number}
        assert asked.post("/events", json=event).json()["appended"] == 1
    until(lambda: all(len(c.get("/users/both").json().get("history", [])) == 2 for c in (one, other)))
    for path in ("/intents", "/drift", "/dead-letters", "/users/both"):
        assert one.get(path).json() == other.get(path).json()
    assert [c.get("/readyz").status_code for c in (one, other)] == [200, 200]


def test_a_worker_that_went_silent_is_called_gone(log: EventLog, make_client: MakeClient) -> None:
    log.append([Feed(start_ms=int(time.time() * 1000) - 600_000).metrics()])
    client = make_client()
    until(lambda: client.get("/status").json()["state"] == "gone")
    assert client.get("/readyz").status_code == 503


def test_a_token_is_asked_of_everybody(log: EventLog, make_client: MakeClient) -> None:
    client = make_client(token=TOKEN)
    for path in ("/intents", "/metrics", "/docs", "/openapi.json", "/nothing"):
        answer = client.get(path)
        assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Bearer")
    for wrong in ("Bearer", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xe9"):
        assert (
            client.get(
                "/intents",
                headers={"authorization": wrong.encode("latin-1").decode("latin-1")} if wrong.isascii() else {},
            ).status_code
            == 401
        )
    assert client.get("/intents", headers={"authorization": f"bearer {TOKEN}"}).status_code == 200
    assert client.get("/healthz").status_code in (200, 503)
    cookie = {"cookie": f"{COOKIE}={session_value(TOKEN)}"}
    assert client.get("/intents", headers=cookie).status_code == 200
    event = {"user": "u", "item": "i", "ts": NOW_MS}
    assert client.post("/events", json=event, headers=cookie).status_code == 401  # the page's cookie only reads


def test_requests_are_counted_by_route_and_never_by_path(make_client: MakeClient) -> None:
    client = make_client()
    client.get("/users/anna")
    client.get("/no/such/path")
    text = client.get("/metrics").text
    assert 'intentstream_http_requests_total{method="GET",route="/users/{user}",status="4xx"} 1.0' in text
    assert 'route="other",status="4xx"} 1.0' in text and "anna" not in text


def test_a_browser_without_the_token_is_sent_to_the_form_and_comes_back(make_client: MakeClient) -> None:
    client = make_client(token=TOKEN)
    html = {"accept": "text/html"}
    for path, wanted in (
        ("/", "/login"),
        ("/user?id=a%26b", "/login?next=%2Fuser%3Fid%3Da%2526b"),
        ("//evil.example/", "/login"),
    ):
        answer = client.get(str(client.base_url) + path, headers=html)
        assert answer.status_code == 303 and answer.headers["location"] == wanted
    assert client.post("/events", headers=html).headers["location"] == "/login"


@pytest.mark.parametrize("path", ["//x", "/\t/x", "/\\x", "\\\\x", "https://x", "x", "", "/\n/x", "/é", "/" * 5000])
def test_only_paths_of_this_server_are_gone_back_to(path: str) -> None:
    assert local_path(path) == "/"


def test_other_sites_cannot_use_the_browser_of_an_operator(make_client: MakeClient) -> None:
    client = make_client()
    event = {"user": "u", "item": "i", "ts": NOW_MS}
    assert client.get("/intents", headers={"host": "evil.example"}).status_code == 421
    assert client.post("/events", json=event, headers={"origin": "https://evil.example"}).status_code == 403
    answer = client.get("/intents")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"


def test_an_origin_is_scheme_host_and_port(make_client: MakeClient) -> None:
    client = make_client(allowed_origins=["https://shop.example"], allowed_hosts=["shop.example"])
    event = {"user": "u", "item": "i", "ts": NOW_MS}
    port = client.base_url.port

    def post(origin: str, host: str = "") -> int:
        headers = {"origin": origin, **({"host": host} if host else {})}
        return client.post("/events", json=event, headers=headers).status_code

    assert post(f"http://127.0.0.1:{port}") == 200
    assert post(f"https://127.0.0.1:{port}") == 403  # another scheme is another site
    assert post("http://127.0.0.1") == 403
    assert post("http://shop.example", "shop.example:80") == 200  # the scheme's own port may be left out
    assert post("https://shop.example") == 200  # a proxy that speaks TLS
    assert post("http://shop.example") == post("null") == post("file://") == 403


@pytest.mark.parametrize("token", ["", TOKEN])
@pytest.mark.parametrize("headers", [{"host": "["}, {"host": "a]b"}, {"host": "[::1"}, {"origin": "http://["}])
def test_names_that_are_none_are_refused_and_no_fault(
    make_client: MakeClient, headers: dict[str, str], token: str
) -> None:
    client = make_client(token=token)
    given = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json", **headers}
    answer = client.post("/events", content=b"{}", headers=given)
    assert answer.status_code in (403, 421, 422)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_path_that_is_not_utf_8_names_nobody(log: EventLog, make_client: MakeClient, method: str) -> None:
    answer = make_client().request(method, "/users/%ff%fe")
    assert answer.status_code == 400
    assert "not UTF-8" in answer.json()["detail"]
    assert sum(log.end_offsets(topics.EVENTS)) == 0


def test_a_rate_is_kept_per_client_and_the_table_of_clients_is_bounded() -> None:
    now = 0.0
    limit = RateLimit(2, clock=lambda: now)
    assert [limit.allow("a") for _ in range(4)] == [True, True, False, False]
    assert limit.allow("b")
    now = 1.0
    assert [limit.allow("a") for _ in range(3)] == [True, True, False]
    for n in range(20_000):
        limit.allow(str(n))
    assert len(limit._buckets) <= 10_000


def test_too_many_requests_are_refused(make_client: MakeClient) -> None:
    client = make_client(requests_per_second=5)
    answers = [client.get("/healthz").status_code for _ in range(30)]
    assert 429 in answers


def test_a_topic_as_a_stream(log: EventLog, make_client: MakeClient) -> None:
    client = make_client(max_streams=1)
    feed = Feed(start_ms=NOW_MS)
    with client.stream("GET", "/stream/recommendations", params={"user": "anna"}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert next(lines) == ": connected"
        assert client.get("/stream/erasures").status_code == 503
        log.append([*feed.event("bert"), *feed.event("anna"), *feed.receipt("anna")])
        found = [line for line in _until_events(lines, 2) if line.startswith(("event", "data"))]
    assert found[0] == "event: message" and json.loads(found[1][6:])["user"] == "anna"
    assert found[2:] == ["event: tombstone", 'data: {"key":"anna"}']
    assert client.get("/stream/behavior-events").status_code == 422


def test_head_is_answered_wherever_get_is(log: EventLog, make_client: MakeClient) -> None:
    log.append(Feed(start_ms=NOW_MS).event("anna"))
    client = make_client(max_streams=1)
    until(there(client, "/recommendations/anna"))
    for path in ("/intents", "/recommendations/anna", "/recommendations/nobody", "/docs", "/healthz"):
        got, head = client.get(path), client.head(path)
        assert head.status_code == got.status_code and head.content == b""
        assert head.headers["content-length"] == got.headers["content-length"]
    for _ in range(3):  # no stream stays open behind it
        head = client.head("/stream/recommendations")
        assert head.status_code == 200 and head.headers["content-type"].startswith("text/event-stream")
        until(lambda: "intentstream_http_streams 0.0" in client.get("/metrics").text)
    assert client.head("/events").status_code == 405


def _until_events(lines: object, count: int) -> list[str]:
    found: list[str] = []
    for line in lines:  # type: ignore[attr-defined]  # httpx's iterator of lines
        found.append(line)
        if found.count("") > count:  # the comment ends with an empty line too
            break
    return found


def test_unknown_paths_methods_and_parameters_are_problems(make_client: MakeClient) -> None:
    client = make_client()
    cases = [("GET", "/nope", 404), ("PUT", "/events", 405), ("GET", "/intents/x", 422), ("GET", "/intents/-1", 422)]
    cases += [
        ("GET", "/recommendations/u?k=0", 422),
        ("GET", "/recommendations/u?k=101", 422),
        ("GET", "/users/" + "x" * 257, 422),
    ]
    cases += [
        ("GET", "/users/" + "%F0%9F%9B%92" * 65, 422),
        ("GET", "/intents/99999999999999999999", 422),
        ("GET", "/drift?limit=0", 422),
    ]
    for method, path, status in cases:
        answer = client.request(method, path)
        assert (path, answer.status_code) == (path, status)
        assert answer.headers["content-type"] == "application/problem+json" and answer.json()["status"] == status


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/recommendations/u?kk=3", "there is no query parameter 'kk'; did you mean 'k'?"),
        ("/recommendations/u?colour=red", "there is no query parameter 'colour'; this route has k, exclude"),
        ("/recommendations/u?k=3&k=4", "the query parameter 'k' stands twice"),
        ("/drift?Limit=1", "there is no query parameter 'Limit'; did you mean 'limit'?"),
        ("/users/u?k=1", "there is no query parameter 'k'; this route has none"),
        ("/healthz?x", "there is no query parameter 'x'; this route has none"),
    ],
)
def test_a_query_parameter_without_effect_is_refused(make_client: MakeClient, path: str, detail: str) -> None:
    answer = make_client().get(path)
    assert (answer.status_code, answer.json()["detail"]) == (400, detail)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"host": "0.0.0.0"}, "needs a `token`"),
        ({"token": "x" * 16, "token_file": "token"}, "token and token_file: give one of them"),
        ({"token": "short"}, "at least 16"),
        ({"token": "with a space in the middle"}, "printable"),
    ],
)
def test_unsafe_settings_are_refused(settings: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MonitorConfig(**settings)  # type: ignore[arg-type]  # the tests' own values


def test_the_token_is_read_from_where_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "token"
    kept.write_text(TOKEN + "\n")
    monkeypatch.setenv("MONITOR_TOKEN", TOKEN)
    for where in ({"token_file": str(kept)}, {"token_env": "MONITOR_TOKEN"}, {"token": TOKEN}):
        config = MonitorConfig(host="0.0.0.0", **where)  # type: ignore[arg-type]  # the test's own values
        assert config.with_secret() == MonitorConfig(host="0.0.0.0", token=TOKEN)
    monkeypatch.delenv("MONITOR_TOKEN")
    kept.write_text("short")
    for where, words in (
        ({"token_env": "MONITOR_TOKEN"}, "token_env = 'MONITOR_TOKEN': it holds no token"),
        ({"token_file": str(kept)}, "token_file = .*at least 16"),
        ({"token_file": str(tmp_path / "none")}, "token_file = .*cannot be read: No such file"),
    ):
        with pytest.raises(MonitorConfigError, match=words) as caught:
            MonitorConfig(**where).with_secret()  # type: ignore[arg-type]
        assert TOKEN not in str(caught.value)


def test_the_description_names_every_route_and_loads_nothing_from_elsewhere(make_client: MakeClient) -> None:
    client = make_client()
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) >= {
        "/events",
        "/recommendations/{user}",
        "/users/{user}",
        "/intents",
        "/stream/{topic}",
    }
    for path, kind in (("/metrics", "text/plain"), ("/stream/{topic}", "text/event-stream")):
        assert list(document["paths"][path]["get"]["responses"]["200"]["content"]) == [kind]
    page = client.get("/docs").text
    assert "http://" not in page.replace("http://127.0.0.1:8050", "") and "https://" not in page
    assert encode(document)


def test_events_of_another_shape_are_appended_as_they_came(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/log"
    events = EventsConfig(topic="calls", preset="segment")
    view = {"type": "track", "event": "Product Viewed", "timestamp": "2026-01-01T00:00:00Z"}
    order = view | {"userId": "u", "event": "Order Completed", "properties": {"products": [{"sku": 1}, {"sku": 2}]}}
    page = {"type": "page", "userId": "u"}
    with ExitStack() as stack:
        log = stack.enter_context(open_log(url))
        log.create_topics(topics.topic_specs(1, "calls"))
        reader, producer = (stack.enter_context(open_log(url, mode=mode)) for mode in ("reader", "producer"))
        config = MonitorConfig(port=0, poll_interval_s=0.01)
        address = stack.enter_context(serve(reader, config, tmp_path / "v", producer, events=events, page=False))
        client = stack.enter_context(httpx.Client(base_url=address, timeout=20))
        bad = order | {"properties": {"products": [{"sku": 3}, {"sku": [4]}]}}
        answer = client.post("/events", json=[order, page, view | {"userId": "u", "properties": {}}, bad]).json()
        assert answer["appended"] == 1
        assert [(one["index"], one["field"]) for one in answer["refused"]] == [(2, "item"), (3, "item")]
        assert client.post("/events", json=page).json() == {"appended": 0, "refused": []}
        assert [json.loads(value or b"") for value in records(log, "calls")] == [order]
        until(lambda: len(client.get("/users/u").json().get("history", [])) == 2)
        assert client.delete("/users/u").status_code == 202
        until(lambda: client.get("/users/u").json().get("history") in (None, []))
