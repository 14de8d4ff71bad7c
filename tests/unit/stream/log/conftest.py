from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.stream.log.other_process import Other


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Callable[[str], Other]]:
    made: list[Other] = []

    def make(mode: str) -> Other:
        made.append(Other(tmp_path / "log", mode))
        return made[-1]

    yield make
    for process in made:
        process.close()
