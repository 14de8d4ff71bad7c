"""The log's contract on a real broker."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from stream.log import open_log
from tests.contracts.log_checks import LOG_CHECKS, LogCase

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("check", LOG_CHECKS, ids=lambda c: c.__name__)
def test_kafka(check: Callable[[LogCase], None], kafka_url: str) -> None:
    check(LogCase(lambda mode: open_log(kafka_url, mode=mode), uuid.uuid4().hex[:12]))
