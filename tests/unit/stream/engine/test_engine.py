from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from intentstream.config import Config
from state.checkpoints import CheckpointStore
from state.watermarks import Watermarks
from stream.engine.engine import Engine
from stream.engine.read_only import open_checkpoint
from stream.errors import EngineError, StateMismatch
from stream.log.base import RecordBatch
from stream.log.partitioner import partition_of
from stream.schema import topics
from stream.schema.decoder import decode_events
from stream.schema.events import ActionsConfig
from stream.schema.messages import ErasureReceipt, Recommendations
from stream.schema.user_keys import user_keys
from tests.unit.stream.streams import START_MS, as_batches, events, small_config


def run(
    config: Config, folder: Path, records: list[bytes], step: int
) -> tuple[Engine, list[tuple[str, bytes | None, bytes | None]]]:
    engine = Engine.open(config, folder)
    published = []
    for batches in as_batches(records, config.log.partitions, step):
        result = engine.step(batches)
        published += [(m.topic, m.key, m.value) for m in result.messages]
        engine.learn(engine.plan_learning(result.records, 0))
    return engine, published


def test_the_same_records_in_the_same_steps_give_the_same_bits(tmp_path: Path) -> None:
    records = events(300)
    first, one = run(small_config(), tmp_path / "a", records, 50)
    second, two = run(small_config(), tmp_path / "b", records, 50)
    assert one == two
    assert first.digest() == second.digest()


def test_another_step_size_changes_no_dead_letter_and_no_history(tmp_path: Path) -> None:
    records = events(300)
    one, published = run(small_config(), tmp_path / "a", records, 50)
    two, others = run(small_config(), tmp_path / "b", records, 17)
    assert sorted(p for p in published if p[0] == topics.DEAD_LETTERS) == sorted(
        o for o in others if o[0] == topics.DEAD_LETTERS
    )
    for name in ("events", "users", "dead_letters", "duplicates", "late"):
        assert one.counters[name] == two.counters[name] > 0
    for user in range(40):
        assert one.recommend(b"u%d" % user, 3).history == two.recommend(b"u%d" % user, 3).history
    assert one.digest() != two.digest()


@pytest.mark.parametrize("at", [1, 3])
def test_a_checkpoint_continues_with_the_same_bits(tmp_path: Path, at: int) -> None:
    config = small_config()
    steps = as_batches(events(300), 2, 50)
    whole = Engine.open(config, tmp_path / "whole")
    broken = Engine.open(config, tmp_path / "broken")
    for number, batches in enumerate(steps):
        for engine in (whole, broken):
            engine.step(batches)
            engine.learn(2)
        if number == at:
            broken.checkpoint()
            broken.step(steps[number + 1])  # lost with the crash
            broken.close()
            broken = Engine.open(config, tmp_path / "broken")
            assert broken.step_number == number + 1
    assert whole.digest() == broken.digest()


def test_a_checkpoint_written_beside_the_loop_holds_the_moment_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config()
    engine = Engine.open(config, tmp_path)
    steps = as_batches(events(400), 2, 50)
    for batches in steps[:4]:
        engine.step(batches)
        engine.learn(2)
    digest = engine.digest()
    pending = engine.begin_checkpoint()
    tracker = engine.learner.tracker
    maintain_centers = tracker.maintain_centers
    monkeypatch.setattr(
        tracker, "maintain_centers", lambda *asked: maintain_centers(*asked)._replace(absorbed=[3])
    )  # an intent dies
    for batches in steps[4:]:
        engine.step(batches)
        engine.learn(2)
    pending.finish()
    engine.close()
    assert Engine.open(config, tmp_path).digest() == digest


def test_a_list_holds_no_item_of_the_history_and_none_disliked(tmp_path: Path) -> None:
    engine, published = run(small_config(), tmp_path, events(400), 40)
    lists = [msgspec.json.decode(v, type=Recommendations) for t, _, v in published if t == topics.RECOMMENDATIONS and v]
    assert lists
    newest = {message.user: message for message in lists}
    for user, message in newest.items():
        answer = engine.recommend(user.encode(), 5)
        assert not {item.item for item in message.items} & set(answer.history)
        assert len({item.item for item in message.items}) == len(message.items)


def test_an_unknown_user_gets_popular_items(tmp_path: Path) -> None:
    engine, _ = run(small_config(), tmp_path, events(100), 40)
    answer = engine.recommend(b"nobody", 5)
    assert (answer.source, answer.intent, answer.history) == ("popular", None, [])
    assert len(answer.items) == 5


def test_erase_forgets_history_and_list_and_leaves_a_receipt(tmp_path: Path) -> None:
    records = events(200)
    records.append(json.dumps({"user": "u3", "action": "erase", "ts": START_MS}).encode())
    engine, published = run(small_config(), tmp_path, records, 50)
    assert engine.recommend(b"u3", 5).history == []
    last = [value for topic, key, value in published if topic == topics.RECOMMENDATIONS and key == b"u3"][-1]
    assert last is None
    receipts = [value for topic, key, value in published if topic == topics.ERASURES and value]
    assert msgspec.json.decode(receipts[0], type=ErasureReceipt).user == "u3"
    assert engine.counters["erased"] == 1


@pytest.mark.parametrize("step", [10, 1])
def test_events_after_an_erasure_in_the_same_step_count(tmp_path: Path, step: int) -> None:
    def event(item: str, second: int) -> bytes:
        return json.dumps({"user": "ada", "item": item, "ts": START_MS + second * 1000}).encode()

    erase = json.dumps({"user": "ada", "action": "erase"}).encode()
    engine, published = run(small_config(), tmp_path, [event("a", 0), event("b", 1), erase, event("c", 2)], step)
    assert engine.recommend(b"ada", 3).history == ["c"]
    assert (engine.counters["events"], engine.counters["erased"]) == (3, 1)
    lists = [value for topic, _, value in published if topic == topics.RECOMMENDATIONS]
    assert lists[0] is None  # the tombstone comes before the new list


def test_state_of_another_shape_is_refused_with_key_and_values(tmp_path: Path) -> None:
    config = small_config()
    engine, _ = run(config, tmp_path, events(60), 30)
    engine.checkpoint()
    engine.close()
    other = msgspec.structs.replace(config, learner=msgspec.structs.replace(config.learner, max_len=12))
    with pytest.raises(StateMismatch, match=r"learner.max_len = 10, the configuration says 12"):
        Engine.open(other, tmp_path)


def test_a_changed_list_of_actions_is_refused_and_a_longer_one_is_not(tmp_path: Path) -> None:
    config = small_config()
    engine, _ = run(config, tmp_path, events(60), 30)
    engine.checkpoint()
    engine.close()
    weights = config.actions.weights_by_name
    mixed_up = dict(reversed(weights.items())) | {"view": 1.0}
    turned = weights | {"purchase": -1.0}
    for changed in (dict(sorted(mixed_up.items())), turned):
        other = msgspec.structs.replace(config, actions=msgspec.convert({"weights": changed}, ActionsConfig))
        with pytest.raises(StateMismatch, match="made with the actions view, .*put new ones at its end"):
            Engine.open(other, tmp_path)
    longer = msgspec.convert({"weights": weights | {"share": 2.0}}, ActionsConfig)
    Engine.open(msgspec.structs.replace(config, actions=longer), tmp_path).close()


def test_a_checkpoint_can_be_read_beside_the_engine(tmp_path: Path) -> None:
    config = small_config()
    with pytest.raises(EngineError, match="no checkpoint in it yet"), open_checkpoint(config, tmp_path):
        pass
    engine, _ = run(config, tmp_path, events(100), 30)
    engine.checkpoint()
    with open_checkpoint(config, tmp_path) as read:
        assert read.recommend(b"u1", 5) == engine.recommend(b"u1", 5)
        assert read.digest() == engine.digest()


@pytest.mark.parametrize("part", ["learner.drift.episodes", "learner.drift.fallback", "learner.intents.shifts"])
def test_a_checkpoint_with_another_format_inside_is_refused_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    config = small_config()
    engine, _ = run(config, tmp_path, events(60), 30)
    engine.checkpoint()
    engine.close()
    monkeypatch.setattr(f"{part}.FORMAT", 99)
    with pytest.raises(
        StateMismatch, match=f"{tmp_path}/checkpoints/0.*: state of format .*: run the version that wrote it"
    ):
        Engine.open(config, tmp_path)


def test_accuracy_is_not_told_before_anything_was_scored_nor_right_after_a_restart(tmp_path: Path) -> None:
    def told(engine: Engine) -> set[str]:
        return {name.split("_")[0] for name in engine.gauges() if name.endswith("_hr@10")}

    assert told(Engine.open(small_config(), tmp_path / "new")) == set()
    engine, _ = run(small_config(), tmp_path / "a", events(300), 50)
    assert told(engine) == {"served", "prequential"}
    engine.checkpoint()
    engine.close()
    assert told(Engine.open(small_config(), tmp_path / "a")) == set()


def test_learning_falls_by_rule_under_backlog_but_not_below_the_floor(tmp_path: Path) -> None:
    config = small_config(backlog_records=1000, learn_steps=8, learn_floor=2)
    engine = Engine(config, tmp_path, CheckpointStore(tmp_path / "checkpoints"))
    assert [engine.plan_learning(256, backlog) for backlog in (0, 1000, 2000, 10**6)] == [8, 8, 4, 2]
    assert engine.plan_learning(0, 0) == 0


def test_small_steps_wait_until_a_tenth_of_a_mini_batch_is_there(tmp_path: Path) -> None:
    engine = Engine.open(small_config(partitions=1), tmp_path)
    planned: list[int] = []
    fresh: list[int] = []
    for (batch,) in as_batches(events(96), 1, 12):
        engine.step([batch])
        fresh.append(engine.learner.unlearned)
        planned.append(engine.plan_learning(len(batch), 0))
        engine.learn(planned[-1])
    assert planned == [int(pairs >= 26) for pairs in fresh]
    assert 2 <= planned.count(1) <= 3 and planned[:2] == [0, 0]
    assert (engine.plan_learning(25, 0), engine.plan_learning(26, 0)) == (0, 1)
    engine.close()


def test_small_steps_learn_also_where_fewer_pairs_are_kept_than_a_tenth_of_a_mini_batch(tmp_path: Path) -> None:
    config = small_config(1)
    config = msgspec.structs.replace(config, learner=msgspec.structs.replace(config.learner, recent_pairs=10))
    engine = Engine.open(config, tmp_path)
    planned: list[int] = []
    for (batch,) in as_batches(events(48), 1, 12):
        engine.step([batch])
        planned.append(engine.plan_learning(len(batch), 0))
        engine.learn(planned[-1])
    assert 1 in planned
    engine.close()


def test_another_step_size_recycles_no_other_item(tmp_path: Path) -> None:
    config = small_config(1)
    config = msgspec.structs.replace(config, learner=msgspec.structs.replace(config.learner, capacity=30))
    found = []
    for step in (300, 40):
        engine, _ = run(config, tmp_path / str(step), events(300), step)
        histories = [engine.recommend(b"u%d" % user, 3).history for user in range(40)]
        found.append((histories, engine.counters["items_admitted"], engine.counters["duplicates"]))
        engine.close()
    assert found[0] == found[1] and found[0][1] > 60


def test_full_vocabulary_recycles_and_goes_on(tmp_path: Path) -> None:
    config = small_config()
    config = msgspec.structs.replace(config, learner=msgspec.structs.replace(config.learner, capacity=20))
    engine, published = run(config, tmp_path, events(400), 40)
    assert engine.gauges()["items"] == 20
    known = {f"i{number}" for number in range(60)}
    for topic, _, value in published:
        if topic == topics.RECOMMENDATIONS and value is not None:
            assert {item.item for item in msgspec.json.decode(value, type=Recommendations).items} <= known
    assert np.isfinite(engine.last_loss)


def forgetting(ttl_ms: int, folder: Path, partitions: int = 2, window_blocks: int = 4) -> Engine:
    """An engine whose clocks go on every few events."""
    config = small_config(partitions)
    config = msgspec.structs.replace(config, state=msgspec.structs.replace(config.state, history_ttl_ms=ttl_ms))
    engine = Engine.open(config, folder)
    engine.clocks = Watermarks(partitions, ttl_ms, block_events=8, window_blocks=window_blocks)
    return engine


def test_a_forgotten_user_is_nobody_before_the_sweep_has_come_by(tmp_path: Path) -> None:
    ttl = 80_000
    engine = forgetting(ttl, tmp_path)
    engine.store.sweep = lambda *_, **__: 0  # type: ignore[method-assign]
    clocks, seen = Watermarks(2, ttl, block_events=8, window_blocks=4), dict[bytes, int]()
    for batches in as_batches(events(600, users=200), 2, 100):
        engine.step(batches)
        for batch in batches:
            found = decode_events(batch.values)
            ts, partition = found.events.ts, np.full(len(found.events), batch.partition)
            came = np.maximum(ts, clocks.advance(partition, ts, user_keys(found.events.users)))
            for user, at in zip(found.events.users, came.tolist(), strict=True):
                seen[user] = max(seen.get(user, 0), at)
    forgotten = {user for user, at in seen.items() if at < clocks.now[partition_of(user, 2)] - 2 * ttl}
    assert 0 < len(forgotten) < len(seen)
    held = {user.encode() for user, _ in engine.user_intents()}
    assert held and not held & forgotten
    for user in forgotten:
        assert engine.recommend(user, 3).source == "popular"
        assert engine.explain(user, 3).held is None
    engine.close()


@pytest.mark.parametrize("order", ["in order", "by user"])
def test_another_step_size_forgets_no_other_user(tmp_path: Path, order: str) -> None:
    """Sixty users, twice ten clicks each; somebody comes every eight seconds."""
    clicks = [
        (START_MS + 8_000 * visit + 5_000 * click, visit % 60, f"i{(7 * visit + click) % 50}")
        for visit in range(120)
        for click in range(10)
    ]
    clicks.sort(key=(lambda click: click[0]) if order == "in order" else (lambda click: click[1]))
    records = [json.dumps({"user": f"u{user}", "item": item, "ts": ts}).encode() for ts, user, item in clicks]
    found = []
    for step in (1200, 50):
        engine = forgetting(60_000, tmp_path / str(step), window_blocks=4 if order == "in order" else 1)
        for batches in as_batches(records, 2, step):
            engine.step(batches)
            engine.learn(0)
        histories = [engine.recommend(b"u%d" % user, 3).history for user in range(60)]
        counted = [engine.counters[name] for name in ("events", "users", "duplicates", "late")]
        found.append((histories, counted, engine.clocks.to_state()))
        engine.close()
    assert found[0] == found[1]
    lengths = list(map(len, found[0][0]))
    assert 0 < lengths.count(0) < 60 and lengths.count(10) > 5, "what comes together stays together, however late"


def test_users_unseen_for_long_are_forgotten_and_wrong_times_forget_nobody(tmp_path: Path) -> None:
    day = 24 * 3600 * 1000
    engine = forgetting(4 * day, tmp_path, partitions=1)

    def block(user: str, ts: int) -> None:
        values: list[bytes | None] = [
            json.dumps({"user": user, "item": f"x{number}", "ts": ts}).encode() for number in range(8)
        ]
        at = engine.positions[0]
        offsets = list(range(at, at + 8))
        engine.step([RecordBatch(topics.EVENTS, 0, offsets, [None] * 8, values, [0] * 8, [()] * 8, at + 8)])
        engine.learn(0)

    block("old", START_MS)
    block("mad", START_MS + 900 * day)
    block("new", START_MS + day)
    assert len(engine.recommend(b"old", 3).history) == 8
    for number in range(2, 14):
        block("new", START_MS + number * day)
    assert engine.recommend(b"old", 3).history == []
    engine.checkpoint()
    digest = engine.digest()
    engine.close()
    again = Engine.open(engine.config, tmp_path)
    assert again.digest() == digest
    again.close()


def test_small_steps_look_at_few_users_to_forget(tmp_path: Path) -> None:
    asked: list[int] = []

    def sweep(now: object, *, max_users: int) -> int:
        asked.append(max_users)
        return 0

    for records in (14, 100, 400):
        engine = Engine.open(small_config(), tmp_path / str(records))
        engine.store.sweep = sweep  # type: ignore[method-assign]
        engine.step(as_batches(events(records), 2, records)[0])
        engine.learn(1)
        engine.close()
    assert asked == [4, 25, 64]


def test_thousands_of_events_of_one_user_from_the_future_forget_nobody_else(tmp_path: Path) -> None:
    """2,200 events of one user in 2099 among 12,000; one partition, the block and the time to live of a worker."""
    config = small_config(1)
    engine = Engine.open(config, tmp_path)
    assert config.state.history_ttl_ms == 90 * 24 * 3600 * 1000
    ahead = START_MS + 70 * 365 * 24 * 3600 * 1000
    for start in range(0, 4000, 500):
        values: list[bytes | None] = []
        for number in range(start, start + 500):
            future = 1000 <= number < 3200
            user, ts = ("mad", ahead + number) if future else (f"u{number % 50}", START_MS + number * 1000)
            values.append(json.dumps({"user": user, "item": f"i{number % 40}", "ts": ts}).encode())
        offsets = list(range(start, start + 500))
        batch = RecordBatch(topics.EVENTS, 0, offsets, [None] * 500, values, [0] * 500, [()] * 500, start + 500)
        engine.step([batch])
        engine.learn(0)
    assert engine.clocks.now[0] < START_MS + 4000 * 1000
    assert all(len(engine.recommend(b"u%d" % user, 3).history) == 10 for user in range(50))
    assert engine.counters["users"] == 51
    engine.close()


def test_an_event_from_the_future_keeps_its_own_users_history(tmp_path: Path) -> None:
    engine = forgetting(4 * 24 * 3600 * 1000, tmp_path, partitions=1)
    for number in range(40):
        ts = START_MS + number * 1000 + (number == 35) * 900 * 24 * 3600 * 1000
        value = json.dumps({"user": f"u{number % 5}", "item": f"i{number}", "ts": ts}).encode()
        engine.step([RecordBatch(topics.EVENTS, 0, [number], [None], [value], [0], [()], number + 1)])
        engine.learn(0)
    assert engine.recommend(b"u0", 3).history == ["i0", "i5", "i10", "i15", "i20", "i25", "i30", "i35"]
    assert engine.counters["users"] == 5
    engine.close()


def test_a_user_who_has_taken_everything_gets_an_empty_list_in_place_of_the_old_one(tmp_path: Path) -> None:
    engine = Engine.open(small_config(1), tmp_path)
    lists: list[list[str]] = []
    for number, (user, item) in enumerate([("other", i) for i in range(4)] + [("anna", min(i, 3)) for i in range(8)]):
        value = json.dumps({"user": user, "item": f"i{item}", "ts": START_MS + number * 1000}).encode()
        batch = RecordBatch(topics.EVENTS, 0, [number], [None], [value], [0], [()], number + 1)
        for message in engine.step([batch]).messages:
            if message.topic == topics.RECOMMENDATIONS and message.key == b"anna":
                body = msgspec.json.decode(message.value or b"", type=Recommendations)
                lists.append([one.item for one in body.items])
        engine.learn(0)
    assert any(lists[:-1]), "there was a list before"
    assert lists[-1] == [] and lists.count([]) == 1, "published empty, once"
    assert engine.records([b"anna"])["list"].max() == 0
    engine.close()
