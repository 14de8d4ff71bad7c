"""Kill -9 for real: a worker process dies at planned and drawn moments and is started again; nothing is lost,
nothing is there twice.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.crash import AIMED, CONFIG, torture

SMALL = (
    CONFIG.replace("max_step_events = 200", "max_step_events = 100")
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
