"""State: per-user histories in RocksDB, and atomic checkpoints of everything."""
