"""Lists made on request: a real worker's checkpoint, a real monitor that ranks with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from intentstream.config import Config
from monitor import MonitorConfig, serve
from stream.log import EventLog, open_log
from stream.schema import topics
from stream.serving import CheckpointRanker
from stream.worker.worker import Worker
from tests.unit.monitor.conftest import until
from tests.unit.stream.streams import START_MS, as_messages, events, small_config


class Shop:
    """A worker that has learned from 600 events, and a client of a monitor that reads its checkpoints."""

    def __init__(
        self, config: Config, log: EventLog, worker: Worker, ranker: CheckpointRanker, client: httpx.Client
    ) -> None:
        self.config, self.log, self.worker, self.ranker, self.client = config, log, worker, ranker, client

    def work(self, records: list[bytes]) -> None:
        """Let the worker take the records and write a checkpoint, and the ranker load it."""
        self.log.append(as_messages(records))
        ends = self.log.end_offsets(topics.EVENTS)
        while any(self.worker.engine.positions[p] < end for p, end in enumerate(ends)):
            self.worker.turn()
        self.worker.checkpoint()
        self.ranker.refresh()

    def get(self, path: str, status: int = 200) -> Any:
        answer = self.client.get(path)
        assert answer.status_code == status, answer.text
        return answer.json()

    def post(self, body: Any, status: int = 200) -> Any:
        answer = self.client.post("/recommendations", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def items(self, path: str) -> list[str]:
        return [one["item"] for one in self.get(path)["items"]]


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Shop]:
    config = small_config(url=f"file://{tmp_path / 'log'}")
    with open_log(config.log.url) as log, ExitStack() as stack:
        log.create_topics(topics.topic_specs(config.log.partitions))
        worker = stack.enter_context(closing(Worker(config, log, tmp_path / "state")))
        worker.recover()
        reader = stack.enter_context(open_log(config.log.url, mode="reader"))
        ranker = CheckpointRanker(config, tmp_path / "state")  # without its thread: the tests say when it looks
        chosen = MonitorConfig(port=0, poll_interval_s=0.01, requests_per_second=1e6)
        url = stack.enter_context(serve(reader, chosen, tmp_path / "view", None, ranker=ranker, page=False))
        yield Shop(config, log, worker, ranker, stack.enter_context(httpx.Client(base_url=url, timeout=20)))


@pytest.fixture
def shop(empty: Shop) -> Shop:
    empty.work(events(600))
    until(lambda: set(empty.get("/status")["monitor_lag"].values()) == {0})
    return empty


def test_before_the_first_checkpoint_the_answer_says_so(empty: Shop) -> None:
    for path in ("/recommendations/nobody", "/popular", "/items/i1/similar"):
        answer = empty.client.get(path)
        assert answer.status_code == 503 and "no checkpoint" in answer.json()["detail"]
        assert answer.headers["retry-after"] == "5"
    assert "no checkpoint" in empty.post({"events": []}, 503)["detail"]


def test_an_unknown_user_gets_the_popular_items(shop: Shop) -> None:
    found = shop.get("/recommendations/nobody?k=7")
    assert found["source"] == "popular" and len(found["items"]) == 7
    assert found == shop.get("/popular?k=7") == shop.post({"events": [], "k": 7})
    learner = shop.worker.engine.learner
    assert [one["item"] for one in found["items"]] == learner.item_ids(learner.popular(7))


def test_a_user_with_a_list_gets_the_published_one(shop: Shop) -> None:
    found = shop.get("/recommendations/u2?k=3")
    assert found["user"] == "u2" and found["as_of"]["offset"] >= 0
    assert len(found["items"]) == 3


def test_a_list_longer_than_the_published_one_is_ranked_for_the_users_history(shop: Shop) -> None:
    published = shop.items("/recommendations/u2?k=5")
    assert len(published) == shop.config.engine.list_len
    longer = shop.get("/recommendations/u2?k=20")
    assert len(longer["items"]) == 20 and longer["source"] == "model"
    assert len(shop.items("/recommendations/u2")) == 10
    mine = shop.worker.engine.recommend(b"u2", 20)
    assert [one["item"] for one in longer["items"]] == mine.items
    assert longer["intent"] == mine.intent and longer["step"] == shop.worker.engine.step_number


def test_excluded_items_are_replaced_by_the_next_best(shop: Shop) -> None:
    whole = shop.items("/recommendations/u2?k=20")
    unwanted = [whole[0], whole[2], whole[11]]
    query = "&".join(f"exclude={item}" for item in unwanted)
    assert shop.items(f"/recommendations/u2?k=12&{query}") == [one for one in whole if one not in unwanted][:12]
    assert shop.items(f"/recommendations/u2?k=2&{query}") == [whole[1], whole[3]]
    popular = shop.items("/popular?k=5")
    assert shop.items(f"/popular?k=4&exclude={popular[0]}") == popular[1:]


def test_a_session_is_ranked_like_the_history_of_a_user_and_nothing_is_kept(shop: Shop) -> None:
    ends = {topic: shop.log.end_offsets(topic) for topic in (topics.EVENTS, topics.RECOMMENDATIONS)}
    digest = shop.worker.engine.digest()
    history = shop.get("/users/u2")["history"]  # newest first, which the request may be
    session = [{"item": one["item"], "ts": one["ts"], "action": one["action"]} for one in history]
    found = shop.post({"events": session, "k": 20})
    assert [one["item"] for one in found["items"]] == shop.items("/recommendations/u2?k=20")
    assert "user" not in found and "as_of" not in found
    fewer = shop.post({"events": session, "k": 3, "exclude": [found["items"][0]["item"]]})
    assert fewer["items"] == found["items"][1:4]
    assert {topic: shop.log.end_offsets(topic) for topic in ends} == ends
    assert shop.worker.engine.digest() == digest


def test_a_session_of_unknown_items_is_nobody_known(shop: Shop) -> None:
    found = shop.post({"events": [{"item": "never-seen", "ts": START_MS}]})
    assert found["source"] == "popular"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "missing required field `events`"),
        ({"events": [], "kk": 3}, "unknown field `kk`"),
        ({"events": [], "k": 0}, "`int` >= 1 - at `$.k`"),
        ({"events": [], "k": 101}, "`int` <= 100 - at `$.k`"),
        ({"events": [{"item": "i1"}]}, "missing required field `ts` - at `$.events[0]`"),
        ({"events": [{"item": "", "ts": START_MS}]}, "length >= 1 - at `$.events[0].item`"),
        ({"events": [{"item": "i1", "ts": 5}]}, ">= 631152000000 - at `$.events[0].ts`"),
        ({"events": [{"item": "i1", "ts": START_MS, "action": "lick"}]}, "events[0].action = 'lick': must be one of"),
        ({"events": [{"item": "€" * 200, "ts": START_MS}]}, "600 bytes"),
    ],
)
def test_a_session_that_is_wrong_is_refused_with_field_and_rule(shop: Shop, body: Any, words: str) -> None:
    assert words in shop.post(body, 422)["detail"]


def test_a_body_that_is_no_json_is_refused(shop: Shop) -> None:
    for body in (b"", b"{", b"\xff\xfe", b"[" * 100_000):
        answer = shop.client.post("/recommendations", content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 422), answer.text


def test_items_like_another_are_those_that_follow_it(shop: Shop) -> None:
    found = shop.get("/items/i7/similar?k=5")
    assert len(found["items"]) == 5 and "i7" not in [one["item"] for one in found["items"]]
    assert "i8" in [one["item"] for one in found["items"]]  # users walk through the items in order
    assert shop.items("/items/i7/similar?k=5&exclude=i8") != [one["item"] for one in found["items"]]
    assert "does not know" in shop.get("/items/never-seen/similar", 404)["detail"]


def test_a_newer_checkpoint_takes_the_place_of_the_model(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("state.store.UserStore.restore")  # the histories of a million users are not copied for it
    before = shop.get("/popular")["step"]
    shop.work(events(64, seed=3))
    assert shop.get("/popular")["step"] == shop.worker.engine.step_number > before


def test_a_checkpoint_that_cannot_be_read_keeps_the_model_before(
    shop: Shop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = shop.get("/popular")
    shop.worker.turn()
    newest = max((tmp_path / "state" / "checkpoints").iterdir())
    broken = newest.with_name(f"{int(newest.name) + 1:0{len(newest.name)}}")
    broken.mkdir()
    (broken / "manifest.json").write_bytes(b"{")
    shop.ranker.refresh()
    shop.ranker.refresh()
    assert shop.get("/popular") == before
