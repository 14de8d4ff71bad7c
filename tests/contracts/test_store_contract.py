"""Runs the checks of `store_checks` on RocksDB and on the in-memory twin."""

from __future__ import annotations

from pathlib import Path

import pytest

from state.memory_store import MemoryUserStore
from state.store import UserStore
from tests.contracts.store_checks import STORE_CHECKS, Check, MakeStore, Store


def make_rocks(path: Path, *, restore: Path | None = None, ttl_ms: int = 0, max_len: int = 4) -> Store:
    if restore is not None:
        UserStore.restore(restore, path)
    return UserStore(
        path,
        partitions=2,
        max_len=max_len,
        list_len=3,
        history_ttl_ms=ttl_ms,
        cache_bytes=1 << 20,
        write_buffer_bytes=4 << 20,
    )


def make_memory(path: Path, *, restore: Path | None = None, ttl_ms: int = 0, max_len: int = 4) -> Store:
    if restore is not None:
        MemoryUserStore.restore(restore, path)
    return MemoryUserStore(path, partitions=2, max_len=max_len, list_len=3, history_ttl_ms=ttl_ms)


@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", [make_rocks, make_memory], ids=["rocksdb", "memory"])
def test_store_contract(check: Check, make: MakeStore, tmp_path: Path) -> None:
    check(make, tmp_path)
