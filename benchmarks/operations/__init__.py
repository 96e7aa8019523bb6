"""Measurements of the queue and its workers."""
