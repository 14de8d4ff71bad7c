"""What every store of users must do; `test_store_contract.py` runs each check on each implementation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from state.errors import StateError
from state.histories import append
from state.memory_store import MemoryUserStore
from state.store import UserStore

Store = UserStore | MemoryUserStore


class MakeStore(Protocol):
    """Opens a store at a folder; `restore` first puts a checkpoint there."""

    def __call__(self, path: Path, *, restore: Path | None = None, ttl_ms: int = 0, max_len: int = 4) -> Store: ...


Check = Callable[[MakeStore, Path], None]


def digest(store: Store, now_ts: int = 0) -> str:
    found = hashlib.blake2b(digest_size=16)
    store.update_digest(found, np.full(store.partitions, now_ts))
    return found.hexdigest()


def with_events(store: Store, partition: int, users: list[bytes], ts: int) -> NDArray[np.void]:
    """One event each at `ts`, through the store."""
    n = len(users)
    records = store.read(partition, users)
    items = np.arange(1, n + 1, dtype=np.int64)
    done = append(records, np.arange(n), items, np.full(n, ts), np.zeros(n, np.uint8))
    store.write(partition, users, done.records)
    return done.records


def check_unknown_users_are_blank(make: MakeStore, path: Path) -> None:
    with make(path) as store:
        assert np.array_equal(store.read(0, [b"a", b"b"]), store.blank(2))
        assert store.read(0, []).shape == (0,)
        with_events(store, 0, [b"a"], 5)
        mixed = store.read(0, [b"x", b"a", b"y"])
        assert mixed["events"].tolist() == [0, 1, 0] and mixed["intent"].tolist() == [-1, -1, -1]


def check_what_is_written_is_read(make: MakeStore, path: Path) -> None:
    with make(path) as store:
        users = [b"u%d" % i for i in range(500)]
        records = with_events(store, 1, users, 77)
        assert np.array_equal(store.read(1, users[::-1]), records[::-1])


def check_partitions_are_apart(make: MakeStore, path: Path) -> None:
    with make(path) as store:
        with_events(store, 0, [b"a"], 5)
        assert store.read(1, [b"a"])["events"][0] == 0


def check_what_is_read_is_a_copy(make: MakeStore, path: Path) -> None:
    with make(path) as store:
        with_events(store, 0, [b"a"], 5)
        store.read(0, [b"a"])["events"][0] = 99
        assert store.read(0, [b"a"])["events"][0] == 1


def check_erased_users_are_gone(make: MakeStore, path: Path) -> None:
    with make(path) as store:
        with_events(store, 0, [b"a", b"b"], 5)
        store.erase(0, [b"a", b"never seen"])
        assert store.read(0, [b"a", b"b"])["events"].tolist() == [0, 1]
        store.write(0, [b"b"], store.blank(1))  # a blank record is no record
        assert [users for users, _ in store.scan(0)] == []


def check_scan_is_in_key_order_and_complete(make: MakeStore, path: Path) -> None:
    with make(path) as store:
        users = [b"%d" % i for i in range(9000)]
        with_events(store, 0, users, 5)
        found = [
            (user, int(item))
            for chunk, rows in store.scan(0)
            for user, item in zip(chunk, rows["items"][:, -1], strict=True)
        ]
        assert found == sorted((user, i + 1) for i, user in enumerate(users))
        assert store.count() == store.count(0) == 9000 and store.count(1) == 0


def check_a_checkpoint_brings_everything_back(make: MakeStore, path: Path) -> None:
    with make(path / "live") as store:
        for step in range(3):
            for partition in (0, 1):
                with_events(store, partition, [b"%d" % i for i in range(step, 300)], step)
        expected = digest(store)
        store.checkpoint(path / "checkpoint")
        with_events(store, 0, [b"later"], 9)
        assert digest(store) != expected
    for target in ("again", "live"):  # somewhere else, and over what is there
        with make(path / target, restore=path / "checkpoint") as store:
            assert digest(store) == expected
            with_events(store, 0, [b"later"], 9)
    with make(path / "third", restore=path / "checkpoint") as store:  # those who wrote after it did not touch it
        assert digest(store) == expected


def check_what_is_written_during_a_checkpoint_is_seen_but_no_part_of_it(make: MakeStore, path: Path) -> None:
    users = [b"%d" % i for i in range(100)]
    with make(path / "live") as store:
        with_events(store, 0, users, 1)
        expected = digest(store)
        finish = store.begin_checkpoint(path / "checkpoint")
        with_events(store, 0, users[:50], 2)
        with_events(store, 0, [b"new"], 2)
        store.erase(0, [b"99"])
        seen = store.read(0, [b"0", b"60", b"new", b"99"])["events"].tolist()
        finish()
        assert seen == [2, 1, 1, 0]
        for ts in range(3, 40):  # while what was held back goes into the store bit by bit
            with_events(store, 0, [b"0"], ts)
            assert store.read(0, [b"1", b"60", b"new", b"99"])["events"].tolist() == [2, 1, 1, 0]
        assert store.read(0, [b"0"])["events"].tolist() == [39]
        assert sum(len(chunk) for chunk, _ in store.scan(0)) == 100
    with make(path / "back", restore=path / "checkpoint") as store:
        assert digest(store) == expected


def check_scanning_between_begin_and_finish_waits_for_nobody(make: MakeStore, path: Path) -> None:
    with make(path / "live") as store:
        with_events(store, 0, [b"a"], 1)
        expected = digest(store)
        finish = store.begin_checkpoint(path / "checkpoint")
        with_events(store, 0, [b"b"], 1)
        assert digest(store) != expected
        finish()
    with make(path / "back", restore=path / "checkpoint") as store:
        assert digest(store) == expected


def check_a_second_checkpoint_follows_the_first(make: MakeStore, path: Path) -> None:
    with make(path / "live") as store:
        with_events(store, 0, [b"a"], 1)
        first = store.begin_checkpoint(path / "first")
        with_events(store, 0, [b"b"], 1)
        second = store.begin_checkpoint(path / "second")
        expected = digest(store)
        second()
        first()
    with make(path / "back", restore=path / "second") as store:
        assert digest(store) == expected


def check_the_digest_tells_states_apart(make: MakeStore, path: Path) -> None:
    with make(path / "a") as one, make(path / "b") as other:
        assert digest(one) == digest(other)
        with_events(one, 0, [b"u"], 5)
        with_events(other, 1, [b"u"], 5)
        assert digest(one) != digest(other)
        with_events(one, 1, [b"u"], 5)
        with_events(other, 0, [b"u"], 5)
        assert digest(one) == digest(other)


def check_sweep_removes_the_forgotten_and_no_others(make: MakeStore, path: Path) -> None:
    with make(path, ttl_ms=100) as store:
        for i in range(60):
            with_events(store, i % 2, [b"%02d" % i], 1000 + i)
        now = 1000 + 30 + 200  # twice the time to live after user 30
        expected = digest(store, now)
        assert store.sweep(np.full(2, now - 1000), max_users=1000) == 0
        removed = sum(store.sweep(np.full(2, now), max_users=7) for _ in range(10))
        left = sorted(user for partition in (0, 1) for users, _ in store.scan(partition) for user in users)
        assert removed == 30 and left == [b"%02d" % i for i in range(30, 60)]
        assert digest(store, now) == expected, "the digest must not depend on when a sweep comes"


def check_each_partition_forgets_by_its_own_clock(make: MakeStore, path: Path) -> None:
    with make(path, ttl_ms=100) as store:
        for partition in (0, 1):
            with_events(store, partition, [b"a"], 1000)
        now = np.array([1200, 1201])
        before = hashlib.blake2b()
        store.update_digest(before, now)
        assert store.sweep(now, max_users=10) == 1 and store.count(0) == 1 and store.count(1) == 0
        after = hashlib.blake2b()
        store.update_digest(after, now)
        assert after.digest() == before.digest()


def check_no_sweep_without_a_time_to_live(make: MakeStore, path: Path) -> None:
    with make(path) as store:
        with_events(store, 0, [b"a"], 1)
        assert store.sweep(np.full(2, 1 << 60), max_users=10) == 0 and store.read(0, [b"a"])["events"][0] == 1


def check_another_shape_is_refused(make: MakeStore, path: Path) -> None:
    with make(path / "live", max_len=8) as store:
        for ts in range(8):
            with_events(store, 0, [b"a"], ts)
        store.checkpoint(path / "checkpoint")
    with make(path / "back", restore=path / "checkpoint", max_len=4) as store:
        try:
            store.read(0, [b"a"])
        except StateError as error:
            assert "longer histories" in str(error)
        else:
            raise AssertionError("a record of 8 entries was read as one of 4")


def check_closing_twice_is_harmless(make: MakeStore, path: Path) -> None:
    store = make(path)
    store.close()
    store.close()


STORE_CHECKS: list[Check] = [check for name, check in sorted(globals().items()) if name.startswith("check_")]
