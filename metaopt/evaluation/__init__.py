"""Paired runs of a generative optimizer and its baselines, and the statistics over them."""
