"""Records in other shapes than our own: which of their fields are user, item, time, action and value."""
