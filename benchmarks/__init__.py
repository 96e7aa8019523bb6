"""Benchmarks of speed and memory, run by hand: `python -m benchmarks.<name>`. Results are in docs/benchmarks.md."""
