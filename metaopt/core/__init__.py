"""Shared parts without machine learning: errors, registries, configurations, random numbers, progress, processes."""
