"""Lists made on request, from the model of the newest checkpoint."""

from stream.serving.ranker import CheckpointRanker

__all__ = ["CheckpointRanker"]
