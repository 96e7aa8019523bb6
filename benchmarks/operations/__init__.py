"""Measurements of the queue and its workers, and of the curriculum."""
