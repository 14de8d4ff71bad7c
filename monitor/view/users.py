"""What the view keeps of each user, on disk only: newest list, events, shifts, receipt of an erasure."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
from rocksdict import WriteBatch

from monitor.view import records
from monitor.view.clock import StreamClock
from monitor.view.db import ViewDb, user_hash
from monitor.view.records import HistoryItem
from stream.log.base import RecordBatch
from stream.mapping.config import EventsConfig
from stream.mapping.decoder import make_decoder
from stream.schema.decoder import Decoded
from stream.schema.events import ActionsConfig
from stream.schema.messages import ErasureReceipt, IntentShift, Recommendations

_T = TypeVar("_T")
DAY_MS: Final = 86_400_000


class UserRecords:
    """Lists, events, shifts and receipts by user.

    Parameters
    ----------
    history_len
        Newest events and shifts kept per user.
    history_days
        Event time, before the stream's clock, after which a user's events and shifts are removed.
    actions
        The worker's actions: the worker refuses an event with another one, so no history holds it.
    events
        The shape of the records.
    """

    def __init__(
        self, db: ViewDb, *, history_len: int, history_days: float, actions: ActionsConfig, events: EventsConfig
    ) -> None:
        self._db = db
        self._decoder, self._actions = make_decoder(events, actions), actions.names()
        self._history_len = history_len
        self._history_ms = int(history_days * DAY_MS)
        self._cursor = b"h"
        self._erased: dict[bytes, ErasureReceipt] = {}  # erasures of the batches at hand, not yet written
        self.clock = StreamClock()

    def begin_batches(self) -> None:
        """Forget the erasures of the batches before, which are written now."""
        self._erased.clear()

    def prepare(self, batch: RecordBatch) -> None:
        """Fetch the schemas that the events of a batch need; raises `SchemasUnavailable`."""
        self._decoder.prepare(batch.values)

    # -- records of the topics ----------------------------------------------------------------------------------------

    def apply_events(self, write: WriteBatch, batch: RecordBatch) -> None:
        """Put events into the histories, and empty those of users who asked for an erasure."""
        # What the worker refuses is no part of a history; the page shows the dead letter that becomes of it.
        decoded = self._decoder.decode(batch.values, batch.keys, batch.timestamps_ms)
        begin = 0
        for erasure in decoded.erasures:
            end = erasure.events_before
            self._put_events(write, decoded, begin, end)
            user = user_hash(erasure.user)
            write.delete_range(b"h" + user, b"h" + user + b"\xff" * 16)
            write.put(b"E" + user, batch.timestamps_ms[erasure.index].to_bytes(8, "big", signed=True))
            begin = end
        self._put_events(write, decoded, begin, len(decoded.events))
        self.clock.update(decoded.events.users, decoded.events.ts.tolist())

    def _put_events(self, write: WriteBatch, decoded: Decoded, begin: int, end: int) -> None:
        part = slice(begin, end)
        rows = zip(
            decoded.events.users[part],
            decoded.events.items[part],
            decoded.events.ts[part].tolist(),
            decoded.events.actions[part].tolist(),
            strict=True,
        )
        names, pack, put = self._actions, records.pack, write.put
        for user, item, ts, code in rows:
            mark = user_hash(item.encode() + b"\0" + names[code].encode())[:4]
            put(b"h" + user_hash(user) + ts.to_bytes(8, "big") + mark, pack(HistoryItem(item, ts, names[code])))

    @staticmethod
    def put_list(write: WriteBatch, user: bytes, value: bytes | None) -> None:
        """Keep the newest list of a user; None: the list is withdrawn."""
        if value is None:
            write.delete(b"r" + user_hash(user))
        else:
            write.put(b"r" + user_hash(user), value)

    def put_shift(self, write: WriteBatch, shift: IntentShift, value: bytes) -> bool:
        """Keep a shift; False when its user was erased after the event behind it."""
        user = user_hash(shift.user.encode())
        receipt = self._newest_receipt(user)
        if receipt is not None and precedes(shift, receipt):
            return False
        write.put(b"s" + user + shift.as_of.ts.to_bytes(8, "big") + shift.step.to_bytes(8, "big"), value)
        return True

    def erase(self, write: WriteBatch, receipt: ErasureReceipt, value: bytes) -> None:
        """Keep the receipt, and remove the shifts from before the erasure."""
        user = user_hash(receipt.user.encode())
        self._erased[user] = receipt
        write.put(b"e" + user, value)
        for key, shift in self._db.load(b"s" + user, records.decode_shift):
            if precedes(shift, receipt):
                write.delete(key)

    def erased_after(self, user: bytes, partition: int, offset: int) -> bool:
        """Whether the user (as a hash) was erased after this input record."""
        receipt = self._newest_receipt(user)
        if receipt is None:
            return False
        return receipt.as_of.partition == partition and offset <= receipt.as_of.offset

    def _newest_receipt(self, user: bytes) -> ErasureReceipt | None:
        return self._erased.get(user) or self._receipt(user)

    def sweep(self, keys: int) -> int:
        """Look at the next `keys` events and shifts, remove those too old or too many, and return how many."""
        write = WriteBatch(raw_mode=True)
        oldest = self.clock.now_ms - self._history_ms
        user, held = b"", list[bytes]()
        seen = removed = 0
        prefix = self._cursor[:1]
        for key, _ in self._db.scan(prefix, self._cursor):
            if key[:17] != user:
                if seen >= keys:
                    self._cursor = key
                    break
                user, held = key[:17], list[bytes]()
            seen += 1
            if int.from_bytes(key[17:25], "big") < oldest:
                write.delete(key)
                removed += 1
                continue
            held.append(key)
            if len(held) > self._history_len:
                write.delete(held.pop(0))
                removed += 1
        else:
            self._cursor = b"s" if prefix == b"h" else b"h"
        if removed:
            self._db.write(write)
        return removed

    # -- queries ------------------------------------------------------------------------------------------------------

    def recommendations(self, user: str) -> Recommendations | None:
        """The newest list of a user."""
        raw = self._db.get(b"r" + user_hash(user.encode()))
        try:
            return None if raw is None else records.decode_recommendations(raw)
        except msgspec.MsgspecError:  # lists are stored as they came: most are never read
            return None

    def history(self, user: str) -> list[HistoryItem]:
        """The user's newest events, newest first."""
        return self._newest(b"h", user, records.decode_history_item)

    def shifts(self, user: str) -> list[IntentShift]:
        """The user's newest shifts, newest first."""
        return self._newest(b"s", user, records.decode_shift)

    def _newest(self, kind: bytes, user: str, decode: Callable[[bytes], _T]) -> list[_T]:
        found: list[_T] = []
        for _, raw in self._db.scan_back(kind + user_hash(user.encode())):
            with contextlib.suppress(msgspec.MsgspecError):  # of another version
                found.append(decode(raw))
            if len(found) == self._history_len:
                break
        return found

    def receipt(self, user: str) -> ErasureReceipt | None:
        """The receipt of the user's last erasure."""
        return self._receipt(user_hash(user.encode()))

    def _receipt(self, user: bytes) -> ErasureReceipt | None:
        raw = self._db.get(b"e" + user)
        try:
            return None if raw is None else records.decode_receipt(raw)
        except msgspec.MsgspecError:  # of another version
            return None

    def erasure_requested_ms(self, user: str) -> int | None:
        """When the user's last erasure was requested: the time of the record, not of the stream."""
        raw = self._db.get(b"E" + user_hash(user.encode()))
        return None if raw is None else int.from_bytes(raw, "big", signed=True)


def precedes(shift: IntentShift, receipt: ErasureReceipt) -> bool:
    """Whether a shift comes from before an erasure of its user, whatever partition its event was in."""
    at, erased = shift.as_of, receipt.as_of
    return shift.step < receipt.step or (at.partition == erased.partition and at.offset <= erased.offset)
