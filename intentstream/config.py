"""The configuration: one TOML file, frozen structs, every section beside the code that it configures.

`load_config` refuses unknown keys and wrong values with file, key, value, rule and the nearest valid key.
The simulated shop has a file of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from intentstream import config_file
from monitor.config import MonitorConfig
from stream.config import StreamConfig
from stream.sources.simulator.config import SimulatorConfig

# Keys that people set; `intentstream config` prints these. All others are internal: benchmarks and `tune` set them.
_PUBLIC: Final = {
    "log": "url partitions",
    "log.kafka": (
        "security_protocol sasl_mechanism sasl_username sasl_password_env sasl_password_file ssl_cafile ssl_certfile "
        "ssl_keyfile ssl_key_password_env ssl_key_password_file ssl_check_hostname replication_factor "
        "transaction_timeout_ms"
    ),
    "events": (
        "topic preset user item ts action value items where actions time_format time_zone time_origin key format "
        "registry_url registry_username registry_password_env registry_password_file registry_cafile "
        "registry_certfile registry_keyfile"
    ),
    "state": "history_ttl_ms cache_bytes write_buffer_bytes checkpoint_location",
    "engine": (
        "worker max_step_records step_records learn_steps max_learn_steps backlog_records evaluate_every list_len "
        "republish_changes republish_after_ms checkpoint_every_steps checkpoint_redo_s keep_checkpoints "
        "metrics_every_s on_replay_mismatch on_truncated_input"
    ),
    "actions": "weights other max_ahead_ms",
    "learner": "seed threads max_len capacity batch replay learning_rate item_learning_rate",
    "learner.encoder": "hidden layers heads",
    "learner.intents": "count",
    "shifts": "margin publish_model_shifts",
    "drift": "signals actions",
    "fallback": "enabled",
    "monitor": (
        "host port token token_env token_file allowed_hosts allowed_origins max_body_bytes max_batch_events "
        "requests_per_second max_connections max_streams history_len history_days stale_after_s ready_max_lag"
    ),
}
PUBLIC_KEYS: Final = frozenset(f"{section}.{key}" for section, keys in _PUBLIC.items() for key in keys.split())


class Config(StreamConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of intentstream; a key that is left out has the value given here."""

    monitor: MonitorConfig = msgspec.field(default_factory=MonitorConfig)


def load_config(path: Path | None = None, *, log_url: str | None = None) -> Config:
    """Read the file, or take the defaults when there is none.

    Parameters
    ----------
    log_url
        Takes the place of `log.url`: the command line's `--log`.

    Raises
    ------
    ConfigError
        The file cannot be read, or something in it is unknown or not allowed.
    """
    config = Config() if path is None else config_file.load(path, Config())
    if log_url is not None:
        config = msgspec.structs.replace(config, log=msgspec.structs.replace(config.log, url=log_url))
    return config


def load_shop(path: Path | None = None) -> SimulatorConfig:
    """Read the file of the simulated shop, or take the defaults when there is none; raises like `load_config`."""
    return SimulatorConfig() if path is None else config_file.load(path, SimulatorConfig())


def dump_default(*, internal: bool = False) -> str:
    """The default configuration file, every key with meaning, unit and range.

    >>> print(dump_default().splitlines()[0])
    # Configuration of intentstream; a key that is left out has the value given here.
    """
    return config_file.render(Config(), PUBLIC_KEYS, internal=internal)


def dump_shop() -> str:
    """The default file of the simulated shop."""
    return config_file.render(SimulatorConfig())


__all__ = ["Config", "PUBLIC_KEYS", "dump_default", "dump_shop", "load_config", "load_shop"]
