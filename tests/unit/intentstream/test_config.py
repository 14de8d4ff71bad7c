from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from intentstream import config_file
from intentstream.config import PUBLIC_KEYS, Config, dump_default, dump_shop, load_config, load_shop
from learner.offline.config import FitConfig
from stream.errors import ConfigError
from stream.sources.simulator.config import SimulatorConfig


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config_file.parse(text, "shop.toml", Config())
    message = str(caught.value)
    assert message.startswith("shop.toml: ") and "\n" not in message
    return message.removeprefix("shop.toml: ")


def test_the_default_file_says_what_holds_without_a_file() -> None:
    for text in (dump_default(), dump_default(internal=True), ""):
        assert config_file.parse(text, "default", Config()) == Config()
    assert config_file.parse(dump_shop(), "shop", SimulatorConfig()) == SimulatorConfig()


def test_every_key_is_explained_with_its_range() -> None:
    for section in [*config_file.sections(Config()), *config_file.sections(SimulatorConfig())]:
        assert section.about, section.name
        for key in section.keys:
            assert len(key.meaning) > 3, key.name
            assert key.rule, key.name


def keys_of(text: str) -> set[str]:
    """Dotted names of the keys that the text sets; tables of names are one key."""
    found, kept = set(), {key.name for section in config_file.sections(Config()) for key in section.keys}

    def walk(raw: dict[str, Any], prefix: str) -> None:
        for name, value in raw.items():
            if prefix + name in kept:
                found.add(prefix + name)
            else:
                walk(value, f"{prefix}{name}.")

    walk(tomllib.loads(text), "")
    return found


def test_the_default_file_has_the_keys_that_people_set() -> None:
    assert keys_of(dump_default()) == PUBLIC_KEYS
    assert 60 < len(PUBLIC_KEYS) <= 110
    assert "internal" not in dump_default()


def test_every_key_is_in_the_file_with_all_and_the_internal_ones_are_marked() -> None:
    text = dump_default(internal=True)
    raw = tomllib.loads(text)
    internal = sum(len(section.keys) for section in config_file.sections(Config())) - len(PUBLIC_KEYS)
    assert text.count("# internal: ") == internal
    for section in config_file.sections(Config()):
        for key in section.keys:
            value = raw
            for part in key.name.split("."):
                value = value[part]


def test_a_part_of_a_section_leaves_the_rest_as_it_was() -> None:
    config = config_file.parse("[learner.encoder]\nhidden = 32", "x", Config())
    assert config.learner.encoder == msgspec.structs.replace(Config().learner.encoder, hidden=32)
    assert config.engine == Config().engine


def test_a_table_of_names_replaces_the_whole_table() -> None:
    config = config_file.parse("[actions.weights]\nplay = 1\nskip = -0.5", "x", Config())
    assert (config.actions.names(), config.actions.weights()) == (["play", "skip"], [1.0, -0.5])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[engine]\nlst_len = 3", "engine.lst_len = 3: no such key; the nearest valid one is engine.list_len"),
        ("[engin]\nx = 1", "engin = {…}: no such key; the nearest valid one is engine"),
        ("list_len = 3", "list_len = 3: no such key; the nearest valid one is engine.list_len"),
        ("[learner]\nhidden = 3", "learner.hidden = 3: no such key; the nearest valid one is learner.encoder.hidden"),
        ("[engine]\nqqq = 1", "engine.qqq = 1: no such key; valid here: worker, "),
        ("[qqq]\nx = 1", "qqq = {…}: no such key; valid sections: "),
        ("engine = 3", "engine = 3: is a section, write its keys below [engine]"),
        ("[engine]\nlist_len = 0", "engine.list_len = 0: expected `int` >= 1; it is length k of a published list"),
        ('[engine]\nlist_len = "20"', 'engine.list_len = "20": expected `int`, got `str`'),
        ("[engine]\nlist_len = 2.5", "engine.list_len = 2.5: expected `int`, got `float`"),
        ("[engine]\nlearn_floor = 100", "engine: learn_floor = 100: must not be above max_learn_steps = 16"),
        ("[engine]\nworker = 'a b'", 'engine.worker = "a b": expected `str` matching regex'),
        (
            "[engine]\non_replay_mismatch = 'ignore'",
            "engine.on_replay_mismatch = \"ignore\": invalid enum value 'ignore'",
        ),
        (
            "[learner.item_statistics]\npopularity = [0.5]",
            "learner.item_statistics.popularity = [0.5]: expected `float` >= 1.0",
        ),
        ("[actions.weights]\nview = 'a'", "actions.weights = {…}: expected `float`, got `str`"),
        ("[simulate]\nusers = 100", "simulate = {…}: no such key; valid sections: actions, drift, "),
        ("[learner]\nmax_loss = nan", "learner.max_loss = nan: expected `float` > 0.0"),
        ("x =", "not valid TOML: "),
        ("[log]\nurl = 'a'\nurl = 'b'", "not valid TOML: "),
    ],
)
def test_refusals_name_key_value_rule_and_the_nearest_key(text: str, expected: str) -> None:
    assert refused(text).startswith(expected)


def test_the_shop_has_a_file_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text("users = 300\nbots = 2\n")
    assert load_shop(file) == SimulatorConfig(users=300, bots=2)
    assert load_shop() == SimulatorConfig()
    for text, expected in (
        ("users = 100\nbots = 50", "bots = 50: must be below half of users = 100"),
        ("drift_kinds = ['boom']", "drift_kinds = [\"boom\"]: invalid enum value 'boom'"),
        ("user = 100", "user = 100: no such key; the nearest valid one is users"),
        ("x = 1", "x = 1: no such key; valid here: intents, "),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_shop(file)
        assert str(caught.value).startswith(f"{file}: {expected}")


def test_a_file_may_be_json(tmp_path: Path) -> None:
    file = tmp_path / "fit.json"
    file.write_text('{"epochs": 3, "counts": null, "model": {"max_len": 8}}')
    found = config_file.load(file, FitConfig())
    assert (found.epochs, found.counts, found.model.max_len) == (3, None, 8)
    for text, expected in (("[1]", "holds a list"), ("{", "not valid JSON: ")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=expected):
            config_file.load(file, FitConfig())


def test_load_reads_a_file_and_lays_the_command_line_over_it(tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text('[log]\nurl = "one"\npartitions = 2\n')
    assert load_config(file).log.url == "one"
    config = load_config(file, log_url="two")
    assert (config.log.url, config.log.partitions) == ("two", 2)
    assert load_config(None, log_url="two").log.url == "two"
    assert load_config() == Config()


def test_files_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    file = tmp_path / "latin.toml"
    file.write_bytes(b"# \xe4\n")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 2"):
        load_config(file)
