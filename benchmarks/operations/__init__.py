"""Measurements of the queue and of what steers it."""
