"""Scores, units, masks and surgery."""
