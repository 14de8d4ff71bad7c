"""The in-memory twin of `UserStore`: the same results, no database. For tests, benchmarks and throwaway replays."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from state.errors import StateCorrupted, storage_error
from state.records import RecordCodec, blank_users
from state.store import Digest, decode_found, digest_users, live_users

_FILE: Final = "users.msgpack"
_CHUNK_USERS: Final = 4096


class MemoryUserStore:
    """Records of users in dictionaries; see `UserStore` for the meaning of everything.

    The store reads `path` when a checkpoint was restored there and otherwise leaves it alone; it ignores the memory
    budgets.
    """

    def __init__(
        self,
        path: Path,
        *,
        partitions: int,
        max_len: int,
        list_len: int,
        history_ttl_ms: int,
        cache_bytes: int = 0,
        write_buffer_bytes: int = 0,
    ) -> None:
        self.path = Path(path)
        self.partitions = partitions
        self.history_ttl_ms = history_ttl_ms
        self.codec = RecordCodec(max_len, list_len)
        self._cursors: dict[int, bytes] = {}
        self._users: list[dict[bytes, bytes]] = [{} for _ in range(partitions)]
        file = self.path / _FILE
        if file.exists():
            try:
                stored = msgspec.msgpack.decode(file.read_bytes(), type=list[dict[bytes, bytes]])
            except (OSError, msgspec.DecodeError) as exc:
                raise StateCorrupted(f"the users in {file} are not readable: {exc}") from exc
            self._users[: len(stored)] = stored

    @staticmethod
    def destroy(path: Path) -> None:
        """Remove a restored checkpoint."""
        shutil.rmtree(path, ignore_errors=True)

    @classmethod
    def restore(cls, checkpoint_folder: Path, path: Path) -> None:
        """Replace the folder `path` by the checkpoint."""
        cls.destroy(path)
        try:
            shutil.copytree(checkpoint_folder, path)
        except OSError as exc:
            raise storage_error(f"restoring {checkpoint_folder}", path, exc) from exc

    def blank(self, count: int) -> NDArray[np.void]:
        """Records of `count` unknown users."""
        return blank_users(count, self.codec.dtype)

    def read(self, partition: int, users: Sequence[bytes]) -> NDArray[np.void]:
        """(B,) records of the users; those unknown are blank."""
        return decode_found(self.codec, [self._users[partition].get(user) for user in users])

    def write(self, partition: int, users: Sequence[bytes], records: NDArray[np.void]) -> None:
        """Store the records of distinct users; a user whose record never saw an event is removed."""
        self._users[partition].update(zip(users, self.codec.encode(records), strict=True))
        self.erase(partition, [users[row] for row in np.flatnonzero(records["events"] == 0).tolist()])

    def erase(self, partition: int, users: Sequence[bytes]) -> None:
        """Forget the users; unknown ones are ignored."""
        for user in users:
            self._users[partition].pop(user, None)

    def scan(self, partition: int) -> Iterator[tuple[list[bytes], NDArray[np.void]]]:
        """All users of a partition in key order, some thousands at a time."""
        for users, values in self._chunks(partition, b""):
            yield users, self.codec.decode(values)

    def count(self, partition: int | None = None) -> int:
        """Number of users."""
        return sum(map(len, self._users if partition is None else [self._users[partition]]))

    def sweep(self, now: NDArray[np.int64], *, max_users: int) -> int:
        """Scan up to `max_users` users of each partition, round robin, and remove those forgotten at the clocks `now`
        (P,); returns how many.
        """
        before = self.count()
        if not self.history_ttl_ms:
            return 0
        for partition in range(self.partitions):
            chunk = next(self._chunks(partition, self._cursors.pop(partition, b""), max_users), None)
            if chunk is None:
                continue
            users, values = chunk
            gone = np.flatnonzero(~live_users(self.codec, values, int(now[partition]), self.history_ttl_ms))
            self.erase(partition, [users[row] for row in gone.tolist()])
            if len(users) == max_users:
                self._cursors[partition] = users[-1] + b"\0"
        return before - self.count()

    def begin_checkpoint(self, folder: Path) -> Callable[[], None]:
        """Return the function that makes the checkpoint in `folder`, which must not exist."""
        stored = msgspec.msgpack.encode(self._users)
        return lambda: _write(folder, stored)

    def checkpoint(self, folder: Path) -> None:
        """Make a checkpoint in `folder`, which must not exist."""
        self.begin_checkpoint(folder)()

    def update_digest(self, digest: Digest, now: NDArray[np.int64]) -> None:
        """Feed all live users at the clocks `now` (P,) into a hash, partition by partition in key order."""
        for partition in range(self.partitions):
            for users, values in self._chunks(partition, b""):
                digest_users(digest, self.codec, partition, users, values, int(now[partition]), self.history_ttl_ms)

    def close(self) -> None:
        """Nothing to do."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _chunks(
        self, partition: int, start: bytes, size: int = _CHUNK_USERS
    ) -> Iterator[tuple[list[bytes], list[bytes]]]:
        users = sorted(user for user in self._users[partition] if user >= start)
        for first in range(0, len(users), size):
            chunk = users[first : first + size]
            yield chunk, [self._users[partition][user] for user in chunk]


def _write(folder: Path, stored: bytes) -> None:
    try:
        folder.mkdir(parents=True)
        (folder / _FILE).write_bytes(stored)
    except OSError as exc:
        raise storage_error("making a checkpoint of the users", folder, exc) from exc
