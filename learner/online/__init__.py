"""Learning from a stream: network, item statistics, the ranker that mixes them."""
