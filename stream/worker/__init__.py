"""The worker: input and output around the engine, and recovery."""
