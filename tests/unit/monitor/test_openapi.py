"""The API does what its own description says, by thousands of cases that schemathesis makes from it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from stream.log import EventLog
from stream.serving import CheckpointRanker
from tests.unit.monitor.conftest import MakeClient
from tests.unit.monitor.feed import Feed, history
from tests.unit.stream.engine.test_engine import run
from tests.unit.stream.streams import events, small_config

CASES = int(os.environ.get("OPENAPI_CASES", "500"))  # over all operations; 5,000 and more are for a run by hand
CHECKS = [not_a_server_error, response_schema_conformance, content_type_conformance, status_code_conformance]


def send(operation: Any, mode: GenerationMode, cases: int, statuses: list[int]) -> None:
    """Send so many cases of one operation; the first answer against the description raises."""

    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def once(case: Any) -> None:
        statuses.append(case.call_and_validate(checks=CHECKS).status_code)

    once()


@pytest.mark.timeout(300 + CASES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of schemathesis' own dependencies
def test_no_case_is_answered_against_the_description(log: EventLog, make_client: MakeClient, tmp_path: Path) -> None:
    feed = Feed(start_ms=int(time.time() * 1000))
    log.append([*history(feed, 20), feed.metrics(lag=0.0)])
    ranker = CheckpointRanker(small_config(), tmp_path / "state")
    run(small_config(), tmp_path / "state", events(100), 30)[0].checkpoint()
    ranker.refresh()
    client: httpx.Client = make_client(ranker=ranker, requests_per_second=1e6, stale_after_s=86_400.0)  # always ready
    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    schema.config.update(base_url=str(client.base_url).rstrip("/"))
    found: list[Any] = [one.ok() for one in schema.get_all_operations()]  # type: ignore[union-attr]  # `Err` would raise
    operations = [op for op in found if not op.path.startswith("/stream")]  # no end: tested by itself
    fixed = [op for op in operations if not op.path_parameters and not op.query and not op.body]
    statuses: list[int] = []
    for operation in fixed:
        send(operation, GenerationMode.POSITIVE, 2, statuses)
    varied = [op for op in operations if op not in fixed]
    for operation in varied:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            send(operation, mode, CASES // (2 * len(varied)) + 1, statuses)
    assert len(statuses) >= CASES * 0.9
    assert max(statuses) < 500 or set(statuses) <= {200, 202, 400, 404, 422, 503}
    print(len(statuses), {s: statuses.count(s) for s in sorted(set(statuses))})  # noqa: T201  # for a run by hand
