"""Benchmarks, each row a ratio of things timed in turn."""
