"""Measurements of operations."""
