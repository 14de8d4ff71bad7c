"""Drift: signals of the stream, detectors, episodes and what is done about them."""
