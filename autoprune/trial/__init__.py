"""One trial, from a config to its record."""
