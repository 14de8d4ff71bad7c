"""What reading an embedded log needs of its RocksDB, and the options with which every process opens it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Protocol

from rocksdict import BlockBasedOptions, Cache, DBCompressionType, Options

from stream.log.embedded.layout import Bounds, Topic, Writer

_WRITE_BUFFER_BYTES: Final = 32 * 1024 * 1024
_CACHE_BYTES: Final = 32 * 1024 * 1024


class Store(Protocol):
    """What reading needs, by the writer itself or by another process."""

    path: Path

    def refresh(self) -> None:
        """See what was written since."""
        ...

    def wait(self, timeout_s: float) -> None:
        """Return when something may have been written, or after this time."""
        ...

    def topic(self, name: str) -> Topic | None:
        """The topic of this name."""
        ...

    def bounds(self, topic: Topic, partition: int) -> Bounds:
        """Bounds of a partition."""
        ...

    def writer(self, worker_id: str) -> Writer:
        """Epoch and positions of a worker; a fresh one when there is none."""
        ...

    def value(self, key: bytes) -> bytes | None:
        """The value of a key."""
        ...

    def iterator(self) -> Any:
        """A RocksDB iterator over a consistent view."""
        ...

    def release(self) -> None:
        """The user of this object is done with it."""
        ...


def database_options() -> Options:
    """The options of RocksDB, for the writer and for readers."""
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_max_total_wal_size(4 * _WRITE_BUFFER_BYTES)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_keep_log_file_num(2)
    options.set_max_background_jobs(2)
    table = BlockBasedOptions()
    table.set_block_cache(Cache(_CACHE_BYTES))
    table.set_block_size(64 * 1024)
    options.set_block_based_table_factory(table)
    return options
