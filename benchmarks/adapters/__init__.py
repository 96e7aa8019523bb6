"""Benchmarks of adapters and fine-tuning."""
