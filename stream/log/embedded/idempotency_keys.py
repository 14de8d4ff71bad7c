"""Idempotency keys in the log's RocksDB: each is written together with the messages appended under it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rocksdict import WriteBatch

from stream.log.base import KEY_TTL_MS, MAX_KEYS
from stream.log.embedded.layout import idempotency_age_key, idempotency_key
from stream.log.embedded.primary import PrimaryStore
from stream.log.embedded.store import Store

_COUNT_KEY: Final = b"n"  # of the number of keys
_FIRST: Final = b"x"
_LEAST_PORTION: Final = 1_000


def is_known(store: Store, digest: bytes, now_ms: int) -> bool:
    """Whether the messages of this idempotency key were appended, less than `KEY_TTL_MS` ago."""
    raw = store.value(idempotency_key(digest))
    return raw is not None and now_ms - int.from_bytes(raw, "big") < KEY_TTL_MS


class IdempotencyKeys:
    """The writer's side. The caller holds the store's lock."""

    def __init__(self, store: PrimaryStore) -> None:
        self._store = store
        self.count = int.from_bytes(store.value(_COUNT_KEY) or b"", "big")
        self._forgotten = _FIRST  # everything before it is deleted: a scan from there meets no tombstones

    def values(self, digests: Sequence[bytes], now_ms: int) -> dict[bytes, bytes]:
        """What is to be written beside the messages of these keys; `count` follows with `wrote`."""
        if not digests:
            return {}
        used = now_ms.to_bytes(8, "big")
        values = {_COUNT_KEY: (self.count + len(digests)).to_bytes(8, "big")}
        values |= {idempotency_key(digest): used for digest in digests}
        return values | {idempotency_age_key(now_ms, digest): b"" for digest in digests}

    def wrote(self, digests: Sequence[bytes]) -> None:
        """Count keys that were written."""
        self.count += len(digests)

    def forget(self, now_ms: int, records: int) -> None:
        """Delete a portion of the keys that are too old or too many, in proportion to the records appended since."""
        it = self._store.iterator()
        it.seek(self._forgotten)
        batch, count, last = WriteBatch(raw_mode=True), self.count, b""
        for _ in range(max(_LEAST_PORTION, 2 * records)):
            if not it.valid() or not (key := it.key()).startswith(_FIRST):
                break
            used_ms, digest = int.from_bytes(key[1:9], "big"), key[9:]
            if now_ms - used_ms < KEY_TTL_MS and count <= MAX_KEYS:
                break
            del batch[key]
            if self._store.value(idempotency_key(digest)) == key[1:9]:  # else it was used again after a day
                del batch[idempotency_key(digest)]
            count, last = count - 1, key
            it.next()
        if last:
            batch[_COUNT_KEY] = count.to_bytes(8, "big")
            self._store.write(batch, sync=False)  # what a crash undoes is done again
            self.count, self._forgotten = count, last
