"""`open_log`: from a URL to the log that it names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from stream.log.base import EventLog, LogError, Mode
from stream.log.clock import wall_clock_ms
from stream.log.kafka.config import KafkaConfig


class LogSettings(Protocol):
    """What `open_log` reads of the configuration's section `log`."""

    @property
    def kafka(self) -> KafkaConfig:
        """Security settings and timeouts for Kafka."""
        ...


def open_log(
    url: str,
    *,
    mode: Mode = "owner",
    config: LogSettings | None = None,
    clock_ms: Callable[[], int] = wall_clock_ms,
) -> EventLog:
    """Open the log that a URL names.

    Parameters
    ----------
    url
        `file:///DIR` (or a plain path): the embedded log; `kafka://host:port[,host:port]`: Apache Kafka.
    mode
        `owner`: may claim, commit, append and read; `reader`: reads only; `producer`: appends (and reads). On an
        embedded log one process at a time is the owner; readers and producers work beside it.
    config
        Where the security settings and timeouts for Kafka are (`config.kafka`); the URL is the one given here.
    clock_ms
        Wall clock for retention by age in the embedded log, epoch milliseconds.

    >>> import tempfile
    >>> from stream.log.base import Message, TopicSpec
    >>> with tempfile.TemporaryDirectory() as folder, open_log(f"file://{folder}") as log:
    ...     log.create_topics([TopicSpec("clicks", 1)])
    ...     appended = log.append([Message("clicks", b"anna", b"{}", 0)])
    ...     log.end_offsets("clicks")
    [1]
    """
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        if parts.netloc not in ("", "localhost"):
            raise LogError(f"log {url}: a file URL has three slashes: file:///{parts.netloc}{parts.path}")
        path = unquote(parts.path) if parts.scheme else url
        if not path:
            raise LogError(f"log {url!r}: no folder in it: give file:///DIR or kafka://host:port")
        from stream.log.embedded.log import EmbeddedLog  # here and below: a process loads the store that it uses

        return EmbeddedLog(Path(path), mode, clock_ms=clock_ms)
    if parts.scheme == "kafka":
        from stream.log.kafka.log import KafkaLog

        return KafkaLog(url, mode, config.kafka if config is not None else KafkaConfig())
    raise LogError(f"log {url}: unknown scheme {parts.scheme!r}: give file:///DIR or kafka://host:port")
