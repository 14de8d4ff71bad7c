"""Intents: which centers are one, who holds which, who moved."""
