"""The embedded log, on RocksDB."""
