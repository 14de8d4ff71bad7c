"""The log's contract on the embedded log; Kafka's run is in tests/integration/test_kafka_log.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.log import open_log
from tests.contracts.log_checks import LOG_CHECKS, LogCase


@pytest.mark.parametrize("check", LOG_CHECKS, ids=lambda c: c.__name__)
def test_embedded(check: Callable[[LogCase], None], tmp_path: Path) -> None:
    check(LogCase(lambda mode: open_log(f"file://{tmp_path}/log", mode=mode), "c"))
