"""The configuration: one TOML file, frozen structs, every section beside the code that it configures.

`load_config` refuses unknown keys and wrong values with file, key, value, rule and the nearest valid key;
`dump_default` is what `intentstream config` prints.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from intentstream import config_file
from monitor.config import MonitorConfig
from stream.config import EngineConfig, LogConfig, StateConfig, StreamConfig
from stream.errors import ConfigError
from stream.sources.simulator.config import SimulatorConfig


class Config(StreamConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of intentstream; a key that is left out has the value given here."""

    monitor: MonitorConfig = msgspec.field(default_factory=MonitorConfig)
    simulate: SimulatorConfig = msgspec.field(default_factory=SimulatorConfig)


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
    config = Config()
    if path is not None:
        try:
            text = path.read_bytes().decode()
        except OSError as exc:
            raise ConfigError(f"{path}: cannot be read: {exc.strerror}") from None
        except UnicodeDecodeError as exc:
            raise ConfigError(f"{path}: not UTF-8 at byte {exc.start}") from None
        config = config_file.parse(text, str(path), config)
    if log_url is not None:
        config = msgspec.structs.replace(config, log=msgspec.structs.replace(config.log, url=log_url))
    return config


def dump_default() -> str:
    """The default configuration file, every key with meaning, unit and range.

    >>> print(dump_default()[:90])
    # Configuration of intentstream; a key that is left out has the value given here.
    <BLANKLINE>
    # Where
    """
    return config_file.render(Config())


__all__ = ["Config", "EngineConfig", "LogConfig", "StateConfig", "dump_default", "load_config"]
