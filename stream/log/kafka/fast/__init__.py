"""The fast path: what reaches inside kafka-python. Loaded only for versions whose insides the tests know."""
