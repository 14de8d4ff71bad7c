"""A file through the engine, with a report and baselines."""
