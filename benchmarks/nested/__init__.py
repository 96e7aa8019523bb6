"""Benchmarks of nested learning: what its parts are good for, each against the best simple alternative."""
