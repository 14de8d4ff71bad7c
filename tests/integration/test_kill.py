"""Kill -9 for real: a worker process dies at planned and drawn moments and is started again; nothing is lost,
nothing is there twice.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.crash import AIMED, CONFIG, settings, torture
from learner.drift.config import KINDS
from stream.log import open_log
from stream.schema import topics
from stream.sources.simulator.config import SimulatorConfig
from stream.worker.journal import read_entries

SMALL = (
    CONFIG.replace("max_step_records = 200", "max_step_records = 100")
    + """
[learner]
capacity = 2000
batch = 64
replay = 64
[learner.encoder]
hidden = 16
layers = 1
[learner.intents]
count = 8
queue = 64
"""
)

ACTIONS = (
    "more_steps higher_rate fresh_replay faster_decay fade_followers more_followers reseed rollback".split()
)  # all there are
EVERYTHING = (
    SMALL.replace("[learner]", "[learner]\nseed = 3")
    + f"""
[learner.identity]
check_events = 500
youth_events = 0
dead_share = 0.2
far_distance = 0.2
least_users = 1
[learner.merging]
every_events = 256
[shifts]
publish_model_shifts = true
settle_events = 2
margin = 1.0
[fallback]
check_every = 2
half_life = 200.0
least = 16
worse = 0.5
patience = 2
snapshot_every = 4
[drift]
bin_events = 64
warm_up = 5
threshold = 2.0
quiet_events = 600
cooldown_events = 10
action_events = 2500
longest_events = 2500
[drift.actions]
{chr(10).join(f"{kind} = {ACTIONS}" for kind in KINDS)}
"""
)
SHOP = SimulatorConfig(users=300, items=200, intents=4, spare_intents=4, active=40, drift_first=1500, drift_every=1500)


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_a_worker_killed_ten_times_ends_with_the_bits_of_one_that_never_was(tmp_path: Path) -> None:
    seen: list[str] = []
    figures = torture(
        tmp_path,
        f"file://{tmp_path / 'log'}",
        kills=12,
        events=9_000,
        seed=4,
        config_text=SMALL,
        aimed_share=0.7,
        say=seen.append,
    )
    assert figures["difference"] == ""
    assert figures["kills"] == 12
    assert (figures["lost"], figures["duplicated"]) == (0, 0)
    assert figures["events"] == 9_000
    moments = {line.split()[-1] for line in seen}
    assert moments >= {*AIMED, "random"}


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_a_worker_killed_in_open_episodes_with_everything_switched_on_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Every action, births, mergers, shifts of both causes and the fallback, most of the time in an open episode."""
    url = f"file://{tmp_path / 'log'}"
    figures = torture(tmp_path, url, kills=5, events=6_000, seed=4, config_text=EVERYTHING, shop=SHOP, aimed_share=0.8)
    assert figures["difference"] == ""
    assert (figures["kills"], figures["lost"], figures["duplicated"]) == (5, 0, 0)
    with open_log(url, mode="reader") as log:
        worker = settings(tmp_path, url).engine.worker
        notes = [entry.notes for entry in read_entries(log, worker, 0)]
        published = {topic: sum(log.end_offsets(topic)) for topic in (topics.INTENT_SHIFTS, topics.DRIFT_ALERTS)}
    in_force = [name for one in notes for name in one]
    assert {"steps", "rate", "newest", "half_lives", "followers", "update_window", "reseed", "rollback"} <= {
        name.removeprefix("drift.") for name in in_force
    }
    assert "serving" in in_force
    assert sum(any(name.startswith("drift.") for name in one) for one in notes) > len(notes) / 3
    assert published[topics.INTENT_SHIFTS] > 20
    assert published[topics.DRIFT_ALERTS] >= 2
