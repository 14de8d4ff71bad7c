from __future__ import annotations

import collections
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from stream.errors import SourceError
from stream.schema.decoder import Decoder, decode_events
from stream.schema.events import MAX_TS, REASONS, ActionsConfig
from stream.sources.simulator.chunk import ACTIONS, BAD, BOT, DUPLICATE, NORMAL, Chunk
from stream.sources.simulator.config import DriftKind, SimulatorConfig
from stream.sources.simulator.simulator import Simulator
from stream.sources.simulator.truth import Truth

SMALL = SimulatorConfig(users=500, items=400, active=50, intents=6, spare_intents=3, drift_first=9000, drift_every=5000)


def columns(chunk: Chunk) -> list[object]:
    arrays = (chunk.users, chunk.items, chunk.words, chunk.ts, chunk.actions, chunk.kinds, chunk.intents)
    return [array.tolist() for array in arrays]


@pytest.fixture(scope="module")
def chunk() -> Chunk:
    return Simulator(SMALL, seed=3).next_chunk(60_000)


def test_the_stream_does_not_depend_on_how_it_is_asked_for(chunk: Chunk) -> None:
    simulator = Simulator(SMALL, seed=3)
    parts = [simulator.next_chunk(n) for n in (1, 7, 8184, 1, 0, 20_000, 31_807)]
    assert [part.start for part in parts] == [0, 1, 8, 8192, 8193, 8193, 28_193]
    for name in ("users", "items", "words", "ts", "actions", "kinds", "intents"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert np.array_equal(joined, getattr(chunk, name)), name
    assert sorted((one for part in parts for one in part.truth), key=repr) == sorted(chunk.truth, key=repr)
    assert [value for part in parts for value in part.values] == chunk.values


def test_another_seed_is_another_stream(chunk: Chunk) -> None:
    assert Simulator(SMALL, seed=4).next_chunk(100).values != chunk.values[:100]


@pytest.mark.parametrize("handed_out", [0, 5, 8192, 12_345])
def test_a_saved_simulator_goes_on_with_the_very_next_record(chunk: Chunk, tmp_path: Path, handed_out: int) -> None:
    simulator = Simulator(SMALL, seed=3)
    simulator.next_chunk(handed_out)
    simulator.save(tmp_path / "shop" / "state.npz")
    loaded = Simulator.load(tmp_path / "shop" / "state.npz", SMALL)
    rest, expected = loaded.next_chunk(20_000), simulator.next_chunk(20_000)
    assert columns(rest) == columns(expected)
    assert rest.truth == expected.truth
    assert loaded.position == handed_out + 20_000


def test_states_that_do_not_fit_are_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "state.npz"
    Simulator(SMALL, seed=3).save(file)
    with pytest.raises(SourceError, match=r"another configuration of the shop"):
        Simulator.load(file, SimulatorConfig())
    data = file.read_bytes()
    for broken in (b"", b"nonsense", data[: len(data) // 2]):
        file.write_bytes(broken)
        with pytest.raises(SourceError, match="not a simulator state"):
            Simulator.load(file, SMALL)
    with pytest.raises(SourceError, match="not a simulator state"):
        Simulator.load(tmp_path / "none.npz", SMALL)


def test_records_are_valid_but_for_those_that_are_not_meant_to_be(chunk: Chunk) -> None:
    decoded = Decoder(ActionsConfig()).decode(chunk.values, chunk.keys)
    bad = [one.index for one in decoded.rejections]
    assert bad == np.flatnonzero(chunk.kinds == BAD).tolist()
    good = chunk.kinds != BAD
    assert [user for user in decoded.events.users] == [key for key, fine in zip(chunk.keys, good, strict=True) if fine]
    assert decoded.events.items == [item for item, fine in zip(chunk.item_ids, good, strict=True) if fine]
    assert decoded.events.ts.tolist() == chunk.ts[good].tolist()
    assert [ActionsConfig().names()[code] for code in decoded.events.actions] == [
        ACTIONS[code] for code in chunk.actions[good]
    ]


def test_bad_records_are_bad_in_many_ways() -> None:
    chunk = Simulator(msgspec.structs.replace(SMALL, bad_share=0.4), seed=1).next_chunk(500)
    reasons = {bad.reason for bad in decode_events(chunk.values, chunk.keys).rejections}
    assert reasons >= set(REASONS) - {"too_large", "not_framed", "unknown_schema", "not_avro", "not_protobuf"}


def test_shares_are_those_of_the_configuration(chunk: Chunk) -> None:
    counts = np.bincount(chunk.kinds, minlength=4) / len(chunk)
    assert counts[BOT] == pytest.approx(SMALL.bot_share, rel=0.2)
    assert counts[DUPLICATE] == pytest.approx(SMALL.duplicate_share, rel=0.25)
    assert counts[BAD] == pytest.approx(SMALL.bad_share, rel=0.5)
    shares = np.bincount(chunk.actions, minlength=4) / len(chunk)
    assert shares == pytest.approx(np.array(SMALL.action_shares), abs=0.01)
    bots = {int(user) for user in chunk.users[chunk.kinds == BOT]}
    assert {f"u{bot}" for bot in bots} <= {one.user for one in chunk.truth if one.kind == "bot"}


def test_a_duplicate_repeats_an_earlier_record_to_the_byte(chunk: Chunk) -> None:
    for place in np.flatnonzero(chunk.kinds == DUPLICATE).tolist():
        assert chunk.values[place] in chunk.values[max(0, place - 60) : place]


def test_the_truth_about_users_explains_every_event(chunk: Chunk) -> None:
    told = {(one.position, one.user): one for one in chunk.truth if one.kind in ("user", "switch")}
    intent: dict[str, int] = {}
    held: collections.Counter[str] = collections.Counter()
    for place in np.flatnonzero(chunk.kinds == NORMAL).tolist():
        user = f"u{chunk.users[place]}"
        now = int(chunk.intents[place])
        one = told.pop((place, user), None)
        if one is None:
            assert intent[user] == now
        elif one.kind == "user":
            assert user not in intent and one.intent == now
        else:
            assert (one.from_intent, one.to_intent) == (intent[user], now) and now != intent[user]
            if one.cause == "user":
                assert held[user] >= SMALL.min_hold
            held[user] = 0
        intent[user] = now
        held[user] += 1
    assert not told


def test_events_follow_the_intents_items(chunk: Chunk) -> None:
    owner: dict[str, int] = {}
    by_position = collections.defaultdict(list)
    for one in chunk.truth:
        if one.kind == "item":
            by_position[one.position].append(one)
    normal = chunk.kinds == NORMAL
    before_drift = np.flatnonzero(normal[:9000]).tolist()
    hits = 0
    for place in range(9000):
        owner |= {one.item: one.intent for one in by_position.pop(place, ())}
    for place in before_drift:
        hits += owner[chunk.item_ids[place]] == chunk.intents[place]
    expected = (1 - SMALL.side_share) * (1 - SMALL.noise) + SMALL.noise / SMALL.intents
    assert hits / len(before_drift) == pytest.approx(expected, abs=0.03)


def test_each_kind_of_drift_comes_in_turn_at_its_very_record(chunk: Chunk) -> None:
    drifts = [one for one in chunk.truth if one.kind == "drift"]
    assert [one.position for one in drifts] == list(range(9000, 60_000, 5000))
    assert [one.drift for one in drifts[:5]] == ["shares", "popularity", "concept_drift", "new_intent", "lost_intent"]
    gone = drifts[4].intents[0]
    assert gone in chunk.intents[: drifts[4].position]
    assert gone not in chunk.intents[drifts[4].position :]
    new = drifts[3].intents[0]
    assert new not in chunk.intents[: drifts[3].position]
    assert (chunk.intents[drifts[3].position : drifts[4].position] == new).mean() > 0.1


def distribution(numbers: object, size: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.bincount(np.asarray(numbers), minlength=size)[:size] / max(1, len(np.asarray(numbers)))


@pytest.mark.parametrize(
    ("kind", "column"),
    [
        ("shares", "intents"),
        ("new_intent", "intents"),
        ("lost_intent", "intents"),
        ("popularity", "items"),
        ("concept_drift", "items"),
    ],
)
def test_a_drift_changes_the_stream_and_nothing_else_does(kind: str, column: str) -> None:
    config = msgspec.convert(
        msgspec.to_builtins(SMALL)
        | {"drift_first": 20_000, "drift_every": 1_000_000, "drift_kinds": [kind], "item_births": 0, "intent_rhythm": 0}
        | {"switch_rate": 0.0, "user_births": 0.0},
        SimulatorConfig,
    )
    chunk = Simulator(config, seed=5).next_chunk(40_000)
    assert [one.drift for one in chunk.truth if one.kind == "drift"] == [kind]
    normal = np.where(chunk.kinds == NORMAL)[0]
    values: Callable[[int, int], object] = lambda low, high: getattr(chunk, column)[  # noqa: E731
        normal[(normal >= low) & (normal < high)]
    ]
    size = int(getattr(chunk, column).max()) + 1
    still = np.abs(distribution(values(0, 10_000), size) - distribution(values(10_000, 20_000), size)).sum()
    moved = np.abs(distribution(values(10_000, 20_000), size) - distribution(values(20_000, 30_000), size)).sum()
    if kind == "concept_drift":  # the same items, but others follow from others: seen in who takes them
        return
    assert moved > 1.5 * still


def test_meaning_drift_puts_items_under_other_intents() -> None:
    config = msgspec.structs.replace(
        SMALL,
        drift_first=20_000,
        drift_every=1_000_000,
        drift_kinds=("concept_drift",),
        item_births=0.0,
        side_share=0.0,
        noise=0.0,
    )
    chunk = Simulator(config, seed=5).next_chunk(40_000)
    owners = []
    for low, high in ((0, 20_000), (20_000, 40_000)):
        pairs = np.zeros((config.items, config.intents), dtype=np.int64)
        span = slice(low, high)
        normal = chunk.kinds[span] == NORMAL
        np.add.at(pairs, (chunk.items[span][normal], chunk.intents[span][normal]), 1)
        assert ((pairs > 0).sum(axis=1) <= 1).all()  # without side intents and noise an item has one intent at a time
        owners.append(pairs.argmax(axis=1))
    changed = (owners[0] != owners[1]).mean()
    assert changed == pytest.approx(config.drift_strength * (1 - 1 / config.intents), abs=0.12)


@pytest.mark.parametrize("kind", ["concept_drift", "new_intent", "lost_intent"])
def test_after_a_drift_what_follows_what_is_as_sure_as_before(kind: DriftKind) -> None:
    """Items that went over to another intent leave no hole behind those that they followed."""
    config = msgspec.structs.replace(
        SMALL, drift_first=40_000, drift_every=1_000_000, drift_kinds=(kind,), item_births=0.0, skew=0.0, noise=0.0
    )
    chunk = Simulator(config, seed=5).next_chunk(80_000)
    sure = []
    for span in (slice(0, 40_000), slice(40_000, 80_000)):
        items, users = chunk.items[span], chunk.users[span]
        order = np.argsort(users, kind="stable")
        pairs = np.flatnonzero(np.diff(users[order]) == 0)
        _, items = np.unique(items[order], return_inverse=True)
        followers = np.zeros((items.max() + 1, items.max() + 1))
        np.add.at(followers, (items[pairs], items[pairs + 1]), 1)
        sure.append(np.sort(followers, axis=1)[:, -4:].sum() / len(pairs))
    assert sure[1] == pytest.approx(sure[0], abs=0.03)


def test_time_has_a_day_and_a_week_and_some_come_late() -> None:
    config = msgspec.structs.replace(SMALL, events_per_second=0.1, drift_every=0)
    chunk = Simulator(config, seed=2).next_chunk(100_000)
    hours = (chunk.ts - config.start_ts) // 3_600_000
    assert hours[-1] / 24 == pytest.approx(100_000 / 0.1 / 86_400, rel=0.1)
    by_hour = np.bincount(hours % 24, minlength=24)
    assert by_hour.argmax() in (11, 12) and by_hour.argmin() in (0, 23)
    assert by_hour.max() / by_hour.min() == pytest.approx(1.6 / 0.4, rel=0.25)
    fast = Simulator(SMALL, seed=2).next_chunk(20_000)
    late = (np.diff(fast.ts) < -5000).mean()
    assert 0.5 * SMALL.late_share < late < 1.2 * SMALL.late_share


def test_ids_are_never_used_again_and_nothing_grows() -> None:
    config = msgspec.structs.replace(SMALL, item_births=20.0, user_births=50.0, drift_every=2000)
    simulator = Simulator(config, seed=2)
    truth: list[Truth] = []
    for _ in range(10):
        truth += simulator.next_chunk(8192).truth
    born = [one.item for one in truth if one.kind == "item"]
    names = [one.rsplit("-", 1)[1] for one in born]
    assert len(set(names)) == len(names) > config.items + 500
    gone = [one.item for one in truth if one.kind == "item_gone"]
    assert set(gone) < set(born)
    assert len(born) - len(gone) == config.items


@pytest.mark.parametrize(
    "config",
    [
        SimulatorConfig(
            users=10, bots=0, items=20, intents=2, spare_intents=0, active=1, drift_every=100, drift_first=0
        ),
        SimulatorConfig(
            users=20, bots=9, items=20, intents=3, spare_intents=2, active=30, drift_every=50, switch_rate=1, min_hold=0
        ),
        SimulatorConfig(
            duplicate_share=0.3,
            bad_share=0.3,
            bot_share=0.3,
            late_share=0.5,
            noise=1.0,
            transition=1.0,
            drift_strength=1.0,
        ),
        SimulatorConfig(events_per_second=1e-3, session_events=1.0, skew=3.0, drift_every=0),
    ],
)
def test_extremes_work(config: SimulatorConfig) -> None:
    chunk = Simulator(config, seed=0).next_chunk(10_000)
    assert len(chunk.values) == 10_000
    assert chunk.ts.max() < MAX_TS
    for one in chunk.truth:
        assert msgspec.json.decode(msgspec.json.encode(one), type=Truth) == one
