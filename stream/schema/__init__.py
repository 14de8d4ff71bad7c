"""The wire contract: topics, events, messages."""
