"""State: per-user histories in RocksDB, and atomic checkpoints of everything."""

from state.checkpoints import Checkpoint, CheckpointStore, PendingCheckpoint
from state.errors import (
    CheckpointFormatUnknown,
    CheckpointInProgress,
    StateCorrupted,
    StateError,
    StateInUse,
    StorageFailed,
    StorageFull,
    StorageReadOnly,
)
from state.folder_lock import lock_folder
from state.histories import Appended, append
from state.memory_store import MemoryUserStore
from state.records import NO_INTENT, blank_users, is_live, user_dtype
from state.store import UserStore
from state.watermarks import Watermarks

__all__ = [
    "Appended",
    "Checkpoint",
    "CheckpointFormatUnknown",
    "CheckpointInProgress",
    "CheckpointStore",
    "MemoryUserStore",
    "NO_INTENT",
    "PendingCheckpoint",
    "StateCorrupted",
    "StateError",
    "StateInUse",
    "StorageFailed",
    "StorageFull",
    "StorageReadOnly",
    "UserStore",
    "Watermarks",
    "append",
    "blank_users",
    "is_live",
    "lock_folder",
    "user_dtype",
]
