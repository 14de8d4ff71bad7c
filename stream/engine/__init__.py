"""The engine: the deterministic core."""
