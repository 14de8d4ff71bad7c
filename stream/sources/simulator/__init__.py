"""A simulated shop."""
