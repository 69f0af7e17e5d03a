"""Hostile and broken messages, by name, with what has to become of each."""
