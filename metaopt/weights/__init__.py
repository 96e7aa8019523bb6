"""Weights as data: which of them are trainable, flat vectors, tokens, averages and files."""
