"""State: per-user histories in RocksDB, and atomic cuts of everything."""

from state.checkpoints import Cut, CutStore, PendingCut
from state.errors import (
    CutFormatUnknown,
    CutInProgress,
    StateCorrupted,
    StateError,
    StateLocked,
    StorageFailed,
    StorageFull,
    StorageReadOnly,
)
from state.histories import Appended, append
from state.memory_store import MemoryUserStore
from state.records import NO_INTENT, blank_users, remembered, user_dtype
from state.store import UserStore
from state.watermarks import Clocks

__all__ = [
    "Appended",
    "Clocks",
    "Cut",
    "CutFormatUnknown",
    "CutInProgress",
    "CutStore",
    "MemoryUserStore",
    "NO_INTENT",
    "PendingCut",
    "StateCorrupted",
    "StateError",
    "StateLocked",
    "StorageFailed",
    "StorageFull",
    "StorageReadOnly",
    "UserStore",
    "append",
    "blank_users",
    "remembered",
    "user_dtype",
]
