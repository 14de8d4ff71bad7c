"""Hostile input: how many records, requests and files go wrong, how long one takes, and what memory does meanwhile."""
