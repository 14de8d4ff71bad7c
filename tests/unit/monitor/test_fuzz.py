from __future__ import annotations

from benchmarks.fuzz.http import fuzz_http


def test_hostile_requests_are_answered_and_every_accepted_event_is_in_the_log_once() -> None:
    found = fuzz_http(120, seed=3)
    assert found["errors"] == []
    assert found["reconciles"] and found["events_accepted"] > 100
    assert not {"500", "closed"} & found["outcomes"].keys()
