"""What users import."""

from __future__ import annotations

from pathlib import Path

import pytest

import intentstream
from intentstream import Config, OnlineLearner, load_config, open_log
from stream.schema.topics import EVENTS, topic_specs
from tests.unit.intentstream.test_start import imported


def test_the_names_are_these() -> None:
    assert intentstream.__all__ == [
        "Config",
        "ConfigError",
        "LearnerConfig",
        "OnlineLearner",
        "StreamError",
        "load_config",
        "open_log",
    ]
    assert dir(intentstream) == intentstream.__all__
    for name in intentstream.__all__:
        assert getattr(intentstream, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Learner'"):
        intentstream.Learner  # noqa: B018


def test_importing_it_imports_nothing_else() -> None:
    ours = {"intentstream", "learner", "monitor", "msgspec", "numpy", "state", "stream"}
    assert imported("import intentstream") & ours == {"intentstream"}


def test_five_lines_recommend() -> None:
    learner = OnlineLearner()
    learner.learn(users=["ann", "bob", "ann"], items=["tea", "tea", "cup"], ts=[1, 2, 3])
    assert learner.recommend("bob", k=3) == ["cup"]
    assert learner.intent("ann") is not None


def test_a_log_is_opened_by_its_url(tmp_path: Path) -> None:
    config = load_config(log_url=f"file://{tmp_path / 'log'}")
    assert isinstance(config, Config)
    with open_log(config.log.url, config=config.log) as log:
        log.create_topics(topic_specs(config.log.partitions))
        assert log.end_offsets(EVENTS) == [0] * config.log.partitions
