"""Speed and memory, measured by hand: `python -m benchmarks.<name>`. Nothing here is a test; figures in docs/."""
